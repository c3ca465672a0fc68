#include "longspan/cache_steps.hpp"

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
    Steps(const std::vector<std::int64_t>& pages, int page, int groups, std::string_view policy, IntsOut starts, IntsOut sizes,
          IntsOut counts, IntsOut flag, IntsOut admitted, IntsOut admitted_count)
        : arrays_{starts, sizes, counts, flag, admitted, admitted_count} {
        const std::size_t rows = pages.size() * static_cast<std::size_t>(groups);
        require(page >= 1 && groups >= 1 && !pages.empty(), "page, groups and caches must be at least 1");
        require(starts.ndim() == 2 && starts.shape(0) == rows && sizes.size() == starts.size() && counts.size() == rows,
                "the runs are not [caches x groups, K] with a size each and a count a row");
        require(flag.size() == 1 && admitted.ndim() == 3 && admitted.shape(0) == pages.size() && admitted.shape(2) == 4 &&
                    admitted_count.size() == pages.size(),
                "the flag is one number, what is admitted [caches, most, 4] with a count a cache");
        std::vector<CacheOptions> caches;
        for (const std::int64_t each : pages) {
            require(each >= 0, "pages must be at least 0");
            caches.push_back({each, page, groups, parse_policy(policy)});
        }
        const RunsView read{starts.data(), sizes.data(), counts.data(), static_cast<std::int64_t>(rows),
                            static_cast<std::int64_t>(starts.shape(1))};
        steps_ = std::make_unique<CacheSteps>(
            caches, StepLists{read, flag.data(), admitted.data(), admitted_count.data(), static_cast<std::int64_t>(admitted.shape(1))});
    }

    void begin() {
        const nb::gil_scoped_release released;
        steps_->begin();
    }
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

}  // namespace

void bind_cache_steps(nb::module_& module) {
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    nb::class_<Steps>(module, "CacheSteps", "Caches updated beside decode steps; see longspan_kernels.block_cache.")
        .def(nb::init<const std::vector<std::int64_t>&, int, int, std::string_view, IntsOut, IntsOut, IntsOut, IntsOut, IntsOut,
                      IntsOut>(),
             nb::arg("pages"), nb::arg("page"), nb::arg("groups"), nb::arg("policy"), array("starts"), array("sizes"),
             array("counts"), array("flag"), array("admitted"), array("admitted_count"))
        .def("begin", &Steps::begin, "Wait, in a thread, for the step to come; what was not waited for is given up.")
        .def("wait", &Steps::wait, nb::arg("seconds"), "Entries hit, missed and admitted by each cache; none where nothing was begun.");
}

}  // namespace longspan
