// The arrays of a packed matrix, as packed.py::shapes has them: what a file must hold, what Python must pass, what memory they take.
// Not for sources that are compiled once per instruction set (runtime/vec.hpp).
#pragma once

#include <vector>

#include "conditional_layer/packed_weights.hpp"

namespace fusedx {

inline int64_t whole_parts(int64_t count, int64_t part) { return (count + part - 1) / part; }

struct PackedShapes {
    std::vector<int64_t> panels;  // fp32: of the plain matrix
    std::vector<int64_t> scale;   // empty where the format has none
};

inline PackedShapes packed_shapes(WeightFormat format, int64_t outputs, int64_t inputs) {
    const int64_t narrow = whole_parts(outputs, 32), wide = whole_parts(outputs, 64), groups = whole_parts(inputs, 64);
    switch (format) {
        case WeightFormat::fp32: return {{outputs, inputs}, {}};
        case WeightFormat::bf16:
        case WeightFormat::fp16: return {{narrow, inputs, 32}, {}};
        case WeightFormat::int8: return {{wide, whole_parts(inputs, 4), 64, 4}, {outputs}};
        case WeightFormat::int4: return {{wide, groups, 8, 64, 4}, {wide, groups, 64}};
    }
    return {};
}

}  // namespace fusedx
