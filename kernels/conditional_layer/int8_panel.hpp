// Sums of products of int8 weights: exact integers, so their order is nobody's business.
#pragma once

#include "conditional_layer/dot.hpp"
#include "conditional_layer/integer_rows.hpp"

namespace fusedx::FUSEDX_ISA {
namespace {

constexpr int kVectors = kWidePanel / kLanes;  // of one quad of a panel
constexpr int kChunkQuads = 32;                // 8 KB of weights, which all blocks of rows use before the next come

// Accumulators (rows x vectors) that fit the registers beside weights and inputs.
constexpr int vectors_for(int rows) {
#if defined(__AVX512F__) || defined(__aarch64__)
    (void)rows;
    return 4;
#else
    return rows == 1 ? 4 : 2;
#endif
}

// total[r, 0:64] += sum over k of x[k, r] * w[k, 0:64].  x [quads, ROWS, 4], w [quads, 64, 4], total [ROWS, 64].
// While it computes, it asks for AHEAD cache lines a step of the weights that come next.
template <int ROWS, int AHEAD>
void add_quads(const uint8_t* x, const char* w, int64_t quads, const char* ahead, int32_t* total) {
    constexpr int V = vectors_for(ROWS);
    for (int part = 0; part < kVectors; part += V) {
        ivec sum[ROWS][V];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[r][v] = load_bytes(total + r * kWidePanel + (part + v) * kLanes);
        for (int64_t q = 0; q < quads; ++q) {
            if constexpr (AHEAD > 0)
                if (part == 0)
#pragma GCC unroll 4
                    for (int i = 0; i < AHEAD; ++i) __builtin_prefetch(ahead + (q * AHEAD + i) * 64, 0, 3);
            Weights weight[V];
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) weight[v] = weights(load_bytes(w + q * kPanelBytes + (part + v) * kBytes));
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r) {
                const Inputs input = inputs(broadcast_quad(x + (q * ROWS + r) * kQuad));
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) sum[r][v] = dot4(sum[r][v], input, weight[v]);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) std::memcpy(total + r * kWidePanel + (part + v) * kLanes, &sum[r][v], sizeof(ivec));
    }
}

using AddQuads = void (*)(const uint8_t*, const char*, int64_t, const char*, int32_t*);
template <int AHEAD>
AddQuads add_quads_for(int64_t rows) {
    static_assert(kRows <= 6);
    switch (rows) {
        case 1: return add_quads<1, AHEAD>;
        case 2: return add_quads<2, AHEAD>;
        case 3: return add_quads<3, AHEAD>;
        case 4: return add_quads<4, AHEAD>;
        case 5: return add_quads<kRows < 5 ? kRows : 5, AHEAD>;
        default: return add_quads<kRows < 6 ? kRows : 6, AHEAD>;
    }
}

// One panel of all rows: total [rows, 64] = sums of x * q.  What follows the panel in memory is asked for while the last chunk is worked on.
inline void int8_sums(const RowsView& view, const char* w, int32_t* total) {
    std::memset(total, 0, sizeof(int32_t) * view.rows * kWidePanel);
    for (int64_t q = 0; q < view.quads(); q += kChunkQuads) {
        const int64_t length = view.quads() - q < kChunkQuads ? view.quads() - q : kChunkQuads;
        const char* const here = w + q * kPanelBytes;
        const char* ahead = here + length * kPanelBytes;
        for (int64_t block = 0; block < view.blocks; ++block) {
            const int64_t first = view.first(block), rows = view.first(block + 1) - first;
            const uint8_t* const x = view.x(first) + q * rows * kQuad;
            // The 4 lines a step of the next chunk are shared out among the first blocks: the memory then works all the time.
            const int64_t lines = view.blocks == 1 ? 4 : view.blocks <= 3 ? (block < 2 ? 2 : 0) : (block < 4 ? 1 : 0);
            const auto add = lines == 4 ? add_quads_for<4>(rows) : lines == 2 ? add_quads_for<2>(rows) : lines == 1 ? add_quads_for<1>(rows) : add_quads_for<0>(rows);
            add(x, here, length, ahead, total + first * kWidePanel);
            ahead += lines * 64 * length;
        }
    }
}

}  // namespace
}  // namespace fusedx::FUSEDX_ISA
