// The product of a layer with float weights; compiled once per instruction set.
//
// Lanes run over outputs, so what a row computes never depends on its neighbours: for one output, a chain of fused
// multiply-adds over k inside each chunk of 256, chunks then added in order.  Every block size, instruction set and
// number of threads does exactly that, so a row's bits never change.
#include "conditional_layer/epilogue.hpp"
#include "runtime/vec.hpp"

namespace fusedx::FUSEDX_ISA {
namespace {

constexpr int kChunk = 256;  // inputs summed in registers before joining the running total; 32 KB of fp32 weights

// Accumulators (rows x vectors) that fit the registers beside one broadcast input and the weights.
#if defined(__AVX512F__)
constexpr int kRows = 14;  // 14 x 2 of 32 zmm
#elif defined(__x86_64__)
constexpr int kRows = 6;  // 6 x 2 of 16 ymm
#else
constexpr int kRows = 6;  // 6 x 4 of 32 NEON registers
#endif
constexpr int vectors_for(int rows) { return kLanes == 16 ? 2 : kLanes == 8 && rows > 2 ? 2 : 4; }

// Element -> float32, exactly.
inline vec load_weights(const float* p) { return load(p); }
inline vec load_weights(const bf16* p) { return load_wide(p); }
inline vec load_weights(const fp16* p) { return load_wide(p); }

// total[r, 0:32] += sum over k of u[k, r] * w[k, 0:32].  u [length, ROWS], w [length, 32], total [ROWS, 32].
// While it computes, it asks for `kAhead` cache lines a step of the weights that come next.
template <class T, int ROWS, int kAhead>
void add_chunk(const float* u, const T* w, int64_t length, const T* ahead, float* total) {
    constexpr int V = vectors_for(ROWS), kWide = V * kLanes, kLine = 64 / sizeof(T);
    constexpr int kNear = 12, kLines = kPanel * sizeof(T) / 64;
    constexpr int kLevel = ROWS == 1 ? 3 : 2;  // into the first cache, or only the second while the first serves other rows
    for (int part = 0; part < kPanel; part += kWide) {
        vec sum[ROWS][V] = {};
        for (int64_t k = 0; k < length; ++k) {
            if constexpr (kAhead > 0)
                if (part == 0)
                    for (int i = 0; i < kAhead; ++i) __builtin_prefetch(ahead + (k * kAhead + i) * kLine, 0, kLevel);
            if constexpr (ROWS > 1 && kAhead == kLines)  // no other rows read this chunk later: on into the first cache, just in time
                for (int i = 0; i < kLines; ++i) __builtin_prefetch(w + (k + kNear) * kPanel + i * kLine, 0, 3);
            vec weight[V];
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) weight[v] = load_weights(w + k * kPanel + part + v * kLanes);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; ++r) {
                const vec x = all(u[k * ROWS + r]);
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) sum[r][v] = fma(x, weight[v], sum[r][v]);
            }
        }
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) {
                float* const at = total + r * kPanel + part + v * kLanes;
                store(at, load(at) + sum[r][v]);
            }
    }
}

template <class T>
using AddChunk = void (*)(const float*, const T*, int64_t, const T*, float*);
template <class T, int kAhead>
AddChunk<T> add_chunk_for(int64_t rows) {
    static_assert(kRows <= 14);
    switch (rows) {
        case 1: return add_chunk<T, 1, kAhead>;
        case 2: return add_chunk<T, 2, kAhead>;
        case 3: return add_chunk<T, 3, kAhead>;
        case 4: return add_chunk<T, 4, kAhead>;
        case 5: return add_chunk<T, 5, kAhead>;
        case 6: return add_chunk<T, 6, kAhead>;
        case 7: return add_chunk<T, kRows < 7 ? kRows : 7, kAhead>;
        case 8: return add_chunk<T, kRows < 8 ? kRows : 8, kAhead>;
        case 9: return add_chunk<T, kRows < 9 ? kRows : 9, kAhead>;
        case 10: return add_chunk<T, kRows < 10 ? kRows : 10, kAhead>;
        case 11: return add_chunk<T, kRows < 11 ? kRows : 11, kAhead>;
        case 12: return add_chunk<T, kRows < 12 ? kRows : 12, kAhead>;
        case 13: return add_chunk<T, kRows < 13 ? kRows : 13, kAhead>;
        default: return add_chunk<T, kRows < 14 ? kRows : 14, kAhead>;
    }
}

template <class T>
void run_panels(const Layer& layer, const RowBlocks& blocks, int64_t begin, int64_t end) {
    alignas(64) float total[kMostRows * kPanel];
    for (int64_t panel = begin; panel < end; ++panel) {
        const T* w = static_cast<const T*>(layer.weights.panels) + panel * layer.inputs * kPanel;
        std::memset(total, 0, sizeof(float) * blocks.rows * kPanel);
        prefetch_tables(layer, blocks.first_row, blocks.rows, panel);
        for (int64_t k = 0; k < layer.inputs; k += kChunk) {
            const int64_t length = layer.inputs - k < kChunk ? layer.inputs - k : kChunk;
            for (int64_t block = 0; block < blocks.blocks; ++block) {
                const int64_t first = first_of(blocks, block), rows = first_of(blocks, block + 1) - first;
                const float* u = blocks.interleaved + first * layer.inputs + k * rows;
                const T* here = w + k * kPanel;
                float* sums = total + first * kPanel;
                // The next chunk (next panel's first, at the end) is fetched by the first two blocks of rows, half each;
                // past the end of the weights the request is ignored by the processor.
                constexpr int kLines = kPanel * sizeof(T) / 64;
                if (blocks.blocks == 1 || kLines == 1) {
                    if (block == 0)
                        add_chunk_for<T, kLines>(rows)(u, here, length, here + length * kPanel, sums);
                    else
                        add_chunk_for<T, 0>(rows)(u, here, length, nullptr, sums);
                } else if (block < 2) {
                    add_chunk_for<T, 1>(rows)(u, here, length, here + length * (kPanel + 16 * block), sums);
                } else {
                    add_chunk_for<T, 0>(rows)(u, here, length, nullptr, sums);
                }
            }
        }
        finish_panel(layer, blocks.first_row, blocks.rows, blocks.partial, panel, total);
    }
}

void run_any_panels(const Layer& layer, const RowBlocks& blocks, int64_t begin, int64_t end) {
    switch (layer.weights.format) {
        case WeightFormat::bf16: return run_panels<bf16>(layer, blocks, begin, end);
        case WeightFormat::fp16: return run_panels<fp16>(layer, blocks, begin, end);
        default: return run_panels<float>(layer, blocks, begin, end);
    }
}

}  // namespace

extern const FloatKernel float_kernel{kRows, run_any_panels};

}  // namespace fusedx::FUSEDX_ISA
