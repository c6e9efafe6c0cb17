// encoder.onnx and encoder.onnx.data as a graph: what engine/encoder/onnx_file.py reads, and nothing else of ONNX.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "model/file_bytes.hpp"
#include "model/safetensors.hpp"

namespace fusedx::onnx {

constexpr int64_t kOpset = 17;
constexpr uint64_t kMaxGraphBytes = 4 << 20;

using Attribute = std::variant<float, int64_t, std::vector<int64_t>>;

// Names are views of encoder.onnx.
struct Node {
    std::string_view op;
    std::vector<std::string_view> inputs, outputs;
    std::map<std::string_view, Attribute> attributes;
};

struct Graph {
    std::vector<std::string_view> inputs, outputs;
    std::vector<Node> nodes;
    std::map<std::string_view, Tensor> constants;  // views of either file, of any alignment
};

// Parses; throws Malformed.  What the graph means is checked in onnx_check.hpp.  The graph views both files.
Graph read(Bytes encoder, Bytes data);

// How external_data gives an offset or a length: digits alone, else Malformed.
uint64_t plain_number(std::string_view text);

}  // namespace fusedx::onnx
