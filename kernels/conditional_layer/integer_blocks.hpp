// How blocks of rows go through a panel of int8 or int4 weights: their width, what they ask the memory for meanwhile, and the choice of a form.
#pragma once

#include "conditional_layer/integer_rows.hpp"

namespace fusedx::FUSEDX_ISA {
namespace {

constexpr int kVectors = kWidePanel / kLanes;  // of one quad of a panel

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

// The forms of a kernel template <int ROWS, int AHEAD> as [rows - 1][lines]; blocks have at most kRows rows, and never ask for 3 lines.
#define FUSEDX_BLOCK_FORMS(KERNEL)                                                                    \
    {FUSEDX_LINE_FORMS(KERNEL, 1), FUSEDX_LINE_FORMS(KERNEL, 2), FUSEDX_LINE_FORMS(KERNEL, 3),        \
     FUSEDX_LINE_FORMS(KERNEL, 4), FUSEDX_LINE_FORMS(KERNEL, (kRows < 5 ? kRows : 5)), FUSEDX_LINE_FORMS(KERNEL, (kRows < 6 ? kRows : 6))}
#define FUSEDX_LINE_FORMS(KERNEL, R) {KERNEL<R, 0>, KERNEL<R, 1>, KERNEL<R, 2>, nullptr, KERNEL<R, 4>}

}  // namespace
}  // namespace fusedx::FUSEDX_ISA
