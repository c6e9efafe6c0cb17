// A packed weight matrix from Python: names, dtypes and shapes as fusedx.kernels.conditional_layer.packed.shapes says.
#pragma once

#include "arguments.hpp"
#include "conditional_layer/packed_weights.hpp"

// "fp32", ... -> the format; ValueError lists the names.
fusedx::WeightFormat weight_format(const std::string& name);

// `name` is what complaints call the matrix: name (fp32), or name.panels and name.scale.  The arrays must outlive the view.
fusedx::PackedView packed_view(const std::string& name, fusedx::WeightFormat format, int64_t outputs, int64_t inputs, const py::array& panels,
                               const Maybe& scale);
