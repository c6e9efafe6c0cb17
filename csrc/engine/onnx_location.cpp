// A message is copied field by field (model/wire.hpp); only what lies on the way to external_data is written anew.
#include "onnx_location.hpp"

#include "error.hpp"
#include "model/onnx_graph.hpp"
#include "model/text.hpp"
#include "model/wire.hpp"

namespace fusedx {
namespace {

constexpr uint64_t kGraph = 7, kInitializer = 5, kExternalData = 13, kKey = 1, kValue = 2;  // fields of onnx.proto's messages

std::string_view text(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

void append_varint(std::string& to, uint64_t value) {
    for (; value >= 128; value >>= 7) to += static_cast<char>(value | 128);
    to += static_cast<char>(value);
}

void append_message(std::string& to, uint64_t number, std::string_view value) {
    append_varint(to, number << 3 | wire::delimited);
    append_varint(to, value.size());
    to += value;
}

void append_entry(std::string& to, std::string_view key, std::string_view value) {
    std::string entry;
    append_message(entry, kKey, key);
    append_message(entry, kValue, value);
    append_message(to, kExternalData, entry);
}

// A copy of a message in which replace(copy, message) stands for each message numbered `number`.
template <class Replace>
std::string rewritten(Bytes from, uint64_t number, const Replace& replace) {
    std::string to;
    for (size_t at = 0; at < from.size();) {
        const size_t start = at;
        const wire::Field field = wire::take_field(from, at);
        if (field.number == number && field.type == wire::delimited)
            replace(to, field.bytes);
        else
            to += text(from.subspan(start, at - start));
    }
    return to;
}

struct Weights { std::string_view location; uint64_t base, bytes; };

std::string tensor(Bytes from, const Weights& weights) {
    uint64_t offset = UINT64_MAX, length = UINT64_MAX;
    bool external = false;
    std::string to = rewritten(from, kExternalData, [&](std::string&, Bytes entry) {
        external = true;
        std::string_view key, value;
        for (size_t at = 0; at < entry.size();) {
            const wire::Field part = wire::take_field(entry, at);
            (part.number == kKey ? key : value) = text(part.bytes);
        }
        if (key == "offset") offset = onnx::plain_number(value);
        if (key == "length") length = onnx::plain_number(value);
    });
    if (!external) return to;
    if (offset > weights.bytes || length > weights.bytes - offset) throw Malformed("weights lie outside their file");
    append_entry(to, "location", weights.location);
    append_entry(to, "offset", std::to_string(weights.base + offset));
    append_entry(to, "length", std::to_string(length));
    return to;
}

}  // namespace

std::string with_weights_at(std::string_view model, std::string_view location, uint64_t base, uint64_t weights_bytes) {
    const Weights weights{location, base, weights_bytes};
    const auto graph = [&](std::string& to, Bytes message) {
        append_message(to, kGraph, rewritten(message, kInitializer, [&](std::string& copy, Bytes initializer) {
            append_message(copy, kInitializer, tensor(initializer, weights));
        }));
    };
    try {
        return rewritten({reinterpret_cast<const uint8_t*>(model.data()), model.size()}, kGraph, graph);
    } catch (const Malformed& error) {
        throw Error(Status::bad_model, std::string("encoder.onnx is not an encoder graph that fusedx wrote: ") + error.what());
    }
}

}  // namespace fusedx
