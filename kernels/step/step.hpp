// One update of the chain's state, a number at a time; the formulas, and the order of their operations, are those of reference.py.
// k: the step's coefficients, columns as in fusedx.kernels.step.COEFFICIENTS.
#pragma once

namespace fusedx {

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
