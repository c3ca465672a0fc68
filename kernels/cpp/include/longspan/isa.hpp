// The instruction sets that the kernels are compiled for, and which of them this machine can run.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace longspan {

enum class Isa { portable, avx2, avx512, avx512_bf16, amx, neon, neon_bf16 };

// The widest of a machine last.
inline constexpr Isa all_isas[] = {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx, Isa::neon, Isa::neon_bf16};

inline constexpr std::string_view name_of(Isa isa) {
    constexpr std::string_view names[] = {"portable", "avx2", "avx512", "avx512_bf16", "amx", "neon", "neon_bf16"};
    return names[static_cast<int>(isa)];
}

#if defined(__x86_64__)
// Whether there are tiles for bfloat16, and the kernel lets this process keep their state: it has to be asked once.
inline bool tiles_granted() {
#if defined(__linux__)
    static const bool granted = [] {
        constexpr long request_permission = 0x1023, tile_data = 18;
        unsigned a = 0, b = 0, c = 0, d = 0;
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
        constexpr unsigned bfloat16 = 1U << 22, tiles = 1U << 24;
        const bool present = (d & bfloat16) != 0 && (d & tiles) != 0;
        return present && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    }();
    return granted;
#else
    return false;
#endif
}
#endif

#if defined(__aarch64__)
// Whether there are products of pairs of bfloat16. Asked of Linux only.
inline bool bfloat16_pairs() {
#if defined(__linux__)
    constexpr unsigned long bfloat16 = 1UL << 14;
    return (getauxval(AT_HWCAP2) & bfloat16) != 0;
#else
    return false;
#endif
}
#endif

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
        case Isa::amx: return runs_here(Isa::avx512_bf16) && tiles_granted();
        default: return false;
    }
#elif defined(__aarch64__)
    return isa == Isa::portable || isa == Isa::neon || (isa == Isa::neon_bf16 && bfloat16_pairs());
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
