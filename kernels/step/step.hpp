// One update of the chain's state, a number at a time; the formulas, and the order of their operations, are those of reference.py.
// k: the step's coefficients, columns as in fusedx.kernels.step.COEFFICIENTS.
#pragma once

#include <cfloat>
#include <cstdint>

#include "conditional_layer/packed_weights.hpp"

#if defined(__FAST_MATH__) || FLT_EVAL_METHOD != 0
#error "on_grid needs every sum rounded to double as written: no -ffast-math, no x87"
#endif

namespace fusedx {

// The denoiser sees the state rounded to a multiple of 2^-bits, to even at ties: beside 1.5 * 2^(52 - bits) a double has no finer
// digits.  Then a chain whose guessed states come that near to the true ones has evaluated exactly what the sequential chain evaluates.
// (States beyond 2^(51 - bits) are rounded to what their size leaves; infinities and not-a-numbers pass.)
inline double on_grid(double y, int bits) {
    const double beside = 1.5 * static_cast<double>(int64_t{1} << (52 - bits));
    return (y + beside) - beside;
}

// A grid finer than what the weights' own rounding leaves of eps would only tell apart states that give the same answer.
constexpr int state_bits(WeightFormat weights) { return weights == WeightFormat::int8 || weights == WeightFormat::int4 ? 10 : 18; }

// (q, s, g0, g1, g2, sigma): the estimate itself, which the chain returns at t = 0.
inline double posterior_last_step(const double* k, double y, double eps, double p) {
    return ((y - (1.0 - k[0]) * p) - k[1] * eps) / k[0];
}

inline double posterior_step(const double* k, double y, double eps, double p, double z) {
    return ((k[2] * posterior_last_step(k, y, eps, p) + k[3] * y) + k[4] * p) + k[5] * z;
}

// (sqrt_alpha_bar, sqrt_one_minus, sqrt_alpha_bar_prev, sqrt_one_minus_prev).  Not-a-number passes the clamp, as in numpy's clip.
inline double ddim_step(const double* k, double y, double eps) {
    const double estimate = (y - k[1] * eps) / k[0];
    const double x0 = estimate < -1.0 ? -1.0 : estimate > 1.0 ? 1.0 : estimate;
    return k[2] * x0 + k[3] * eps;
}

}  // namespace fusedx
