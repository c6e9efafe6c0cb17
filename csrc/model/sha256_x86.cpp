// The x86 SHA extensions: two rounds an instruction, the state as (ABEF, CDGH), message words four at a time.
// Compiled with those instructions and called only where the processor has them; nothing but intrinsics, so that no inline function of a
// header is compiled with them too.
#include "model/sha256_blocks.hpp"

#if defined(__SHA__) && defined(__SSE4_1__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace fusedx {

#if defined(__SHA__) && defined(__SSE4_1__)

static void blocks_x86(uint32_t* state, const uint8_t* data, size_t blocks) {
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const auto* input = reinterpret_cast<const __m128i*>(data);
    const __m128i dcba = _mm_shuffle_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(state)), 0xb1);       // C D A B
    const __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(state + 4)), 0x1b);   // E F G H
    __m128i abef = _mm_alignr_epi8(dcba, hgfe, 8), cdgh = _mm_blend_epi16(hgfe, dcba, 0xf0);
    for (; blocks; --blocks, input += 4) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];  // the next sixteen words of the message schedule, a ring of four groups
        for (int i = 0; i < 4; ++i) w[i] = _mm_shuffle_epi8(_mm_loadu_si128(input + i), big_endian);
#pragma GCC unroll 16
        for (int group = 0; group < 16; ++group) {
            const __m128i now = w[group & 3];
            const auto* constants = reinterpret_cast<const __m128i*>(kSha256Round) + group;
            const __m128i sum = _mm_add_epi32(now, _mm_load_si128(constants));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
            if (group < 12) {  // w[i + 16] = s1(w[i + 14]) + w[i + 9] + s0(w[i + 1]) + w[i]
                const __m128i last = w[(group + 3) & 3];
                const __m128i nine = _mm_alignr_epi8(last, w[(group + 2) & 3], 4);
                const __m128i partial = _mm_add_epi32(_mm_sha256msg1_epu32(now, w[(group + 1) & 3]), nine);
                w[group & 3] = _mm_sha256msg2_epu32(partial, last);
            }
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    const __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(state), _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

Sha256Blocks sha256_blocks_x86() {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1)) return nullptr;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & 1u << 29)) return nullptr;  // CPUID.7.0:EBX[29], SHA
    return blocks_x86;
}

#else

Sha256Blocks sha256_blocks_x86() { return nullptr; }

#endif

}  // namespace fusedx
