#include "longspan/block_cache.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string_view.h>

#include <future>
#include <string>

#include "bind.hpp"
#include "cache_policy.hpp"
#include "longspan/workers.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

RunsView checked_runs(const IntsIn& starts, const std::optional<IntsIn>& sizes, const IntsIn& counts, int groups) {
    require(starts.ndim() == 2 && counts.size() == starts.shape(0) && starts.shape(0) % static_cast<std::size_t>(groups) == 0,
            "runs are not [N, K] with N a multiple of the groups and a count a row");
    require(!sizes || sizes->size() == starts.size(), "sizes are not shaped as starts");
    const RunsView runs{starts.data(), sizes ? sizes->data() : nullptr, counts.data(), static_cast<std::int64_t>(starts.shape(0)),
                        static_cast<std::int64_t>(starts.shape(1))};
    check_runs(runs);
    return runs;
}

// A cache whose updates run beside its caller. One update at a time; whatever needs the table waits for it.
class Cache {
   public:
    Cache(std::int64_t pages, int page, int groups, std::string_view policy, int layers)
        : cache_(checked_options(pages, page, groups, policy, layers)) {}
    ~Cache() {
        if (pending_.valid()) pending_.wait();
    }

    std::shared_ptr<LookUp> look_up(const IntsIn& starts, const std::optional<IntsIn>& sizes, const IntsIn& counts, int layer) {
        require(!pending_.valid(), "an update is under way; wait for it before the next look-up");
        require(layer >= 0 && layer < cache_.options().layers, "the cache has no such layer");
        const RunsView runs = checked_runs(starts, sizes, counts, cache_.options().groups);
        const nb::gil_scoped_release released;
        return std::make_shared<LookUp>(cache_.look_up(runs, layer));
    }
    void update(std::shared_ptr<LookUp> found) {
        require(!pending_.valid(), "an update is under way; wait for it before the next one");
        if (!workers_) workers_ = Workers::shared();
        // a worker must not be the last to hold a Python object: it has no GIL to let it go with
        reading_ = std::move(found);
        auto task = std::make_shared<std::packaged_task<Admission()>>([this] { return cache_.update(*reading_); });
        pending_ = task->get_future();
        workers_->post([task] { (*task)(); });
    }
    std::shared_ptr<Admission> wait() {
        require(pending_.valid(), "no update is under way; update before waiting");
        const nb::gil_scoped_release released;
        return std::make_shared<Admission>(pending_.get());
    }
    void grow(std::int64_t pages) {
        require(!pending_.valid(), "an update is under way; wait for it before growing");
        cache_.grow(pages);
    }
    const BlockCache& table() const { return cache_; }

   private:
    BlockCache cache_;
    std::shared_ptr<Workers> workers_;
    std::shared_ptr<const LookUp> reading_;
    std::future<Admission> pending_;
};

// Writes the lists to arrays [N, P] with P at least their width; beyond the counts, nothing.
void write(const PageLists& pages, const IntsOut& sources, const IntsOut& targets, const IntsOut& sizes, const IntsOut& counts) {
    require(sources.ndim() == 2 && static_cast<std::int64_t>(sources.shape(0)) == pages.rows() &&
                static_cast<std::int64_t>(sources.shape(1)) >= pages.width() && targets.size() == sources.size() &&
                sizes.size() == sources.size() && counts.size() == sources.shape(0),
            "the arrays are too small for the pages");
    for (std::int64_t row = 0; row < pages.rows(); ++row) {
        const std::size_t at = static_cast<std::size_t>(row) * sources.shape(1);
        std::copy(pages.sources[row].begin(), pages.sources[row].end(), sources.data() + at);
        std::copy(pages.targets[row].begin(), pages.targets[row].end(), targets.data() + at);
        std::copy(pages.sizes[row].begin(), pages.sizes[row].end(), sizes.data() + at);
        counts.data()[row] = static_cast<std::int32_t>(pages.sources[row].size());
    }
}

template <class Owner>
void bind_pages(nb::class_<Owner>& owner) {
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    owner.def_prop_ro("width", [](const Owner& self) { return self.pages.width(); }, "Pages of the longest row.");
    owner.def_prop_ro("row_count", [](const Owner& self) { return self.pages.rows(); }, "Rows.");
    owner.def("write", [](const Owner& self, const IntsOut& sources, const IntsOut& targets, const IntsOut& sizes,
                          const IntsOut& counts) { write(self.pages, sources, targets, sizes, counts); },
              array("sources"), array("targets"), array("sizes"), array("counts"), "Write the pages to arrays [N, P].");
}

std::int64_t longest(const LookUp& found) {
    return found.lengths.empty() ? 0 : *std::max_element(found.lengths.begin(), found.lengths.end());
}

void write_targets(const LookUp& found, const IntsOut& targets) {
    require(targets.size() == found.targets.size(), "targets are not shaped as the runs");
    std::copy(found.targets.begin(), found.targets.end(), targets.data());
}

}  // namespace

void bind_block_cache(nb::module_& module) {
    nb::class_<LookUp> found(module, "LookUp", "What a look-up found; see longspan_kernels.block_cache.");
    bind_pages(found);
    found.def_prop_ro("length", &longest, "Entries of the longest row of the buffer.")
        .def("write_targets", &write_targets, nb::arg("targets").noconvert(), "Write where each run begins in the buffer, [N, K].")
        .def_ro("hit_blocks", &LookUp::hit_blocks)
        .def_ro("miss_blocks", &LookUp::miss_blocks)
        .def_ro("hit_entries", &LookUp::hit_entries)
        .def_ro("miss_entries", &LookUp::miss_entries);
    nb::class_<Admission> admission(module, "Admission", "What an update let in; see longspan_kernels.block_cache.");
    bind_pages(admission);
    admission.def_ro("admitted_blocks", &Admission::admitted_blocks)
        .def_ro("admitted_entries", &Admission::admitted_entries)
        .def_ro("evicted_blocks", &Admission::evicted_blocks);
    nb::class_<Cache>(module, "BlockCache", "The table of a block cache; see longspan_kernels.block_cache.")
        .def(nb::init<std::int64_t, int, int, std::string_view, int>(), nb::arg("pages"), nb::arg("page"), nb::arg("groups"),
             nb::arg("policy"), nb::arg("layers"))
        .def("look_up", &Cache::look_up, nb::arg("starts").noconvert(), nb::arg("sizes").noconvert().none(),
             nb::arg("counts").noconvert(), nb::arg("layer"), "What is cached of these runs; changes nothing.")
        .def("update", &Cache::update, nb::arg("found"), "Begin to let in what was missing, beside the caller.")
        .def("wait", &Cache::wait, "What the update let in, once it is done.")
        .def("grow", &Cache::grow, nb::arg("pages"), "More pages; what is cached stays.")
        .def_prop_ro("pages", [](const Cache& self) { return self.table().options().pages; }, "Capacity.")
        .def_prop_ro("free_pages", [](const Cache& self) { return self.table().free_pages(); }, "Pages that hold nothing.")
        .def_prop_ro("blocks", [](const Cache& self) { return self.table().blocks(); }, "Blocks held.");
}

}  // namespace longspan
