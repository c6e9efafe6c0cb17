// One float vector and one double vector as wide as the instruction set that this file is compiled for.
//
// Only files that CMake compiles once per instruction set include this.  Everything sits in an unnamed namespace inside
// FUSEDX_ISA, and functions of the headers shared with other files are static, so the linker can never pick an AVX-512 copy
// of a function for a machine without it (tests/test_build.py looks for shared symbols at -O0).  Arithmetic is spelled
// out (fma is a fused multiply-add, * and + are not contracted: -ffp-contract=off), so every set gives the same bits.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__x86_64__) && defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace fusedx::FUSEDX_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr int kLanes = kBytes / 4;    // floats in a vector
constexpr int kDoubles = kBytes / 8;  // doubles in a vector

typedef float vec __attribute__((vector_size(kBytes)));
typedef int32_t ivec __attribute__((vector_size(kBytes)));
typedef double dvec __attribute__((vector_size(kBytes)));
typedef float half_vec __attribute__((vector_size(kBytes / 2)));

inline vec load(const float* p) { vec v; std::memcpy(&v, p, sizeof v); return v; }
inline void store(float* p, vec v) { std::memcpy(p, &v, sizeof v); }
inline vec all(float x) { return x - vec{}; }
inline ivec all(int32_t x) { return x - ivec{}; }
inline void store(double* p, dvec v) { std::memcpy(p, &v, sizeof v); }
inline dvec all(double x) { return x - dvec{}; }
inline dvec load_as_double(const float* p) { half_vec v; std::memcpy(&v, p, sizeof v); return __builtin_convertvector(v, dvec); }

inline vec fma(vec a, vec b, vec c) {  // a * b + c, rounded once
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
    return vfmaq_f32(c, a, b);
#else
    for (int i = 0; i < kLanes; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#endif
}

// 16-bit floats, which are bits to C++; widening them to float32 is exact.
enum class bf16 : uint16_t {};
enum class fp16 : uint16_t {};
typedef uint16_t short_vec __attribute__((vector_size(kBytes / 2)));
typedef uint32_t uvec __attribute__((vector_size(kBytes)));

template <class T>
inline uvec load_bits(const T* p) {
#if defined(__AVX512F__)  // (the compiler's own conversion takes the vector apart)
    return (uvec)_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
    return (uvec)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
    short_vec v;
    std::memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, uvec);
#endif
}

inline vec load_wide(const bf16* p) { return (vec)(load_bits(p) << 16); }

// fp16 has 5 bits of exponent (bias 15) and 10 of mantissa.
inline vec load_wide(const fp16* p) {
#if defined(__AVX512F__)
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__aarch64__)
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p))));
#else
    const uvec bits = load_bits(p), magnitude = (bits & 0x7fff) << 13;
    const uvec normal = magnitude + (112u << 23);                        // 112 = 127 - 15
    const uvec infinite = normal + (112u << 23);                         // exponent 31 becomes 255
    const vec small = (vec)(magnitude + (113u << 23)) - (vec)((uvec{} + (113u << 23)));  // subnormal: m * 2^-24, without a subnormal float
    const uvec is_small = (uvec)(magnitude < (1u << 23)), is_infinite = (uvec)(magnitude >= (31u << 23));
    const uvec quiet = (uvec)(magnitude > (31u << 23)) & (1u << 22);     // not a number, as the instructions leave it
    const uvec wide = (is_small & (uvec)small) | (is_infinite & (infinite | quiet)) | (~(is_small | is_infinite) & normal);
    return (vec)(wide | (bits & 0x8000) << 16);
#endif
}

}  // namespace
}  // namespace fusedx::FUSEDX_ISA
