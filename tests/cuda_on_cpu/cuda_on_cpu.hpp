// What kernels/chain/device.cuh offers, for the CPU: the same names and meanings over the fibers of scheduler.hpp.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <source_location>

#include "small_floats.hpp"
#include "scheduler.hpp"

#define FUSEDX_DEVICE inline
#define FUSEDX_KERNEL extern "C" void
#define FUSEDX_UNROLL
#define FUSEDX_UNROLL_BY(n) static_assert((n) > 0);
#define __grid_constant__

struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

namespace fusedx::device {

using on_cpu::Launch;

inline int thread_index() { return Launch::current->index; }
inline int block_index() { return Launch::current->block->index; }
inline int block_count() { return Launch::running->blocks(); }
inline char* shared_memory() { return Launch::current->block->shared; }

inline void sync_block(std::source_location site = std::source_location::current()) { Launch::running->sync_block(site); }

template <class Float>
inline Float shuffle(const char* name, Float x, int mask) {
    struct Arguments {
        Float in, out;
    } mine = {x, 0};
    Launch::running->collective(name, &mine, [mask](void* const* all) {
        for (int lane = 0; lane < on_cpu::kLanes; ++lane)
            static_cast<Arguments*>(all[lane])->out = static_cast<Arguments*>(all[lane ^ mask])->in;
    });
    return mine.out;
}
inline float shuffle_xor(float x, int mask) { return shuffle("shuffle of floats", x, mask); }
inline double shuffle_xor(double x, int mask) { return shuffle("shuffle of doubles", x, mask); }

inline uint64_t policy_keep() { return 1; }
inline uint64_t policy_leave() { return 2; }
inline void copy_async(void* shared, const void* global, uint64_t policy) {
    if (policy != policy_keep() && policy != policy_leave()) Launch::running->fail("a copy with no cache policy");
    Launch::running->copy_async(shared, global, policy == policy_keep());
}
inline void copy_commit() { Launch::running->copy_commit(); }
inline void copy_wait(int pending) {
    if (pending < 0 || pending > 8) Launch::running->fail("copy_wait has no instruction for " + std::to_string(pending));
    Launch::running->copy_wait(pending);
}

struct Mma {
    float* d;
    uint32_t a[4], b[2];
};

// Fragments of mma.m16n8k16, from the PTX manual: lane = 4 g + q.  Products are exact, sums are rounded one by one, k ascending;
// a GPU rounds differently, by the same order of magnitude.
inline void mma_warp(void* const* all, float (*decode)(uint16_t)) {
    float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < on_cpu::kLanes; ++lane) {
        const Mma& m = *static_cast<const Mma*>(all[lane]);
        const int g = lane / 4, q = lane % 4;
        for (int i = 0; i < 4; ++i)
            for (int e = 0; e < 2; ++e) a[g + i % 2 * 8][2 * q + e + i / 2 * 8] = decode(static_cast<uint16_t>(m.a[i] >> 16 * e));
        for (int i = 0; i < 2; ++i)
            for (int e = 0; e < 2; ++e) b[2 * q + e + i * 8][g] = decode(static_cast<uint16_t>(m.b[i] >> 16 * e));
        for (int i = 0; i < 4; ++i) d[g + i / 2 * 8][2 * q + i % 2] = m.d[i];
    }
    for (int row = 0; row < 16; ++row)
        for (int k = 0; k < 16; ++k)
            for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < on_cpu::kLanes; ++lane)
        for (int i = 0; i < 4; ++i) static_cast<Mma*>(all[lane])->d[i] = d[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2];
}

inline void mma_bf16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    Mma mine = {d, {a0, a1, a2, a3}, {b0, b1}};
    Launch::running->collective("bf16 mma", &mine, [](void* const* all) { mma_warp(all, on_cpu::from_bf16); });
}
inline void mma_fp16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    Mma mine = {d, {a0, a1, a2, a3}, {b0, b1}};
    Launch::running->collective("fp16 mma", &mine, [](void* const* all) { mma_warp(all, on_cpu::from_fp16); });
}

inline uint32_t to_bf16x2(float low, float high) { return on_cpu::to_bf16(low) | static_cast<uint32_t>(on_cpu::to_bf16(high)) << 16; }
inline uint32_t to_fp16x2(float low, float high) { return on_cpu::to_fp16(low) | static_cast<uint32_t>(on_cpu::to_fp16(high)) << 16; }
inline uint32_t spread_low(uint32_t x) { return (x & 0xffu) << 8 | (x & 0xff00u) << 16; }
inline uint32_t spread_high(uint32_t x) { return spread_low(x >> 16); }

inline uint32_t bits(float x) { return on_cpu::cast<uint32_t>(x); }
inline float from_bits(uint32_t x) { return on_cpu::cast<float>(x); }
inline float fma(float a, float b, float c) { return std::fmaf(a, b, c); }

// A GPU refuses a vector load that is not aligned; so does this.
template <class Vector>
inline const Vector& aligned(const Vector* p) {
    if (reinterpret_cast<std::uintptr_t>(p) % sizeof(Vector)) Launch::running->fail("a vector load is not aligned");
    return *p;
}
inline float load_shared_by_blocks(const float* p) { return aligned(p); }
inline uint4 load_shared_by_blocks(const uint4* p) { return aligned(p); }
inline float load_constant(const float* p) { return aligned(p); }
inline float4 load_constant(const float4* p) { return aligned(p); }
inline void prefetch(const void*) {}

inline void arrive(uint32_t* counter) {
    Launch& launch = *Launch::running;
    launch.yield();
    on_cpu::Block& block = *Launch::current->block;
    const bool here = static_cast<int32_t>(block.grid_arrivals) == launch.faults().lost_at;
    if (here && block.index == launch.faults().lost_block) launch.lose_block();
    ++*counter;
    ++block.grid_arrivals;
}
inline uint32_t arrivals(const uint32_t* counter) {
    Launch::running->spin();
    const auto parity = static_cast<int32_t>((Launch::current->block->grid_arrivals - 1) % 2);
    return parity == Launch::running->faults().skipped_grid_barrier ? UINT32_MAX : *counter;
}
inline uint64_t load_relaxed(const uint64_t* p) { return *p; }
inline void set_once(uint64_t* p, uint64_t value) {
    if (*p == 0) *p = value;
}
inline uint64_t nanoseconds() { return Launch::running->nanoseconds(); }

}  // namespace fusedx::device
