// A weight matrix in memory of its own, as the kernels read it.
#pragma once

#include <cstdint>

#include "conditional_layer/conditional_layer.hpp"
#include "runtime/memory.hpp"

namespace fusedx {

class Weights {
public:
    Weights() = default;
    // Copies (fp32: packs) the matrix, each part first touched by the thread that reads it in conditional_layer().
    // Throws Error(out_of_memory; unavailable where integer weights have more inputs than kMostIntegerInputs).
    explicit Weights(const PackedView& from);

    WeightView view() const { return {format_, panels_.as<void>(), scale_.as<void>(), sums_.as<void>()}; }
    int64_t outputs() const { return outputs_; }
    int64_t inputs() const { return inputs_; }
    int64_t bytes() const { return panels_.bytes() + scale_.bytes() + sums_.bytes(); }

private:
    WeightFormat format_ = WeightFormat::fp32;
    int64_t outputs_ = 0, inputs_ = 0;
    Buffer panels_, scale_, sums_;
};

// W4 [C, N] -> panels [ceil(N / 32), ceil(C / 8), 32, 8], zeros where there is no weight.
Buffer pack_projection(const float* weight4, int64_t classes, int64_t inputs);

}  // namespace fusedx
