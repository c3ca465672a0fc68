// What decode attention works on: one query position, all heads of a layer.
#pragma once

#include <cstdint>

#include "longspan/dtype.hpp"

namespace longspan {

// [groups, entries, head_size]; the elements of a row are adjacent, rows and groups may be apart. Strides in elements.
struct RowsView {
    const void* data = nullptr;
    Dtype dtype = Dtype::f32;
    std::int64_t group_stride = 0;
    std::int64_t row_stride = 0;

    // The rows from `row` on, of every group.
    RowsView from(std::int64_t row) const {
        return with_storage(dtype, [&]<class T>(const T*) {
            return RowsView{static_cast<const T*>(data) + row * row_stride, dtype, group_stride, row_stride};
        });
    }
};

// [groups, entries] of float32 with adjacent entries; null where absent.
struct PerEntry {
    const float* data = nullptr;
    std::int64_t group_stride = 0;

    const float* group(std::int64_t g) const { return data ? data + g * group_stride : nullptr; }
};

// Row n has counts[n] runs; run i covers [starts[n, i], starts[n, i] + sizes[n, i]); sizes null: all runs are one long.
struct RunsView {
    const std::int32_t* starts = nullptr;  // [rows, width]
    const std::int32_t* sizes = nullptr;
    const std::int32_t* counts = nullptr;
    std::int64_t rows = 0;  // 0: attend every entry
    std::int64_t width = 0;
};

// Entries that hash tables sampled, each of which weighs as much more as it was unlikely to be sampled.
struct Sampling {
    PerEntry norm;        // of the keys less their mean
    const float* q_norm;  // [heads]
    const float* q_mean;  // [heads]: the product of the query with that mean
    const float* faint;   // [heads]: keys no farther from the mean are at it
    int bits;
    int tables;
    float least;          // added to the probability
};

struct DecodeArgs {
    const float* q;  // [heads, query_stride(head_size)]
    int heads;
    int groups;
    int head_size;
    std::int64_t entries;
    RowsView keys;
    RowsView values;
    PerEntry key_scale;    // of int8 keys
    PerEntry value_scale;  // of int8 values
    PerEntry bias;         // added to the capped scores
    RunsView runs;
    const Sampling* sampling;  // null: none; in place of a bias, with a row of runs a query head
    std::int64_t first;  // the number of entry 0 in the counting of the runs
    float scale;
    float softcap;  // 0: none
    float* out;     // [heads, head_size]
    float* lse;     // [heads]
    int threads;
};

}  // namespace longspan
