// The instruction sets that the kernels are compiled for, and which of them this machine can run.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace longspan {

enum class Isa { portable, avx2, avx512, avx512_bf16 };

inline constexpr Isa all_isas[] = {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16};

inline constexpr std::string_view name_of(Isa isa) {
    constexpr std::string_view names[] = {"portable", "avx2", "avx512", "avx512_bf16"};
    return names[static_cast<int>(isa)];
}

inline bool runs_here(Isa isa) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    switch (isa) {
        case Isa::portable: return true;
        case Isa::avx2: return avx2;
        case Isa::avx512: return avx512;
        case Isa::avx512_bf16: return avx512 && __builtin_cpu_supports("avx512bf16");
    }
    return false;
#else
    return isa == Isa::portable;
#endif
}

inline std::vector<std::string> isas_here() {
    std::vector<std::string> names;
    for (Isa isa : all_isas)
        if (runs_here(isa)) names.emplace_back(name_of(isa));
    return names;
}

// "native" is the widest that this machine runs; throws std::invalid_argument for one that it does not.
inline Isa parse_isa(std::string_view name) {
    Isa best = Isa::portable;
    for (Isa isa : all_isas) {
        if (!runs_here(isa)) continue;
        if (name == name_of(isa)) return isa;
        best = isa;
    }
    if (name == "native") return best;
    throw std::invalid_argument("isa is '" + std::string(name) + "', which this machine does not run");
}

}  // namespace longspan
