// Only + - * / and sqrt, in the order of reference.py and never contracted, so both give the same bits everywhere.
#include "philox.hpp"

#include <cmath>
#include <cstring>

namespace fusedx {
namespace {

struct Words { uint32_t w[4]; };

Words philox(const uint32_t* key, const uint32_t* counter) {
    uint32_t k0 = key[0], k1 = key[1];
    Words x;
    std::memcpy(x.w, counter, sizeof x.w);
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        const uint64_t p0 = uint64_t{0xD2511F53u} * x.w[0], p1 = uint64_t{0xCD9E8D57u} * x.w[2];
        x = {{uint32_t(p1 >> 32) ^ x.w[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ x.w[3] ^ k1, uint32_t(p0)}};
    }
    return x;
}

double unit(uint32_t high, uint32_t low) {  // 53 bits: a multiple of 2^-53 in [0, 1)
    return static_cast<double>((uint64_t{high} << 32 | low) >> 11) * 0x1p-53;
}

double ln(double x) {  // x in [2^-53, 1]
    uint64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    double e = static_cast<double>(static_cast<int64_t>(bits >> 52) - 1022);
    bits = (bits & 0x000FFFFFFFFFFFFFull) | 0x3FE0000000000000ull;  // mantissa in [1/2, 1)
    double m;
    std::memcpy(&m, &bits, sizeof m);
    if (m < 0.7071067811865476) m = m * 2.0, e = e - 1.0;
    const double f = m - 1.0;
    const double s = f / (m + 1.0);
    const double z = s * s;
    double p = 2.0 / 21.0;
    for (int k = 19; k >= 3; k -= 2) p = p * z + 2.0 / k;
    const double correction = s * (f - z * p);
    return e * 0x1.62e42feep-1 + (f - (correction - e * 0x1.a39ef35793c76p-33));
}

double cos_turns(double u) {  // cos(2 pi u), u in [0, 1)
    const double q = std::floor(u * 4.0 + 0.5);
    const double x = (u - q * 0.25) * 6.283185307179586;
    const double z = x * x;
    const int quadrant = static_cast<int>(q) % 4;
    if (quadrant % 2 == 0) {
        double p = 1.0 / 20922789888000.0;
        p = p * z - 1.0 / 87178291200.0;
        p = p * z + 1.0 / 479001600.0;
        p = p * z - 1.0 / 3628800.0;
        p = p * z + 1.0 / 40320.0;
        p = p * z - 1.0 / 720.0;
        p = p * z + 1.0 / 24.0;
        const double c = 1.0 - (0.5 * z - z * z * p);
        return quadrant == 0 ? c : -c;
    }
    double p = 1.0 / 355687428096000.0;
    p = p * z - 1.0 / 1307674368000.0;
    p = p * z + 1.0 / 6227020800.0;
    p = p * z - 1.0 / 39916800.0;
    p = p * z + 1.0 / 362880.0;
    p = p * z - 1.0 / 5040.0;
    p = p * z + 1.0 / 120.0;
    p = p * z - 1.0 / 6.0;
    const double s = x + x * (z * p);
    return quadrant == 3 ? s : -s;
}

}  // namespace

void philox_words(const uint32_t* key, const uint32_t* counters, int64_t count, uint32_t* words) {
    for (int64_t i = 0; i < count; ++i) {
        const Words x = philox(key, counters + 4 * i);
        std::memcpy(words + 4 * i, x.w, sizeof x.w);
    }
}

void philox_uniform(const uint32_t* key, const uint32_t* counters, int64_t count, double* out) {
    for (int64_t i = 0; i < count; ++i) {
        const Words x = philox(key, counters + 4 * i);
        out[i] = unit(x.w[0], x.w[1]);
    }
}

void philox_normal(const uint32_t* key, const uint32_t* counters, int64_t count, double* out) {
    for (int64_t i = 0; i < count; ++i) {
        const Words x = philox(key, counters + 4 * i);
        const double u1 = 1.0 - unit(x.w[0], x.w[1]);
        out[i] = std::sqrt(-2.0 * ln(u1)) * cos_turns(unit(x.w[2], x.w[3]));
    }
}

}  // namespace fusedx
