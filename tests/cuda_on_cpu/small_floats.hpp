// bf16 and fp16 in software: every compiler has it, and it is written from IEEE 754, not from the code under test.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace fusedx::on_cpu {

template <class To, class From>
inline To cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

inline float from_bf16(uint16_t x) { return cast<float>(static_cast<uint32_t>(x) << 16); }

inline uint16_t to_bf16(float x) {  // round to nearest, ties to even; not-a-number as NVIDIA writes it
    if (std::isnan(x)) return 0x7fff;
    const uint32_t bits = cast<uint32_t>(x);
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline float from_fp16(uint16_t x) {
    static const std::vector<float> table = [] {
        std::vector<float> values(1 << 16);
        for (int i = 0; i < 1 << 16; ++i) {
            const int exponent = i >> 10 & 31, mantissa = i & 1023;
            const double size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                                : exponent == 0 ? std::ldexp(mantissa, -24)
                                                : std::ldexp(1024 + mantissa, exponent - 25);
            values[i] = static_cast<float>(i >> 15 ? -size : size);
        }
        return values;
    }();
    return table[x];
}

inline uint16_t to_fp16(float x) {  // round to nearest, ties to even: nearbyint's own rule
    if (std::isnan(x)) return 0x7fff;
    const auto sign = static_cast<uint16_t>(std::signbit(x) ? 0x8000 : 0);
    const double size = std::fabs(static_cast<double>(x));
    if (size >= 65520.0) return sign | 0x7c00;
    int exponent = size > 0 ? std::ilogb(size) : -14;
    if (exponent < -14) exponent = -14;
    const auto units = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));  // 0 .. 2048 units of 2^(exponent - 10)
    return static_cast<uint16_t>(sign | (units + ((exponent + 14) << 10)));
}

}  // namespace fusedx::on_cpu
