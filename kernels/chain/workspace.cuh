// Where things lie in a block's dynamic shared memory.  plan.py counts the same bytes.
#pragma once

#include "device.cuh"
#include "params.cuh"

namespace fusedx {

constexpr int kPairs = kMaxRows * kMaxClasses;
constexpr int kClassStride = 16;  // classes rounded up, so that layer 1 reads them in eights

// The few numbers of a step that everything waits for, [R * C] unless said otherwise.
struct StepTerms {
    double y[kPairs];                     // the state
    double mean[kPairs], bias[kPairs];    // constant along the chain
    double noise[kPairs];                 // of the step at work
    double coefficients[8];               // of the step at work, 6 used
    float y32[kMaxRows * kClassStride];   // [R][16]: the state as layer 1 reads it, zero beyond C
    int32_t entry[kMaxRows];
    int32_t alive[4];                     // [0]: whether the last grid barrier was completed
};
static_assert(sizeof(StepTerms) == 4464 && sizeof(StepTerms) % 16 == 0);

template <class Format>
struct Workspace {
    char* ring;      // [8 warps][ring stages][2048]: weights in flight
    char* resident;  // [8 warps][resident stages of both layers][2048]: weights that stay
    char* u;         // [K / unit][R][unit]: input of the layer at work, u1 or u2
    float* sums;     // [4 tiles][8 warps][R][16]: each warp's part of the sums
    float* third;    // [4 tiles][R][16]: u3, which goes no further
    StepTerms* terms;

    FUSEDX_DEVICE explicit Workspace(const ChainParams& p) {
        char* next = device::shared_memory();
        ring = take(next, kWarps * p.ring_stages * kStageBytes);
        resident = take(next, kWarps * (p.resident[0] + p.resident[1]) * kStageBytes);
        u = take(next, p.rows * p.k * static_cast<int>(sizeof(typename Format::Activation)));
        sums = reinterpret_cast<float*>(take(next, kTilesAFlush * kWarps * p.rows * kTile * 4));
        third = reinterpret_cast<float*>(take(next, kTilesAFlush * p.rows * kTile * 4));
        terms = reinterpret_cast<StepTerms*>(take(next, sizeof(StepTerms)));
    }

private:
    // Every size is a multiple of 16, so every part is aligned for 16-byte accesses.
    FUSEDX_DEVICE static char* take(char*& next, int bytes) {
        char* part = next;
        next += bytes;
        return part;
    }
};

// The contiguous run of tiles that a block owns; runs differ by at most one tile.
struct Share {
    int first, count;

    FUSEDX_DEVICE explicit Share(int tiles) {
        const int64_t block = device::block_index(), blocks = device::block_count();
        first = static_cast<int>(block * tiles / blocks);
        count = static_cast<int>((block + 1) * tiles / blocks) - first;
    }
};

}  // namespace fusedx
