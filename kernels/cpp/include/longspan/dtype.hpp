// Storage types of keys, values and centroids. Arithmetic is always float32.
#pragma once

#include <bit>
#include <cstdint>

namespace longspan {

enum class Dtype { f32, f16, bf16, i8 };

struct F16 {
    std::uint16_t bits;
};
struct Bf16 {
    std::uint16_t bits;
};

inline float to_float(float value) { return value; }
inline float to_float(std::int8_t value) { return value; }
inline float to_float(Bf16 value) { return std::bit_cast<float>(std::uint32_t{value.bits} << 16); }

inline float to_float(F16 value) {
    const std::uint32_t sign = std::uint32_t{value.bits & 0x8000U} << 16;
    const std::uint32_t magnitude = value.bits & 0x7fffU;
    if (magnitude >= 0x7c00U)  // infinity and NaN keep their payload
        return std::bit_cast<float>(sign | 0x7f800000U | (magnitude & 0x3ffU) << 13);
    // Rebias the exponent by a multiplication, which also makes subnormals right.
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112F) | sign);
}

// Rounds to nearest, ties to even; NaN stays NaN.
inline Bf16 to_bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return {static_cast<std::uint16_t>(bits >> 16 | 0x40U)};
    return {static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16)};
}

// Calls `body` with a null pointer of the storage type, for its type only.
template <class Body>
auto with_storage(Dtype dtype, Body&& body) {
    switch (dtype) {
        case Dtype::f16: return body(static_cast<const F16*>(nullptr));
        case Dtype::bf16: return body(static_cast<const Bf16*>(nullptr));
        case Dtype::i8: return body(static_cast<const std::int8_t*>(nullptr));
        case Dtype::f32: break;
    }
    return body(static_cast<const float*>(nullptr));
}

}  // namespace longspan
