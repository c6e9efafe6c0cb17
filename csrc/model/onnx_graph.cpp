// Field numbers are those of onnx.proto.
#include "model/onnx_graph.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

#include "model/text.hpp"
#include "model/wire.hpp"

namespace fusedx::onnx {

namespace {

using wire::delimited, wire::four_bytes, wire::Message, wire::varint;

constexpr std::string_view kDataFile = "encoder.onnx.data";
constexpr uint64_t kAlignment = 64;

std::optional<Dtype> dtype_of(int64_t kind) {  // TensorProto.DataType
    switch (kind) {
        case 1: return Dtype::f32;
        case 2: return Dtype::u8;
        case 3: return Dtype::i8;
        case 7: return Dtype::i64;
        case 9: return Dtype::boolean;
        case 11: return Dtype::f64;
        default: return {};
    }
}

std::vector<std::string_view> texts(const std::vector<wire::Field>& fields) {
    std::vector<std::string_view> out;
    for (const wire::Field& field : fields) out.push_back(wire::text(field.bytes));
    return out;
}

// Bytes [offset, offset + length) of the data file, as a tensor's external_data entries say.
Bytes external_view(const std::vector<wire::Field>& entries, Bytes data) {
    std::map<std::string_view, std::string_view> said;
    for (const wire::Field& field : entries) {
        const Message entry("external entry", field.bytes, {{1, delimited}, {2, delimited}});
        said.emplace(entry.text(1), entry.text(2));
    }
    if (entries.size() != 3 || !said.contains("location") || !said.contains("offset") || !said.contains("length"))
        throw Malformed("external weights are not given by location, offset and length");
    if (said["location"] != kDataFile)
        throw Malformed("weights lie in " + quoted(said["location"], 200) + ", expected " + quoted(kDataFile));
    const uint64_t offset = plain_number(said["offset"]), length = plain_number(said["length"]);
    if (offset % kAlignment || offset > data.size() || length > data.size() - offset)
        throw Malformed("weights lie outside " + std::string(kDataFile) + " or are not aligned");
    return data.subspan(offset, length);
}

std::pair<std::string_view, Tensor> constant(Bytes bytes, Bytes data) {
    const Message message("tensor", bytes,
                          {{2, varint}, {8, delimited}, {9, delimited}, {14, varint}, {1, varint, true, true}, {13, delimited, true}});
    const std::string_view name = message.text(8);
    const std::string what = "the constant " + quoted(name);
    const auto dtype = dtype_of(message.integer(2));
    if (!dtype) throw Malformed(what + " has the type " + std::to_string(message.integer(2)) + ", which fusedx does not write");
    const int64_t location = message.has(14) ? message.integer(14) : 0;
    if (location != 0 && location != 1) throw Malformed(what + " lies in an unknown place");
    if (message.has(location == 1 ? 9 : 13)) throw Malformed(what + " is given in two places");
    Tensor tensor{*dtype, message.integers(1), {}};
    if (location == 1) {
        tensor.bytes = external_view(message.all(13), data);
    } else if (message.has(9)) {
        tensor.bytes = message.bytes(9);
    }
    int64_t elements = 0;
    if (tensor.shape.size() > 8 || !count(tensor.shape, elements) ||
        static_cast<uint64_t>(elements) * static_cast<uint64_t>(item_bytes(*dtype)) != tensor.bytes.size())
        throw Malformed(what + " is " + tensor.description() + " and has " + std::to_string(tensor.bytes.size()) + " bytes");
    if (*dtype == Dtype::boolean && std::any_of(tensor.bytes.begin(), tensor.bytes.end(), [](uint8_t b) { return b > 1; }))
        throw Malformed(what + " is neither true nor false");
    return {name, tensor};
}

std::pair<std::string_view, Attribute> attribute(Bytes bytes) {
    const Message message("attribute", bytes,
                          {{1, delimited}, {2, four_bytes}, {3, varint}, {20, varint}, {8, varint, true, true}});
    constexpr int64_t kFloat = 1, kInt = 2, kInts = 7;  // AttributeProto.AttributeType, held in fields 2, 3 and 8
    const std::string_view name = message.text(1);
    const int64_t kind = message.integer(20);
    if ((kind != kFloat && kind != kInt && kind != kInts) || (kind != kFloat && message.has(2)) || (kind != kInt && message.has(3)) ||
        (kind != kInts && message.has(8)))
        throw Malformed("attribute " + quoted(name) + " has kind " + std::to_string(kind) + ", or values of another kind");
    if (kind == kFloat) return {name, message.real(2)};
    if (kind == kInt) return {name, message.integer(3)};
    return {name, message.integers(8)};
}

Node node(Bytes bytes) {
    const Message message("node", bytes,
                          {{3, delimited}, {4, delimited}, {1, delimited, true}, {2, delimited, true}, {5, delimited, true}});
    Node node{message.text(4), texts(message.all(1)), texts(message.all(2)), {}};
    for (const wire::Field& field : message.all(5))
        if (!node.attributes.insert(attribute(field.bytes)).second) throw Malformed("a " + quoted(node.op) + " has an attribute twice");
    return node;
}

std::vector<std::string_view> value_names(const std::vector<wire::Field>& fields) {
    std::vector<std::string_view> names;
    for (const wire::Field& field : fields) names.push_back(Message("value", field.bytes, {{1, delimited}, {2, delimited}}).text(1));
    return names;
}

// The writer puts one constant behind the other.  Constants that share bytes would cost more to look at than the file is long.
void refuse_overlap(const Graph& graph, Bytes data) {
    std::vector<std::pair<const uint8_t*, const uint8_t*>> spans;
    for (const auto& [name, tensor] : graph.constants)
        if (!tensor.bytes.empty() && tensor.bytes.data() >= data.data() && tensor.bytes.data() < data.data() + data.size())
            spans.emplace_back(tensor.bytes.data(), tensor.bytes.data() + tensor.bytes.size());
    std::sort(spans.begin(), spans.end());
    for (size_t i = 1; i < spans.size(); ++i)
        if (spans[i].first < spans[i - 1].second) throw Malformed("two constants share bytes of " + std::string(kDataFile));
}

}  // namespace

uint64_t plain_number(std::string_view text) {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc() || end != text.data() + text.size())
        throw Malformed("the place of external weights is not given by plain numbers");
    return value;
}

