// Protobuf's wire format, as much as is needed: a field is a varint tag (number << 3 | wire type) and its value; wire type 2 is a
// varint length and that many bytes.  Everything but external_data is copied as it is.
#include "onnx_location.hpp"

#include <charconv>

#include "error.hpp"

namespace fusedx {
namespace {

constexpr uint64_t kGraph = 7, kInitializer = 5, kExternalData = 13, kKey = 1, kValue = 2;  // fields of onnx.proto's messages

[[noreturn]] void refuse() {
    throw Error(Status::bad_model, "encoder.onnx is not an encoder graph that fusedx wrote: its weights are not given by place and length");
}

struct Field {
    uint64_t number;
    bool message;            // wire type 2
    std::string_view bytes;  // of the whole field
    std::string_view value;  // inside `bytes`
};

uint64_t varint(std::string_view& from) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (from.empty()) refuse();
        const uint8_t byte = static_cast<uint8_t>(from.front());
        from.remove_prefix(1);
        value |= uint64_t{byte & 127u} << shift;
        if (byte < 128) return value;
    }
    refuse();
}

// Takes the first field off `from`.
Field next(std::string_view& from) {
    const std::string_view whole = from;
    const uint64_t tag = varint(from);
    uint64_t size = 0;
    switch (tag & 7) {
    case 0: varint(from); break;
    case 1: size = 8; break;
    case 2: size = varint(from); break;
    case 5: size = 4; break;
    default: refuse();
    }
    if (size > from.size()) refuse();
    const std::string_view value = from.substr(0, size);
    from.remove_prefix(size);
    return {tag >> 3, (tag & 7) == 2, whole.substr(0, whole.size() - from.size()), value};
}

void append_varint(std::string& to, uint64_t value) {
    for (; value >= 128; value >>= 7) to += static_cast<char>(value | 128);
    to += static_cast<char>(value);
}

void append_message(std::string& to, uint64_t number, std::string_view value) {
    append_varint(to, number << 3 | 2);
    append_varint(to, value.size());
    to += value;
}

void append_entry(std::string& to, std::string_view key, std::string_view value) {
    std::string entry;
    append_message(entry, kKey, key);
    append_message(entry, kValue, value);
    append_message(to, kExternalData, entry);
}

uint64_t number_in(std::string_view text) {
    uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size()) refuse();
    return number;
}

struct Weights { std::string_view location; uint64_t base, bytes; };

std::string tensor(std::string_view from, const Weights& weights) {
    std::string to;
    uint64_t offset = UINT64_MAX, length = UINT64_MAX;
    bool external = false;
    while (!from.empty()) {
        const Field field = next(from);
        if (field.number != kExternalData || !field.message) {
            to += field.bytes;
            continue;
        }
        external = true;
        std::string_view key, value;
        for (std::string_view entry = field.value; !entry.empty();) {
            const Field part = next(entry);
            (part.number == kKey ? key : value) = part.value;
        }
        if (key == "offset") offset = number_in(value);
        if (key == "length") length = number_in(value);
    }
    if (!external) return to;
    if (offset > weights.bytes || length > weights.bytes - offset) refuse();
    append_entry(to, "location", weights.location);
    append_entry(to, "offset", std::to_string(weights.base + offset));
    append_entry(to, "length", std::to_string(length));
    return to;
}

std::string graph(std::string_view from, const Weights& weights) {
    std::string to;
    while (!from.empty()) {
        const Field field = next(from);
        if (field.number == kInitializer && field.message)
            append_message(to, kInitializer, tensor(field.value, weights));
        else
            to += field.bytes;
    }
    return to;
}

}  // namespace

std::string with_weights_at(std::string_view model, std::string_view location, uint64_t base, uint64_t weights_bytes) {
    const Weights weights{location, base, weights_bytes};
    std::string to;
    while (!model.empty()) {
        const Field field = next(model);
        if (field.number == kGraph && field.message)
            append_message(to, kGraph, graph(field.value, weights));
        else
            to += field.bytes;
    }
    return to;
}

}  // namespace fusedx
