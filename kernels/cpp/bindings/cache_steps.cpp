#include "longspan/cache_steps.hpp"

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bind.hpp"
#include "cache_policy.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

// Holds the arrays that its worker reads and writes.
class Steps {
   public:
    Steps(std::shared_ptr<StepCaches> caches, int layer, IntsOut starts, IntsOut sizes, IntsOut counts, IntsOut flag,
          IntsOut admitted, IntsOut admitted_count)
        : arrays_{starts, sizes, counts, flag, admitted, admitted_count} {
        const std::size_t rows = caches->size() * static_cast<std::size_t>(caches->options().groups);
        require(layer >= 0 && layer < caches->options().layers, "the caches have no such layer");
        require(starts.ndim() == 2 && starts.shape(0) == rows && sizes.size() == starts.size() && counts.size() == rows,
                "the runs are not [caches x groups, K] with a size each and a count a row");
        require(flag.size() == 1 && admitted.ndim() == 3 && admitted.shape(0) == caches->size() && admitted.shape(2) == 4 &&
                    admitted_count.size() == caches->size(),
                "the flag is one number, what is admitted [caches, most, 4] with a count a cache");
        const RunsView read{starts.data(), sizes.data(), counts.data(), static_cast<std::int64_t>(rows),
                            static_cast<std::int64_t>(starts.shape(1))};
        steps_ = std::make_unique<CacheSteps>(
            std::move(caches), layer,
            StepLists{read, flag.data(), admitted.data(), admitted_count.data(), static_cast<std::int64_t>(admitted.shape(1))});
    }

    void begin() {
        const nb::gil_scoped_release released;
        steps_->begin();
    }
    void raise_flag() { steps_->raise_flag(); }
    std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t>> wait(double seconds) {
        std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t>> counts;
        Interrupt interrupt(&signal_pending);
        run_interruptible([&] {
            for (const StepCount& each : steps_->wait(seconds, interrupt))
                counts.emplace_back(each.hit_entries, each.miss_entries, each.admitted_entries);
        });
        return counts;
    }

   private:
    std::vector<IntsOut> arrays_;
    std::unique_ptr<CacheSteps> steps_;  // ends before the arrays do
};

std::shared_ptr<StepCaches> made_caches(const std::vector<std::int64_t>& pages, int page, int groups, std::string_view policy,
                                        int layers) {
    require(!pages.empty(), "there must be a cache at least");
    std::vector<CacheOptions> caches;
    for (const std::int64_t each : pages) caches.push_back(checked_options(each, page, groups, policy, layers));
    return std::make_shared<StepCaches>(caches);
}

}  // namespace

void bind_cache_steps(nb::module_& module) {
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    nb::class_<StepCaches>(module, "StepCaches", "What CacheSteps of several layers share; see longspan_kernels.block_cache.")
        .def(nb::new_(&made_caches), nb::arg("pages"), nb::arg("page"), nb::arg("groups"), nb::arg("policy"), nb::arg("layers"));
    nb::class_<Steps>(module, "CacheSteps", "Caches updated beside decode steps; see longspan_kernels.block_cache.")
        .def(nb::init<std::shared_ptr<StepCaches>, int, IntsOut, IntsOut, IntsOut, IntsOut, IntsOut, IntsOut>(), nb::arg("caches"),
             nb::arg("layer"), array("starts"), array("sizes"), array("counts"), array("flag"), array("admitted"),
             array("admitted_count"))
        .def("begin", &Steps::begin, "Wait, in a thread, for the step to come; what was not waited for is given up.")
        .def("raise_flag", &Steps::raise_flag, "The step, one of the host's, has left what it read.")
        .def("wait", &Steps::wait, nb::arg("seconds"), "Entries hit, missed and admitted by each cache; none where nothing was begun.");
}

}  // namespace longspan
