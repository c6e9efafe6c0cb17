// softplus(x) = max(x, 0) + log(1 + exp(-|x|)) to about one unit in the last place, from IEEE additions, products and fused
// multiply-adds alone: the same bits on every GPU and on a CPU, and no slower than the library's exp and log1p.
// PyTorch returns x itself above 20; so does this, since log(1 + exp(-20)) = 2e-9 is less than half a unit of 20.
#pragma once

#include "device.cuh"

namespace fusedx {

// exp(z) for z in [-87, 0]: z = n ln 2 + r with |r| <= ln(2) / 2, then 2^n times the Taylor series of exp(r).
FUSEDX_DEVICE float exp_negative(float z) {
    constexpr float kRound = 12582912.0f;                             // 1.5 * 2^23: adding it rounds to a whole number
    constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;  // their sum is ln 2; n * kLn2High is exact
    const float shifted = device::fma(z, 1.44269504f, kRound);         // 1 / ln 2
    const float n = shifted - kRound;
    const float r = device::fma(n, -kLn2Low, device::fma(n, -kLn2High, z));
    float p = 1.0f / 5040.0f;
    p = device::fma(p, r, 1.0f / 720.0f);
    p = device::fma(p, r, 1.0f / 120.0f);
    p = device::fma(p, r, 1.0f / 24.0f);
    p = device::fma(p, r, 1.0f / 6.0f);
    p = device::fma(p, r, 0.5f);
    p = device::fma(r * r, p, r) + 1.0f;  // 1 last: its rounding is then the only one that counts
    const uint32_t exponent = device::bits(shifted) - device::bits(kRound) + 127u;
    return p * device::from_bits(exponent << 23);
}

// log(1 + e) for e in [0, 1], without a division.  Above sqrt(2) - 1: log(1 + e) = ln 2 + log(1 + f) with f = (e - 1) / 2,
// so |f| <= sqrt(2) - 1 and log(1 + f) = f - f^2 / 2 + f^3 P(f).  P: coefficients of the Cephes library's logf.
FUSEDX_DEVICE float log1p_unit(float e) {
    const bool large = e > 0.41421356f;
    const float f = large ? device::fma(0.5f, e, -0.5f) : e;
    float p = 7.0376836292e-2f;
    p = device::fma(p, f, -1.1514610310e-1f);
    p = device::fma(p, f, 1.1676998740e-1f);
    p = device::fma(p, f, -1.2420140846e-1f);
    p = device::fma(p, f, 1.4249322787e-1f);
    p = device::fma(p, f, -1.6668057665e-1f);
    p = device::fma(p, f, 2.0000714765e-1f);
    p = device::fma(p, f, -2.4999993993e-1f);
    p = device::fma(p, f, 3.3333331174e-1f);
    const float z = f * f;
    const float tail = device::fma(z * f, p, -0.5f * z);
    return large ? 0.693359375f + (f + (tail + -2.12194440e-4f)) : f + tail;  // ln 2 in two parts, the small one first
}

// Below -87 the result stays at exp(-87) = 1.6e-38, the last comfortably normal float, without a branch.
FUSEDX_DEVICE float softplus(float x) {  // not-a-number stays not-a-number: every comparison with it is false
    const float minus = device::from_bits(device::bits(x) | 0x80000000u);  // -|x|
    const float tail = log1p_unit(exp_negative(minus < -87.0f ? -87.0f : minus));
    return (x > 0.0f ? x : 0.0f) + tail;
}

}  // namespace fusedx
