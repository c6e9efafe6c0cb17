// softplus(x) = log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), in float vectors, to about one unit in the last place.
// Above 20 PyTorch returns x itself; so does this, since log1p(exp(-20)) = 2e-9 is less than half a unit of 20.
#pragma once

#include "runtime/vec.hpp"

namespace fusedx::FUSEDX_ISA {
namespace {

// exp(z) for z in [-87, 0]: z = n ln 2 + r with |r| <= ln(2) / 2, then 2^n times the Taylor series of exp(r).
inline vec exp_negative(vec z) {
    constexpr float kRound = 12582912.0f;                           // 1.5 * 2^23: adding it rounds to a whole number
    constexpr float kLn2Hi = 0.693359375f, kLn2Lo = -2.12194440e-4f;  // their sum is ln 2; n * kLn2Hi is exact
    const vec shifted = fma(z, all(1.44269504f), all(kRound));      // 1 / ln 2
    const vec n = shifted - all(kRound);
    const vec r = fma(n, all(-kLn2Lo), fma(n, all(-kLn2Hi), z));
    vec p = all(1.0f / 5040.0f);
    p = fma(p, r, all(1.0f / 720.0f));
    p = fma(p, r, all(1.0f / 120.0f));
    p = fma(p, r, all(1.0f / 24.0f));
    p = fma(p, r, all(1.0f / 6.0f));
    p = fma(p, r, all(0.5f));
    p = fma(r * r, p, r) + all(1.0f);  // 1 last: its rounding is then the only one that counts
    const ivec exponent = (ivec)shifted - (ivec)all(kRound) + all(int32_t{127});
    return p * (vec)(exponent << 23);
}

// log(1 + e) for e in [0, 1]: 2 atanh(s) with s = e / (2 + e) <= 1/3, an odd series 2 s + s R whose first term left out
// is 3e-9.  Since 2 s = e - s e, that is e - s (e - R): the leading term carries no rounding error.
inline vec log1p_unit(vec e) {
    const vec s = e / (all(2.0f) + e), z = s * s;
    vec p = all(2.0f / 15.0f);
    p = fma(p, z, all(2.0f / 13.0f));
    p = fma(p, z, all(2.0f / 11.0f));
    p = fma(p, z, all(2.0f / 9.0f));
    p = fma(p, z, all(2.0f / 7.0f));
    p = fma(p, z, all(2.0f / 5.0f));
    p = fma(p, z, all(2.0f / 3.0f));
    return fma(-s, fma(-z, p, e), e);
}

inline vec softplus(vec x) {  // not-a-number stays not-a-number: every comparison with it is false
    const vec minus = (vec)((ivec)x | all(INT32_MIN));  // -|x|
    const vec floor = all(-87.0f);                      // exp(-87) = 1.6e-38 is the last comfortably normal float
    const vec e = exp_negative(minus < floor ? floor : minus);
    const vec tail = minus < floor ? all(0.0f) : log1p_unit(e);
    return (x > all(0.0f) ? x : all(0.0f)) + tail;
}

// The slope of softplus, 1 / (1 + exp(-x)).  Above 20 PyTorch's slope is 1; so is this, since exp(-20) is less than half a unit of 1.
inline vec sigmoid(vec x) {
    const vec minus = (vec)((ivec)x | all(INT32_MIN)), floor = all(-87.0f);
    const vec e = minus < floor ? all(0.0f) : exp_negative(minus);
    return (x < all(0.0f) ? e : all(1.0f)) / (all(1.0f) + e);
}

}  // namespace
}  // namespace fusedx::FUSEDX_ISA