Graph read(Bytes encoder, Bytes data) {
    if (encoder.size() > kMaxGraphBytes) throw Malformed("it has more than " + std::to_string(kMaxGraphBytes >> 20) + " MiB");
    const Message model("model", encoder, {{1, varint}, {2, delimited}, {7, delimited}, {8, delimited, true}});
    const std::vector<wire::Field> opsets = model.all(8);
    for (const wire::Field& field : opsets) {
        const Message opset("opset", field.bytes, {{1, delimited}, {2, varint}});
        if (opsets.size() != 1 || (opset.has(1) && !opset.text(1).empty()) || opset.integer(2) != kOpset)
            throw Malformed("it does not use exactly opset " + std::to_string(kOpset));
    }
    if (opsets.empty()) throw Malformed("it does not use exactly opset " + std::to_string(kOpset));
    const Message body("graph", model.bytes(7),
                       {{2, delimited}, {1, delimited, true}, {5, delimited, true}, {11, delimited, true}, {12, delimited, true}});
    Graph graph;
    for (const wire::Field& field : body.all(1)) graph.nodes.push_back(node(field.bytes));
    for (const wire::Field& field : body.all(5)) {
        auto [name, tensor] = constant(field.bytes, data);
        if (!graph.constants.emplace(name, std::move(tensor)).second) throw Malformed("the constant " + quoted(name) + " is given twice");
    }
    refuse_overlap(graph, data);
    graph.inputs = value_names(body.all(11));
    graph.outputs = value_names(body.all(12));
    return graph;
}

}  // namespace fusedx::onnx
