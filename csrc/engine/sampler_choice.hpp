// Which sampler runs a block of chains, and with how many rows a sweep: host arithmetic on measured times.  No bit depends on it.
//
// The same rule as engine/sampler/cost.py with its built-in times; the Python package can measure its machine, the library does not.
#pragma once

#include <cstdint>

#include "conditional_layer/packed_weights.hpp"
#include "runtime/isa.hpp"

namespace fusedx {

enum class SamplerKind { sequential, parallel, automatic };

constexpr int64_t kMostSamplerRows = 1 << 14;

struct SamplerWish {
    SamplerKind kind = SamplerKind::automatic;
    int64_t rows = 0;  // a sweep; 0: chosen
};

struct SamplerPlan {
    int64_t rows = 0;       // as RunOptions.rows: 0 is step by step
    double least_gain = 0;  // as RunOptions.least_gain
};

// Milliseconds of one evaluation of so many rows at F = 6144: built in; those of a narrower denoiser are in proportion to F^2.
double evaluation_ms(WeightFormat weights, Isa isa, int64_t rows);

// chains: that run together, each of them a row of the denoiser.
SamplerPlan choose_sampler(const SamplerWish& wish, WeightFormat weights, Isa isa, int64_t steps, int64_t chains);

}  // namespace fusedx
