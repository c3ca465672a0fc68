#include "tensors.hpp"

namespace longspan {

Dtype dtype_of(const Stored& array) {
    const nb::dlpack::dtype type = array.dtype();
    if (type == nb::dtype<float>()) return Dtype::f32;
    if (type == nb::dtype<std::int8_t>()) return Dtype::i8;
    if (type.bits == 16 && type.lanes == 1) {
        if (type.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float)) return Dtype::f16;
        if (type.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat)) return Dtype::bf16;
    }
    throw std::invalid_argument("the storage type is not float32, float16, bfloat16 or int8");
}

RowsView rows_view(const Stored& array) {
    require(array.ndim() == 3 && array.shape(2) % 8 == 0 && array.shape(2) > 0, "rows are not [G, T, D] with D a multiple of 8");
    require(array.stride(2) == 1 || array.size() == 0, "the elements of a row are not adjacent");
    return {array.data(), dtype_of(array), array.stride(0), array.stride(1)};
}

PerEntry per_entry(const std::optional<PerEntryIn>& array, std::int64_t groups, std::int64_t entries) {
    if (!array) return {};
    require(static_cast<std::int64_t>(array->shape(0)) == groups && static_cast<std::int64_t>(array->shape(1)) == entries,
            "an array of one number an entry is not [G, T]");
    require(array->stride(1) == 1 || array->size() == 0, "the numbers of a group are not adjacent");
    return {array->data(), array->stride(0)};
}

StoredKeys stored_keys(const std::vector<Stored>& parts, std::size_t heads, std::size_t head_size) {
    StoredKeys found{};
    std::int64_t first = 0;
    for (const Stored& keys : parts) {
        require(keys.ndim() == 3 && keys.stride(2) == 1 && keys.shape(0) > 0 && heads % keys.shape(0) == 0 &&
                    keys.shape(0) == parts[0].shape(0) && keys.shape(2) == head_size && dtype_of(keys) == dtype_of(parts[0]),
                "keys must be [G, T, D] of one type, D adjacent and as the queries', with G dividing the queries");
        found.parts.push_back({first, keys.data(), keys.stride(0), keys.stride(1)});
        found.dtype = dtype_of(keys);
        found.queries_a_head = static_cast<int>(heads / keys.shape(0));
        first += static_cast<std::int64_t>(keys.shape(1));
    }
    return found;
}

std::int64_t tokens_of(const std::vector<Stored>& parts) {
    std::int64_t tokens = 0;
    for (const Stored& keys : parts) tokens += static_cast<std::int64_t>(keys.shape(1));
    return tokens;
}

std::vector<float> padded_queries(const Stored& q) {
    require(q.ndim() == 2 && (q.stride(1) == 1 || q.size() == 0), "queries are not [H, D] with adjacent elements");
    const std::size_t heads = q.shape(0), head_size = q.shape(1), stride = query_stride(static_cast<int>(head_size));
    std::vector<float> padded(heads * stride, 0.0F);
    with_storage(dtype_of(q), [&]<class T>(const T*) {
        for (std::size_t h = 0; h < heads; ++h) {
            const T* row = static_cast<const T*>(q.data()) + static_cast<std::int64_t>(h) * q.stride(0);
            for (std::size_t d = 0; d < head_size; ++d) padded[h * stride + d] = to_float(row[d]);
        }
    });
    return padded;
}

bool signal_pending() {
    const nb::gil_scoped_acquire acquired;
    return PyErr_CheckSignals() != 0;
}

}  // namespace longspan
