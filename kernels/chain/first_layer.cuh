// Layer 1 for all outputs: u1 = softplus(a_t (W1_y y + h) + c_t) f.  Every block computes all of it, which costs less than a third
// barrier a step would.
#pragma once

#include "device.cuh"
#include "format.cuh"
#include "four.cuh"
#include "params.cuh"
#include "softplus.cuh"
#include "workspace.cuh"

namespace fusedx {

FUSEDX_DEVICE void add_product(Four& sum, const Four& weight, float y) {
    FUSEDX_UNROLL
    for (int i = 0; i < 4; ++i) sum.x[i] = device::fma(weight.x[i], y, sum.x[i]);
}

// Where activation k of a row's condition lies in constant and feature.
template <class Format>
FUSEDX_DEVICE int64_t at_entry(const ChainParams& p, const Workspace<Format>& w, int row, int k) {
    return static_cast<int64_t>(w.terms->entry[row]) * p.k + k;
}

// A thread computes four neighbouring outputs of every row, sharing each weight it loads.  kRows is R or more; 1 for R = 1, where
// nothing but loads takes time: without branches they are all in flight together.  The arithmetic is the same.
template <int kRows, class Format>
FUSEDX_DEVICE void first_layer_rows(const ChainParams& p, const Workspace<Format>& w, const float* scale, const float* shift) {
    constexpr int kClassesAtOnce = 8, kUnroll = kRows == 1 ? 2 : 1;
    auto* u = reinterpret_cast<typename Format::Activation*>(w.u);
    FUSEDX_UNROLL_BY(kUnroll)
    for (int k = device::thread_index() * 4; k < p.k; k += kThreads * 4) {
        const Four a = load_four(scale + k), shifts = load_four(shift + k);
        Four h = load_four(p.constant + at_entry(p, w, 0, k)), f = load_four(p.feature + at_entry(p, w, 0, k));
        Four sum[kRows] = {};
        for (int first = 0; first < p.classes; first += kClassesAtOnce) {
            Four weight[kClassesAtOnce] = {};  // zero, like y, beyond the last class
            FUSEDX_UNROLL
            for (int c = 0; c < kClassesAtOnce; ++c)
                if (first + c < p.classes) weight[c] = load_four(p.weight_y + static_cast<int64_t>(first + c) * p.k + k);
            FUSEDX_UNROLL
            for (int r = 0; r < kRows; ++r) {
                if (kRows > 1 && r >= p.rows) break;
                FUSEDX_UNROLL
                for (int c = 0; c < kClassesAtOnce; ++c) add_product(sum[r], weight[c], w.terms->y32[r * kClassStride + first + c]);
            }
        }
        FUSEDX_UNROLL
        for (int r = 0; r < kRows; ++r) {
            if (kRows > 1 && r >= p.rows) break;
            if (r > 0) h = load_four(p.constant + at_entry(p, w, r, k)), f = load_four(p.feature + at_entry(p, w, r, k));
            float out[4];
            FUSEDX_UNROLL
            for (int i = 0; i < 4; ++i) out[i] = softplus(device::fma(a.x[i], sum[r].x[i] + h.x[i], shifts.x[i])) * f.x[i];
            Format::write(u + activation_index<Format>(k, r, p.rows), out);
        }
    }
}

// From the state to w.u, with table row t.
template <class Format>
FUSEDX_DEVICE void first_layer(const ChainParams& p, const Workspace<Format>& w, int t) {
    const float* scale = p.scale[0] + static_cast<int64_t>(t) * p.k;
    const float* shift = p.shift[0] + static_cast<int64_t>(t) * p.k;
    if (p.rows == 1) {
        first_layer_rows<1>(p, w, scale, shift);
    } else {
        first_layer_rows<kMaxRows>(p, w, scale, shift);
    }
}

}  // namespace fusedx
