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
#else
    for (int i = 0; i < kLanes; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#endif
}

}  // namespace
}  // namespace fusedx::FUSEDX_ISA
