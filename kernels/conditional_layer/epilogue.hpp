// What follows the product of a layer, for a panel of 32 outputs of all rows; the same for every weight format.
// Compiled once per instruction set: see runtime/vec.hpp for why everything here is in an unnamed namespace.
#pragma once

#include "conditional_layer/conditional_layer.hpp"
#include "conditional_layer/softplus.hpp"
#include "runtime/vec.hpp"

namespace fusedx::FUSEDX_ISA {
namespace {

// One row of one panel and its tangents, in place: total [1 + tangents, 32], the products -> the layer's outputs, zeros past the last one.
inline void finish_row(const Layer& layer, int64_t row, int64_t panel, int64_t valid, float* total) {
    const int64_t at = panel * kPanel, t = layer.t[row], i = layer.image ? layer.image[row] : 0;
    float edge[4][kPanel];
    const auto whole = [&](const float* p, float* copy) {  // p [valid] as 32 readable floats
        if (valid == kPanel) return p;
        std::memset(copy, 0, kPanel * sizeof(float));
        std::memcpy(copy, p, valid * sizeof(float));
        return static_cast<const float*>(copy);
    };
    const float* a = whole(layer.a + t * layer.a_stride + at, edge[0]);
    const float* c = whole(layer.c + t * layer.c_stride + at, edge[1]);
    const float* h = layer.h ? whole(layer.h + i * layer.h_stride + at, edge[2]) : nullptr;
    const float* f = layer.f ? whole(layer.f + i * layer.f_stride + at, edge[3]) : nullptr;
    for (int v = 0; v < kPanel; v += kLanes) {
        vec x = load(total + v);
        if (h) x = x + load(h + v);
        const vec z = fma(load(a + v), x, load(c + v));
        x = softplus(z);
        if (f) x = x * load(f + v);
        store(total + v, x);
        if (!layer.tangents) continue;
        vec slope = load(a + v) * sigmoid(z);
        if (f) slope = slope * load(f + v);
        for (int64_t d = 1; d <= layer.tangents; ++d) store(total + d * kPanel + v, slope * load(total + d * kPanel + v));
    }
    for (int64_t r = 0; r <= layer.tangents; ++r)
        for (int64_t n = valid; n < kPanel; ++n) total[r * kPanel + n] = 0.0f;  // an infinite input times a weight of zero is not zero
}

// partial[row, c] = sum over the panel's 32 outputs n of outputs[row, n] * w[n, c]: four chains, number l over n = l, l + 4,
// ..., l + 28, joined as (0 + 1) + (2 + 3).  Lanes run over classes, and the product of two floats is exact in double, so
// every instruction set rounds the same sums.  outputs [rows, 32], w [classes / 8, 32, 8],
// partial [rows, classes].
inline void project_panel(const float* outputs, const float* w, int64_t rows, int64_t classes, double* partial) {
    constexpr int kChains = 4, V = kClasses / kDoubles;
    for (int64_t c = 0; c < classes; c += kClasses, w += kPanel * kClasses)
        for (int64_t row = 0; row < rows; ++row) {
            dvec sum[kChains][V] = {};
            for (int n = 0; n < kPanel; n += kChains)
#pragma GCC unroll 4
                for (int l = 0; l < kChains; ++l) {
                    const dvec x = all(static_cast<double>(outputs[row * kPanel + n + l]));
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v) sum[l][v] = sum[l][v] + x * load_as_double(w + (n + l) * kClasses + v * kDoubles);
                }
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v)
                store(partial + row * classes + c + v * kDoubles, (sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v]));
        }
}

// Rows at many steps of a chain read as many rows of a and c, two cache lines of each a panel, where the processor sees no stream: it is
// told while the panel's product is under way.
inline void prefetch_tables(const Layer& layer, int64_t first_row, int64_t rows, int64_t panel) {
    const int64_t at = panel * kPanel;
    for (int64_t row = first_row; row < first_row + rows; ++row) {
        if (row > first_row && layer.t[row] == layer.t[row - 1]) continue;
        const float* const tables[] = {layer.a + layer.t[row] * layer.a_stride, layer.c + layer.t[row] * layer.c_stride};
        for (const float* table : tables) {
            __builtin_prefetch(table + at, 0, 2);
            __builtin_prefetch(table + at + kPanel / 2, 0, 2);
        }
    }
}

// Panel `panel` (of 32 outputs) of rows [first_row, first_row + rows), which are whole groups: total [rows, 32] -> out, or this panel's
// part of eps in partial [panels][rows][padded_classes(C)].
inline void finish_panel(const Layer& layer, int64_t first_row, int64_t rows, double* partial, int64_t panel, float* total) {
    const int64_t at = panel * kPanel, valid = layer.outputs - at < kPanel ? layer.outputs - at : kPanel;
    for (int64_t r = 0; r < rows; r += 1 + layer.tangents) finish_row(layer, first_row + r, panel, valid, total + r * kPanel);
    if (layer.out) {
        for (int64_t r = 0; r < rows; ++r)
            std::memcpy(layer.out + (first_row + r) * layer.out_stride + at, total + r * kPanel, valid * sizeof(float));
        return;
    }
    const int64_t wide = padded_classes(layer.classes);
    project_panel(total, layer.panels4 + at * wide, rows, wide, partial + panel * rows * wide);
}

}  // namespace
}  // namespace fusedx::FUSEDX_ISA
