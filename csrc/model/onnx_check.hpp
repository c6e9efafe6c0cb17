// Is a graph one that engine/encoder/network.py builds, for the network that the manifest describes?
#pragma once

#include <functional>

#include "model/manifest.hpp"
#include "model/onnx_graph.hpp"

namespace fusedx::onnx {

// Every value is made once and before it is used, by an operator that fusedx uses, as it uses it.  Throws Malformed.
void check(const Graph& graph);

// The int8 encoder's part of `check`, whose other parts hold already.
void check_quantized(const Graph& graph);

// The parts that the manifest determines and the engine relies on.  Throws Malformed.
void check_network(const Graph& graph, const Network& network);

// Malformed names the first constant that holds NaN or infinity.  looked_at: called with the bytes of each that does not.
void check_finite(const Graph& graph, const std::function<void(Bytes)>& looked_at);

// The graph's outputs, in order.
const std::vector<std::string>& outputs(const Network& network);

}  // namespace fusedx::onnx
