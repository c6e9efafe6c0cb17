// The one place with instructions that C++ cannot spell.  Everything else in this folder is plain C++ over these functions,
// so the same source also runs on a CPU, where FUSEDX_CUDA_ON_CPU replaces them by functions of the same names.
#pragma once

#include <cstdint>

#ifdef FUSEDX_CUDA_ON_CPU
#include "cuda_on_cpu.hpp"
#else

#define FUSEDX_DEVICE __device__ __forceinline__
#define FUSEDX_KERNEL extern "C" __global__ void __launch_bounds__(256, 1)
#define FUSEDX_UNROLL _Pragma("unroll")
#define FUSEDX_UNROLL_BY(n) _Pragma(FUSEDX_TEXT(unroll n))
#define FUSEDX_TEXT(x) #x

namespace fusedx::device {

FUSEDX_DEVICE int thread_index() { return threadIdx.x; }
FUSEDX_DEVICE int block_index() { return blockIdx.x; }
FUSEDX_DEVICE int block_count() { return gridDim.x; }

FUSEDX_DEVICE char* shared_memory() {
    extern __shared__ __align__(128) char memory[];
    return memory;
}

FUSEDX_DEVICE void sync_block() { __syncthreads(); }
FUSEDX_DEVICE float shuffle_xor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
FUSEDX_DEVICE double shuffle_xor(double x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }

// Hints for the L2 cache: lines that stay as long as others can leave, and lines that leave first.
FUSEDX_DEVICE uint64_t policy_keep() {
    uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

FUSEDX_DEVICE uint64_t policy_leave() {
    uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

// 16 bytes from global to shared memory, past L1; complete for the calling thread after the matching copy_wait.
FUSEDX_DEVICE void copy_async(void* shared, const void* global, uint64_t policy) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "l"(policy) : "memory");
}

FUSEDX_DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int kPending>
FUSEDX_DEVICE void copy_wait_for() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Waits until at most `pending` of this thread's newest groups are in flight.  The instruction wants a literal.
FUSEDX_DEVICE void copy_wait(int pending) {
    switch (pending) {
        case 8: return copy_wait_for<8>();
        case 7: return copy_wait_for<7>();
        case 6: return copy_wait_for<6>();
        case 5: return copy_wait_for<5>();
        case 4: return copy_wait_for<4>();
        case 3: return copy_wait_for<3>();
        case 2: return copy_wait_for<2>();
        case 1: return copy_wait_for<1>();
        default: return copy_wait_for<0>();
    }
}

// d[16 x 8] += a[16 x 16] b[16 x 8], fp32 sums.  Fragments as PTX defines them for mma.m16n8k16.
FUSEDX_DEVICE void mma_bf16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

FUSEDX_DEVICE void mma_fp16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Two floats to two 16-bit ones, round to nearest even; `low` in the low half.
FUSEDX_DEVICE uint32_t to_bf16x2(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

FUSEDX_DEVICE uint32_t to_fp16x2(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// Bytes 0 and 1 (second: 2 and 3) of x, each in the high byte of a half of the result.
FUSEDX_DEVICE uint32_t spread_low(uint32_t x) { return __byte_perm(x, 0, 0x1404); }
FUSEDX_DEVICE uint32_t spread_high(uint32_t x) { return __byte_perm(x, 0, 0x3424); }

FUSEDX_DEVICE uint32_t bits(float x) { return __float_as_uint(x); }
FUSEDX_DEVICE float from_bits(uint32_t x) { return __uint_as_float(x); }
FUSEDX_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }

// Loads of what other blocks wrote during this launch: from L2, where all blocks see the same.
FUSEDX_DEVICE float load_shared_by_blocks(const float* p) { return __ldcg(p); }
FUSEDX_DEVICE uint4 load_shared_by_blocks(const uint4* p) { return __ldcg(p); }

// Loads of what no block writes during the launch.
FUSEDX_DEVICE float load_constant(const float* p) { return __ldg(p); }
FUSEDX_DEVICE float4 load_constant(const float4* p) { return __ldg(p); }

FUSEDX_DEVICE void prefetch(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// Arrival and observation of the grid barrier.  Before: writes of this block that a block barrier has ordered before the call.
FUSEDX_DEVICE void arrive(uint32_t* counter) {
    asm volatile("fence.acq_rel.gpu;\n\tred.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}

FUSEDX_DEVICE uint32_t arrivals(const uint32_t* counter) {
    uint32_t value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
    return value;
}

FUSEDX_DEVICE uint64_t load_relaxed(const uint64_t* p) {
    uint64_t value;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(p) : "memory");
    return value;
}

// Writes `value` where 0 was; leaves anything else.
FUSEDX_DEVICE void set_once(uint64_t* p, uint64_t value) { atomicCAS(reinterpret_cast<unsigned long long*>(p), 0ull, value); }

FUSEDX_DEVICE uint64_t nanoseconds() {
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

}  // namespace fusedx::device
#endif
