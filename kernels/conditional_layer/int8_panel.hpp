// Sums of products of int8 weights: exact integers, so their order is nobody's business.
#pragma once

#include "conditional_layer/dot.hpp"
#include "conditional_layer/integer_rows.hpp"

namespace fusedx::FUSEDX_ISA {
namespace {

constexpr int kVectors = kWidePanel / kLanes;  // of one quad of a panel
constexpr int kChunkQuads = 64;                // 16 KB of weights, which all blocks of rows use before the next come

// Accumulators (rows x vectors) that fit the registers beside weights and inputs.
constexpr int vectors_for(int rows) {
#if defined(__AVX512F__) || defined(__aarch64__)
    (void)rows;
    return 4;
#else
    return rows == 1 ? (kVectors == 8 ? 8 : 4) : 2;
#endif
}

// Which weights to ask for while others are worked on.  One block of rows that takes a whole panel's width reads them at the pace of the
// memory, and the processor's own prefetcher does that best.  Where each chunk is read several times, by several blocks or a part of its width
// at a time, the prefetcher loses the stream; so the next chunk is asked for into the first cache, what lies kFar behind it into the
// second, and evenly, for the memory to work all the time.
constexpr int64_t kFar = 8192;
template <int AHEAD>
inline void prefetch(const char* ahead, int64_t step) {
#pragma GCC unroll 4
    for (int i = 0; i < AHEAD; ++i) {
        __builtin_prefetch(ahead + (step * AHEAD + i) * 64 + kFar, 0, 2);  // past the end of the weights this does nothing
        __builtin_prefetch(ahead + (step * AHEAD + i) * 64, 0, 3);
    }
}

// Lines that block `block` of `blocks`, of `rows` rows, asks for at each of its steps, 4 lines wide: all blocks together ask for 4.
inline int lines_ahead(int64_t block, int64_t blocks, int64_t rows) {
    if (blocks == 1) return kVectors > vectors_for(static_cast<int>(rows)) ? 4 : 0;
    if (blocks < 4) return blocks == 2 || block == 2 ? 2 : 1;
    return block < 4 ? 1 : 0;
}

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
#define FUSEDX_FORMS(R) {add_quads<R, 0>, add_quads<R, 1>, add_quads<R, 2>, nullptr, add_quads<R, 4>}
    static constexpr AddQuads kForms[][5] = {FUSEDX_FORMS(1), FUSEDX_FORMS(2), FUSEDX_FORMS(3), FUSEDX_FORMS(4),
                                             FUSEDX_FORMS((kRows < 5 ? kRows : 5)), FUSEDX_FORMS((kRows < 6 ? kRows : 6))};
#undef FUSEDX_FORMS
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
