// denoiser.safetensors as the chain reads it.
#pragma once

#include <map>
#include <string>

#include "engine/chain.hpp"
#include "model/manifest.hpp"
#include "model/safetensors.hpp"

namespace fusedx {

using Tensors = std::map<std::string, Tensor>;

// Tensors by name, all of the shapes and types that the manifest implies; Malformed names the first that is not.
// finite: refuse NaN and infinity too, and padding that is not zero.
DenoiserView view_denoiser(const Tensors& tensors, const Manifest& manifest, bool finite);

// Name -> shape and type, as engine/denoiser.py::stored_shapes; `bytes` of the tensors are empty.
Tensors expected_tensors(const Manifest& manifest);

}  // namespace fusedx
