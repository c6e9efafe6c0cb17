// Sums of products of int8 weights: exact integers, so their order is nobody's business.
#pragma once

#include "conditional_layer/dot.hpp"
#include "conditional_layer/integer_blocks.hpp"
#include "conditional_layer/integer_rows.hpp"

namespace fusedx::FUSEDX_ISA {
namespace {

constexpr int kChunkQuads = 64;  // 16 KB of weights, which all blocks of rows use before the next come

// total[r, 0:64] += sum over k of x[k, r] * w[k, 0:64].  x [quads, ROWS, 4], w [quads, 64, 4], total [ROWS, 64].
// AHEAD: cache lines asked for at each quad.
template <int ROWS, int AHEAD>
void add_quads(const uint8_t* x, const char* w, int64_t quads, const char* ahead, int32_t* total) {
    constexpr int V = vectors_for(ROWS);
    for (int part = 0; part < kVectors; part += V) {
        ivec sum[ROWS][V];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[r][v] = load_bytes(total + r * kWidePanel + (part + v) * kLanes);
        int64_t q = 0;
        do {  // at least one: without that the compiler keeps the sums in memory, too
            if (part == 0) prefetch<AHEAD>(ahead, q);
            Weights weight[V];
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) weight[v] = weights(load_bytes(w + q * kPanelBytes + (part + v) * kBytes));
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r) {
                const Inputs input = inputs(broadcast_quad(x + (q * ROWS + r) * kQuad));
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) sum[r][v] = dot4(sum[r][v], input, weight[v]);
            }
        } while (++q < quads);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) std::memcpy(total + r * kWidePanel + (part + v) * kLanes, &sum[r][v], sizeof(ivec));
    }
}

using AddQuads = void (*)(const uint8_t*, const char*, int64_t, const char*, int32_t*);
inline AddQuads add_quads_for(int64_t rows, int lines) {
    static constexpr AddQuads kForms[][5] = FUSEDX_BLOCK_FORMS(add_quads);
    return kForms[rows - 1][lines];
}

// One panel of all rows: total [rows, 64] = sums of x * q.
inline void int8_sums(const RowsView& view, const char* w, int32_t* total) {
    std::memset(total, 0, sizeof(int32_t) * view.rows * kWidePanel);
    for (int64_t q = 0; q < view.quads(); q += kChunkQuads) {
        const int64_t length = view.quads() - q < kChunkQuads ? view.quads() - q : kChunkQuads;
        const char* const here = w + q * kPanelBytes;
        const char* ahead = here + length * kPanelBytes;  // after the panel's last chunk: the next panel
        for (int64_t block = 0; block < view.blocks; ++block) {
            const int64_t first = view.first(block), rows = view.first(block + 1) - first;
            const int lines = lines_ahead(block, view.blocks, rows);
            add_quads_for(rows, lines)(view.x(first) + q * rows * kQuad, here, length, ahead, total + first * kWidePanel);
            ahead += lines * 64 * length;
        }
    }
}

}  // namespace
}  // namespace fusedx::FUSEDX_ISA
