// Four products an output in one step, added up exactly: the one thing that differs between the instruction sets' integer kernels.
//
//   dot4(sum, x, w)   sum[n] + sum over i < 4 of x[i] * w[n][i]          x: 4 inputs of a row, w: 4 weights of each lane's output
//
// Inputs are 8 bits without a sign, weights 8 bits with one.  `Inputs` and `Weights` hold them as an instruction set wants them: weights are
// prepared once for all rows of a block, inputs once for all vectors of outputs.  `vpmaddubsw`, the obvious instruction before VNNI, clips sums
// of two products to 16 bits, which 255 * 127 * 2 passes; here bytes are widened to 16 bits first, and nothing is ever clipped.
//
// Nibbles (0 to 15, int4's stored weights) may use a shorter way: two products of 255 * 15 do fit.
//
// NEON multiplies bytes of equal signs only, so inputs of int8 are stored less kInputOffset there; the caller takes that into account.
#pragma once

#include "runtime/vec.hpp"

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#include <immintrin.h>
#define FUSEDX_DOT_VNNI
#elif defined(__ARM_NEON) && !defined(FUSEDX_PORTABLE_DOT)
#include <arm_neon.h>
#define FUSEDX_DOT_NEON
#elif defined(__SSE2__) && !defined(FUSEDX_PORTABLE_DOT)
#include <immintrin.h>
#define FUSEDX_DOT_X86
#endif

namespace fusedx::FUSEDX_ISA {
namespace {

inline ivec load_bytes(const void* p) { ivec v; std::memcpy(&v, p, sizeof v); return v; }
inline ivec broadcast_quad(const uint8_t* p) { int32_t quad; std::memcpy(&quad, p, sizeof quad); return all(quad); }

#if defined(FUSEDX_DOT_X86)

typedef int16_t svec __attribute__((vector_size(kBytes)));
typedef uint16_t uvec16 __attribute__((vector_size(kBytes)));
inline ivec multiply_pairs(ivec a, ivec b) {  // 16-bit lanes: a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1]
#if defined(__AVX512BW__)
    return (ivec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (ivec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    return (ivec)_mm_madd_epi16((__m128i)a, (__m128i)b);
#endif
}

constexpr int kInputOffset = 0;
constexpr bool kFewRegistersPerRow = false;
struct Inputs { ivec even, odd; };   // bytes 0 and 2, 1 and 3 of each quad, in 16 bits
struct Weights { ivec even, odd; };
inline Inputs inputs(ivec x) {
    asm("" : "+v"(x));  // else the compiler splits the four bytes before it broadcasts them, twice and slowly
    return {x & all(0x00ff00ff), (ivec)((uvec16)x >> 8)};
}
inline Weights weights(ivec w) { return {(ivec)(((svec)w << 8) >> 8), (ivec)((svec)w >> 8)}; }
inline ivec dot4(ivec sum, const Inputs& x, const Weights& w) {
    return sum + (multiply_pairs(x.even, w.even) + multiply_pairs(x.odd, w.odd));
}

#else

struct Inputs { ivec x; };  // NEON: four times the row's quad, each byte less 128
struct Weights { ivec w; };
inline Inputs inputs(ivec x) { return {x}; }
inline Weights weights(ivec w) { return {w}; }

#if defined(FUSEDX_DOT_VNNI)

constexpr int kInputOffset = 0;
constexpr bool kFewRegistersPerRow = true;  // a product needs no registers beside its operands
inline ivec dot4(ivec sum, const Inputs& x, const Weights& w) {
#if defined(__AVX512F__)
    return (ivec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x.x, (__m512i)w.w);
#else
    return (ivec)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)x.x, (__m256i)w.w);
#endif
}

#elif defined(FUSEDX_DOT_NEON)

constexpr int kInputOffset = 128;
constexpr bool kFewRegistersPerRow = true;
inline ivec dot4(ivec sum, const Inputs& x, const Weights& w) {
    const int8x16_t a = (int8x16_t)x.x, b = (int8x16_t)w.w;
#if defined(__ARM_FEATURE_DOTPROD)
    return (ivec)vdotq_s32((int32x4_t)sum, b, a);
#else
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));  // outputs 0 and 1, two sums each
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(a, b));
    return (ivec)vaddq_s32((int32x4_t)sum, vpaddq_s32(low, high));
#endif
}

#else  // any processor

constexpr int kInputOffset = 0;
constexpr bool kFewRegistersPerRow = false;
inline ivec dot4(ivec sum, const Inputs& x, const Weights& w) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        const int at = 24 - 8 * i;
#else
        const int at = 8 * i;
#endif
        sum += ((x.x >> at) & all(0xff)) * ((w.w << (24 - at)) >> 24);
    }
    return sum;
}

#endif
#endif

#if defined(FUSEDX_DOT_X86) && defined(__AVX2__)
struct NibbleInputs { ivec x; };
struct NibbleWeights { ivec w; };
inline NibbleInputs nibble_inputs(ivec x) { return {x}; }
inline NibbleWeights nibble_weights(ivec w) { return {w}; }
inline ivec dot4_nibbles(ivec sum, const NibbleInputs& x, const NibbleWeights& w) {
#if defined(__AVX512BW__)
    const ivec pairs = (ivec)_mm512_maddubs_epi16((__m512i)x.x, (__m512i)w.w);
#else
    const ivec pairs = (ivec)_mm256_maddubs_epi16((__m256i)x.x, (__m256i)w.w);
#endif
    return sum + multiply_pairs(pairs, all(0x00010001));
}
#else
using NibbleInputs = Inputs;
using NibbleWeights = Weights;
inline NibbleInputs nibble_inputs(ivec x) { return inputs(x); }
inline NibbleWeights nibble_weights(ivec w) { return weights(w); }
inline ivec dot4_nibbles(ivec sum, const NibbleInputs& x, const NibbleWeights& w) {
#if defined(FUSEDX_DOT_NEON)  // inputs as they are, both without a sign
    const uint8x16_t a = (uint8x16_t)x.x, b = (uint8x16_t)w.w;
#if defined(__ARM_FEATURE_DOTPROD)
    return (ivec)vdotq_u32((uint32x4_t)sum, b, a);
#else
    const uint32x4_t low = vpaddlq_u16(vmull_u8(vget_low_u8(a), vget_low_u8(b)));
    const uint32x4_t high = vpaddlq_u16(vmull_high_u8(a, b));
    return (ivec)vaddq_u32((uint32x4_t)sum, vpaddq_u32(low, high));
#endif
#else
    return dot4(sum, x, w);
#endif
}
#endif

}  // namespace
}  // namespace fusedx::FUSEDX_ISA
