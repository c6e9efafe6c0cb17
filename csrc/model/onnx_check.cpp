#include "model/onnx_check.hpp"

#include <algorithm>
#include <cstring>
#include <set>

#include "model/text.hpp"

namespace fusedx::onnx {

namespace {

using Ints = std::vector<int64_t>;

struct Operator {
    size_t fewest, most;  // inputs
    std::vector<std::string_view> attributes;
};

const Operator kBinary{2, 2, {}}, kUnary{1, 1, {}}, kReduce{1, 1, {"axes", "keepdims"}};

// All that network.py and the quantiser use; the same table as in onnx_file.py.
const std::map<std::string_view, Operator> kOperators = {
    {"Add", kBinary}, {"And", kBinary}, {"Div", kBinary}, {"Equal", kBinary}, {"Greater", kBinary}, {"MatMul", kBinary}, {"Mul", kBinary},
    {"Or", kBinary}, {"Reshape", kBinary}, {"Sub", kBinary},
    {"Erf", kUnary}, {"Floor", kUnary}, {"Identity", kUnary}, {"Relu", kUnary}, {"Sigmoid", kUnary}, {"Tanh", kUnary},
    {"ReduceMax", kReduce}, {"ReduceMean", kReduce}, {"ReduceMin", kReduce},
    {"Cast", {1, 1, {"to"}}},
    {"Concat", {2, 8, {"axis"}}},
    {"Conv", {2, 3, {"kernel_shape", "pads", "strides"}}},
    {"DequantizeLinear", {3, 3, {"axis"}}},
    {"Gather", {2, 2, {"axis"}}},
    {"GatherND", {2, 2, {"batch_dims"}}},
    {"LayerNormalization", {3, 3, {"axis", "epsilon"}}},
    {"MaxPool", {1, 1, {"kernel_shape", "pads", "strides"}}},
    {"QuantizeLinear", {3, 3, {}}},
    {"ReduceSum", {2, 2, {"keepdims"}}},
    {"Softmax", {1, 1, {"axis"}}},
    {"Transpose", {1, 1, {"perm"}}},
    {"Where", {3, 3, {}}},
};

constexpr int64_t kMaxWindow = 64, kMaxAxes = 8;

// `size` equal entries from `low` to kMaxWindow.
bool is_window(const Ints& entries, size_t size, int64_t low) {
    return entries.size() == size && entries[0] >= low && entries[0] <= kMaxWindow &&
           std::all_of(entries.begin(), entries.end(), [&](int64_t n) { return n == entries[0]; });
}

bool are_axes(const Ints& entries) {
    const std::set<int64_t> distinct(entries.begin(), entries.end());
    return !entries.empty() && distinct.size() == entries.size() && *distinct.begin() >= 0 && *distinct.rbegin() < kMaxAxes;
}

bool fits(std::string_view name, const Attribute& attribute) {
    const auto* integer = std::get_if<int64_t>(&attribute);
    const auto* list = std::get_if<Ints>(&attribute);
    if (name == "epsilon") {
        const auto* real = std::get_if<float>(&attribute);
        return real && *real > 0 && *real < 1;
    }
    if (name == "to") return integer && (*integer == 1 || *integer == 7);  // float32 or int64
    if (name == "kernel_shape" || name == "strides") return list && is_window(*list, 2, 1);
    if (name == "pads") return list && is_window(*list, 4, 0);
    if (name == "axes" || name == "perm") return list && are_axes(*list);
    return integer && *integer >= -1 && *integer < kMaxAxes;  // axis, keepdims, batch_dims
}

int64_t element(const Tensor& indices, size_t i) {  // of any alignment
    int64_t value;
    std::memcpy(&value, indices.bytes.data() + 8 * i, sizeof value);
    return value;
}

bool are_places(const Tensor& indices) {
    constexpr size_t kMost = 1024;  // fusedx gathers at one; any number of nodes may name the same constant
    if (indices.dtype != Dtype::i64 || indices.bytes.empty() || indices.bytes.size() > 8 * kMost) return false;
    for (size_t i = 0; i < indices.bytes.size() / 8; ++i)
        if (element(indices, i) < 0) return false;
    return true;
}

void check_node(const Node& node, const Graph& graph) {
    const auto found = kOperators.find(node.op);
    if (found == kOperators.end()) throw Malformed("it uses the operator " + quoted(node.op));
    const Operator& known = found->second;
    const std::string made = node.outputs.empty() ? "nothing" : quoted(node.outputs[0], 200);
    const bool same_attributes =
        std::equal(node.attributes.begin(), node.attributes.end(), known.attributes.begin(), known.attributes.end(),
                   [](const auto& given, std::string_view name) { return given.first == name; });
    if (!same_attributes || node.inputs.size() < known.fewest || node.inputs.size() > known.most || node.outputs.size() != 1)
        throw Malformed("the " + std::string(node.op) + " that makes " + made +
                        " has other inputs, outputs or attributes than fusedx writes");
    for (const auto& [name, attribute] : node.attributes)
        if (!fits(name, attribute)) throw Malformed(made + " has an impossible " + std::string(name));
    if (node.op == "Gather") {
        const auto index = graph.constants.find(node.inputs[1]);
        if (index == graph.constants.end() || !are_places(index->second))
            throw Malformed(made + " gathers at something else than constant places");
    }
}

}  // namespace

void check(const Graph& graph) {
    const std::set<std::string_view> distinct(graph.outputs.begin(), graph.outputs.end());
    if (graph.inputs != std::vector<std::string_view>{"image"} || graph.outputs.empty() || distinct.size() != graph.outputs.size())
        throw Malformed("its input is not one image, or its outputs are not distinct");
    std::set<std::string_view> known = {"image"};
    for (const auto& constant : graph.constants)
        if (constant.first.empty() || !known.insert(constant.first).second)
            throw Malformed("a constant is named as the input, or not at all");
    for (const Node& node : graph.nodes) {
        check_node(node, graph);
        for (std::string_view input : node.inputs)
            if (!known.contains(input)) throw Malformed("it reads " + quoted(input) + " before it is computed");
        if (node.outputs[0].empty() || !known.insert(node.outputs[0]).second)
            throw Malformed("it makes " + quoted(node.outputs[0]) + " twice");
    }
    for (std::string_view output : graph.outputs)
        if (!known.contains(output)) throw Malformed("its output " + quoted(output) + " is never computed");
    check_quantized(graph);
}

const std::vector<std::string>& outputs(const Network& network) {
    static const std::vector<std::string> v1 = {"saliency", "patch_locations", "patch_attention", "y_global",
                                                "y_local",  "y_fusion",        "prior",           "feature"};
    static const std::vector<std::string> v2 = {"saliency", "patch_locations", "patch_attention", "y_global",     "y_local",
                                                "y_fusion", "prior",           "image_feature",   "roi_features", "fused_feature"};
    return network.is_v2() ? v2 : v1;
}

void check_network(const Graph& graph, const Network& network) {
    const std::vector<std::string>& needed = outputs(network);
    if (!std::equal(graph.outputs.begin(), graph.outputs.end(), needed.begin(), needed.end()))
        throw Malformed("its outputs are not those that " + network.family + " needs: " + joined(needed));
    struct Size {
        const char* name;
        bool last;  // dimension, else the first
        int64_t expected;
    };
    for (const auto& [name, last, expected] : {Size{"left_postprocess_net.gn_conv_last.weight", false, network.num_classes},
                                               Size{"classifier_linear.weight_t", true, network.num_classes},
                                               Size{"encoder_x.g.weight_t", true, network.feature_dim}}) {
        const auto found = graph.constants.find(name);
        const Ints shape = found == graph.constants.end() ? Ints{} : found->second.shape;
        if (shape.empty() || (last ? shape.back() : shape.front()) != expected)
            throw Malformed(std::string(name) + " is " + (shape.empty() ? "missing" : found->second.description()) +
                            ", the manifest implies " + std::to_string(expected) + " as its " + (last ? "last" : "first") + " dimension");
    }
    for (const Node& node : graph.nodes) {  // a colour channel, or one of query, key and value; runtimes need not check the bounds
        if (node.op != "Gather") continue;
        const Tensor& index = graph.constants.at(node.inputs[1]);
        if (!index.shape.empty() || element(index, 0) > 2) throw Malformed(quoted(node.outputs[0]) + " gathers outside its input");
    }
}

void check_finite(const Graph& graph, const std::function<void(Bytes)>& looked_at) {
    for (const auto& [name, tensor] : graph.constants) {
        if (!is_finite(tensor)) throw Malformed(quoted(name, 200) + " holds NaN or infinite values");
        looked_at(tensor.bytes);
    }
}

}  // namespace fusedx::onnx
