// The arithmetic of a layer; compiled once per instruction set.
//
// Lanes run over outputs, so what a row computes never depends on its neighbours: for one output, a chain of fused
// multiply-adds over k inside each chunk of 256, chunks then added in order.  Every block size, instruction set and
// number of threads does exactly that, so a row's bits never change.
#include "conditional_layer.hpp"
#include "softplus.hpp"
#include "runtime/vec.hpp"

namespace fusedx::FUSEDX_ISA {
namespace {

// Accumulators (rows x vectors) that fit the registers beside one broadcast input and the weights.
#if defined(__AVX512F__)
constexpr int kRows = 8;  // 8 x 2 of 32 zmm
#elif defined(__x86_64__)
constexpr int kRows = 6;  // 6 x 2 of 16 ymm
#else
constexpr int kRows = 6;  // 6 x 4 of 32 NEON registers
#endif
constexpr int vectors_for(int rows) { return kLanes == 16 ? 2 : kLanes == 8 && rows > 2 ? 2 : 4; }

// total[r, 0:32] += sum over k of u[k, r] * w[k, 0:32].  u [length, ROWS], w [length, 32], total [ROWS, 32].
// While it computes, it asks for `kAhead` cache lines a step of the weights that come next.
template <int ROWS, int kAhead>
void add_chunk(const float* u, const float* w, int64_t length, const float* ahead, float* total) {
    constexpr int V = vectors_for(ROWS), kWide = V * kLanes;
    constexpr int kLevel = ROWS == 1 ? 3 : 2;  // into the first cache, or only the second while the first serves other rows
    for (int part = 0; part < kPanel; part += kWide) {
        vec sum[ROWS][V] = {};
        for (int64_t k = 0; k < length; ++k) {
            if constexpr (kAhead > 0)
                if (part == 0)
                    for (int i = 0; i < kAhead; ++i) __builtin_prefetch(ahead + (k * kAhead + i) * 16, 0, kLevel);
            vec weight[V];
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) weight[v] = load(w + k * kPanel + part + v * kLanes);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r) {
                const vec x = all(u[k * ROWS + r]);
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) sum[r][v] = fma(x, weight[v], sum[r][v]);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) {
                float* const at = total + r * kPanel + part + v * kLanes;
                store(at, load(at) + sum[r][v]);
            }
    }
}

using AddChunk = void (*)(const float*, const float*, int64_t, const float*, float*);
template <int kAhead>
AddChunk add_chunk_for(int64_t rows) {
    static_assert(kRows <= 8);
    switch (rows) {
        case 1: return add_chunk<1, kAhead>;
        case 2: return add_chunk<2, kAhead>;
        case 3: return add_chunk<3, kAhead>;
        case 4: return add_chunk<4, kAhead>;
        case 5: return add_chunk<5, kAhead>;
        case 6: return add_chunk<6, kAhead>;
        case 7: return add_chunk<kRows < 7 ? kRows : 7, kAhead>;
        default: return add_chunk<kRows < 8 ? kRows : 8, kAhead>;
    }
}

// One row of one panel, in place: total [32] -> the layer's outputs, zeros past the last one.
void finish_row(const Layer& layer, int64_t row, int64_t panel, int64_t valid, float* total) {
    const int64_t at = panel * kPanel, t = layer.t[row], i = layer.image ? layer.image[row] : 0;
    float edge[4][kPanel] = {};
    const auto whole = [&](const float* p, float* copy) {  // p [valid] as 32 readable floats
        if (valid == kPanel) return p;
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
        x = softplus(fma(load(a + v), x, load(c + v)));
        if (f) x = x * load(f + v);
        store(total + v, x);
    }
    for (int64_t n = valid; n < kPanel; ++n) total[n] = 0.0f;  // an infinite input times a weight of zero is not zero
}

// partial[row, c] = sum over the panel's 32 outputs n of outputs[row, n] * w[n, c]: four chains, number l over n = l, l + 4,
// ..., l + 28, joined as (0 + 1) + (2 + 3).  Lanes run over classes, and the product of two floats is exact in double, so
// every instruction set rounds the same sums.  outputs [rows, 32], w [classes / 8, 32, 8],
// partial [rows, classes].
void project_panel(const float* outputs, const float* w, int64_t rows, int64_t classes, double* partial) {
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

// One panel of all rows: total [rows, 32] -> out, or this panel's part of eps.
void finish_panel(const Layer& layer, const RowBlocks& blocks, int64_t panel, float* total) {
    const int64_t at = panel * kPanel, valid = layer.outputs - at < kPanel ? layer.outputs - at : kPanel;
    for (int64_t r = 0; r < blocks.rows; ++r) {
        const int64_t row = blocks.first_row + r;
        finish_row(layer, row, panel, valid, total + r * kPanel);
        if (layer.out) std::memcpy(layer.out + row * layer.out_stride + at, total + r * kPanel, valid * sizeof(float));
    }
    if (layer.out) return;
    const int64_t wide = padded_classes(layer.classes);
    project_panel(total, layer.panels4 + at * wide, blocks.rows, wide, blocks.partial + panel * blocks.rows * wide);
}

void run_panels(const Layer& layer, const RowBlocks& blocks, int64_t begin, int64_t end) {
    alignas(64) float total[kMostRows * kPanel];
    for (int64_t panel = begin; panel < end; ++panel) {
        const float* w = layer.panels + panel * layer.inputs * kPanel;
        std::memset(total, 0, sizeof(float) * blocks.rows * kPanel);
        for (int64_t k = 0; k < layer.inputs; k += kChunk) {
            const int64_t length = layer.inputs - k < kChunk ? layer.inputs - k : kChunk;
            for (int64_t block = 0; block < blocks.blocks; ++block) {
                const int64_t first = first_of(blocks, block), rows = first_of(blocks, block + 1) - first;
                const float* u = blocks.interleaved + first * layer.inputs + k * rows;
                const float* here = w + k * kPanel;
                float* sums = total + first * kPanel;
                // The next chunk (next panel's first, at the end) is fetched by the first two blocks of rows, half each;
                // past the end of the weights the request is ignored by the processor.
                if (blocks.blocks == 1)
                    add_chunk_for<2>(rows)(u, here, length, here + length * kPanel, sums);
                else if (block < 2)
                    add_chunk_for<1>(rows)(u, here, length, here + length * (kPanel + 16 * block), sums);
                else
                    add_chunk_for<0>(rows)(u, here, length, nullptr, sums);
            }
        }
        finish_panel(layer, blocks, panel, total);
    }
}

}  // namespace

extern const LayerKernel layer_kernel{kRows, run_panels};

}  // namespace fusedx::FUSEDX_ISA
