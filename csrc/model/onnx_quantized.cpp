// The int8 encoder's operators, in the one form that fusedx writes; the same rules as engine/encoder/qdq.py.
//
//     activations   QuantizeLinear(x, scale, zero) -> DequantizeLinear(q, scale, zero): one scale, int8 or uint8
//     weights       DequantizeLinear(constant int8, scale [n], zero [n] = 0) along `axis`, one scale for each of n outputs
#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

#include "model/onnx_check.hpp"
#include "model/text.hpp"

namespace fusedx::onnx {

namespace {

using Shape = std::vector<int64_t>;

const Tensor* constant(const Graph& graph, std::string_view name) {
    const auto found = graph.constants.find(name);
    return found == graph.constants.end() ? nullptr : &found->second;
}

bool is_small_integer(const Tensor* tensor) { return tensor && (tensor->dtype == Dtype::i8 || tensor->dtype == Dtype::u8); }

// A positive number of ordinary size: a subnormal scale has no reciprocal in float32.
bool are_scales(const Tensor& scales) {
    for (size_t i = 0; i < scales.bytes.size() / sizeof(float); ++i) {
        float scale;
        std::memcpy(&scale, scales.bytes.data() + i * sizeof scale, sizeof scale);
        if (!(scale >= std::numeric_limits<float>::min() && scale <= 1e30f)) return false;
    }
    return true;
}

// Constants whose elements were looked at: once, however many nodes name them.
using Seen = std::set<std::string_view>;

// The node's scale and zero point are constants of `shape`.
void check_scale(const Graph& graph, const Node& node, const Shape& shape, Seen& seen) {
    const Tensor *scale = constant(graph, node.inputs[1]), *zero = constant(graph, node.inputs[2]);
    const std::string made = quoted(node.outputs[0], 200);
    if (!scale || scale->dtype != Dtype::f32 || scale->shape != shape)
        throw Malformed(made + " needs a constant scale, " + Tensor{Dtype::f32, shape, {}}.description());
    if (!is_small_integer(zero) || zero->shape != shape)
        throw Malformed(made + " needs a constant zero point of as many places, I8 or U8");
    if (seen.insert(node.inputs[1]).second && !are_scales(*scale))
        throw Malformed(made + " has a scale that is not a positive number of ordinary size");
}

void check_weights(const Graph& graph, const Node& node, Seen& seen) {
    const Tensor* weight = constant(graph, node.inputs[0]);
    const std::string made = quoted(node.outputs[0], 200);
    if (!weight || weight->dtype != Dtype::i8)
        throw Malformed(made + " dequantises what is neither a quantised value nor a constant of int8");
    const int64_t axis = std::get<int64_t>(node.attributes.at("axis"));
    if (axis < 0 || axis >= static_cast<int64_t>(weight->shape.size()))
        throw Malformed(made + " has axis " + std::to_string(axis) + ", and weights " + weight->description());
    check_scale(graph, node, {weight->shape[static_cast<size_t>(axis)]}, seen);
    const Tensor& zero = *constant(graph, node.inputs[2]);
    const auto not_zero = [](uint8_t z) { return z != 0; };
    if (zero.dtype != Dtype::i8 ||
        (seen.insert(node.inputs[2]).second && std::any_of(zero.bytes.begin(), zero.bytes.end(), not_zero)))
        throw Malformed(made + " has weights with a zero point other than 0 of int8");
}

}  // namespace

void check_quantized(const Graph& graph) {
    std::map<std::string_view, const Node*> made_by;  // quantised values
    std::set<std::string_view> dequantised;
    Seen seen;
    const auto is_quantised = [&](std::string_view name) { return made_by.contains(name) || is_small_integer(constant(graph, name)); };
    for (const Node& node : graph.nodes) {
        const std::string made = quoted(node.outputs[0], 200);
        const std::string_view source = node.inputs[0];
        if (node.op == "QuantizeLinear") {
            if (constant(graph, source) || made_by.contains(source))
                throw Malformed(made + " quantises a constant, or what is quantised already");
            check_scale(graph, node, {}, seen);
            made_by.emplace(node.outputs[0], &node);
        } else if (node.op == "DequantizeLinear") {
            dequantised.insert(source);
            const auto pair = made_by.find(source);
            if (pair == made_by.end()) {
                check_weights(graph, node, seen);
            } else if (!std::equal(node.inputs.begin() + 1, node.inputs.end(), pair->second->inputs.begin() + 1)) {
                throw Malformed(made + " dequantises by another scale or zero point than its input was quantised by");
            }
        } else if (std::any_of(node.inputs.begin(), node.inputs.end(), is_quantised)) {
            throw Malformed("the " + std::string(node.op) + " that makes " + made + " reads a quantised value");
        }
    }
    for (const auto& [name, node] : made_by)
        if (!dequantised.contains(name)) throw Malformed(quoted(name, 200) + " is quantised and never dequantised");
    if (std::any_of(graph.outputs.begin(), graph.outputs.end(), is_quantised)) throw Malformed("an output is quantised");
}

}  // namespace fusedx::onnx
