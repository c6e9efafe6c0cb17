// The rest of a step, which every block computes for itself: layer 4's sum and the update of the state, in double precision.
// Formulas: kernels/step/reference.py.  Compiled with -fmad=false: products and sums round as they are written.
#pragma once

#include "device.cuh"
#include "params.cuh"
#include "workspace.cuh"

namespace fusedx {

// Before the first step: the start, and what is constant along the chain.
template <class Format>
FUSEDX_DEVICE void load_start(const ChainParams& p, const Workspace<Format>& w) {
    StepTerms& terms = *w.terms;
    const int i = device::thread_index();
    if (i < kMaxRows * kClassStride) terms.y32[i] = 0.0f;
    if (i < p.rows) terms.entry[i] = p.entry[i];
    device::sync_block();
    if (i >= p.rows * p.classes) return;
    const int row = i / p.classes, c = i % p.classes;
    terms.y[i] = p.states[i];
    terms.y32[row * kClassStride + c] = static_cast<float>(p.states[i]);
    terms.mean[i] = p.mean ? p.mean[static_cast<int64_t>(p.entry[row]) * p.classes + c] : 0.0;
    terms.bias[i] = p.bias4[c];
}

// The step's own numbers, long before they are needed: a load costs most of a microsecond and the update waits for nothing else.
template <class Format>
FUSEDX_DEVICE void load_terms(const ChainParams& p, const Workspace<Format>& w, int step, int t) {
    const int i = device::thread_index(), pairs = p.rows * p.classes;
    if (i < pairs) w.terms->noise[i] = p.noise && step + 1 < p.steps ? p.noise[static_cast<int64_t>(step + 1) * pairs + i] : 0.0;
    if (i < 6) w.terms->coefficients[i] = p.coefficients[static_cast<int64_t>(t) * 6 + i];
}

// Sum of partial[0 .. tiles): lane l takes l, l + 32, ... in ascending order, then lanes are added in pairs, 16 apart first.
// The order depends on `tiles` alone: not on rows, blocks or device.  The same bits in every lane.
FUSEDX_DEVICE double sum_tiles(const float* partial, int tiles, int lane) {
    constexpr int kAtOnce = 12;  // loads in flight: all of the published width's 384 tiles
    double sum = 0.0;
    for (int first = lane; first < tiles; first += 32 * kAtOnce) {
        float part[kAtOnce];
        FUSEDX_UNROLL
        for (int i = 0; i < kAtOnce; ++i) part[i] = first + 32 * i < tiles ? device::load_shared_by_blocks(partial + first + 32 * i) : 0.0f;
        FUSEDX_UNROLL
        for (int i = 0; i < kAtOnce; ++i) sum += static_cast<double>(part[i]);
    }
    FUSEDX_UNROLL
    for (int mask = 16; mask > 0; mask /= 2) sum += device::shuffle_xor(sum, mask);
    return sum;
}

struct Update {
    double y, eps, mean, noise;
};

// The last step returns the estimate itself.
FUSEDX_DEVICE double posterior(const Update& u, const double* k, bool last) {
    const double q = k[0], s = k[1], g0 = k[2], g1 = k[3], g2 = k[4], sigma = k[5];
    const double y0 = (u.y - (1.0 - q) * u.mean - s * u.eps) / q;
    return last ? y0 : g0 * y0 + g1 * u.y + g2 * u.mean + sigma * u.noise;
}

// Written so that not-a-number stays not-a-number.
FUSEDX_DEVICE double clamped(double x) { return x < -1.0 ? -1.0 : x > 1.0 ? 1.0 : x; }

FUSEDX_DEVICE double ddim(const Update& u, const double* k) {
    const double x0 = clamped((u.y - k[1] * u.eps) / k[0]);
    return k[2] * x0 + k[3] * u.eps;
}

// A warp a (row, class) pair.  Reads p.partial, updates the state; block 0 also writes states[step + 1].
template <class Format>
FUSEDX_DEVICE void update_state(const ChainParams& p, const Workspace<Format>& w, int step) {
    const int warp = device::thread_index() / 32, lane = device::thread_index() % 32, pairs = p.rows * p.classes;
    StepTerms& terms = *w.terms;
    for (int pair = warp; pair < pairs; pair += kWarps) {
        const double sum = sum_tiles(p.partial + static_cast<int64_t>(pair) * p.tiles, p.tiles, lane);
        if (lane != 0) continue;
        const Update u = {terms.y[pair], sum + terms.bias[pair], terms.mean[pair], terms.noise[pair]};
        const double y = p.family == kPosterior ? posterior(u, terms.coefficients, step == p.steps - 1) : ddim(u, terms.coefficients);
        terms.y[pair] = y;
        terms.y32[pair / p.classes * kClassStride + pair % p.classes] = static_cast<float>(y);
        if (device::block_index() == 0) p.states[static_cast<int64_t>(step + 1) * pairs + pair] = y;
    }
}

}  // namespace fusedx
