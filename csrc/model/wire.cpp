#include "model/wire.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "model/text.hpp"

namespace fusedx::wire {

namespace {

// At most ten bytes of seven bits, and no more than 64 bits.
uint64_t take_varint(Bytes bytes, size_t& at) {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
        if (at == bytes.size()) throw Malformed("a number does not end");
        const uint8_t byte = bytes[at++];
        if (shift == 63 && byte > 1) throw Malformed("a number is longer than 64 bits");
        value |= uint64_t{byte & 127u} << shift;
        if (byte < 128) return value;
    }
}

}  // namespace

Field take_field(Bytes bytes, size_t& at) {
    const uint64_t tag = take_varint(bytes, at);
    Field field{tag >> 3, static_cast<Type>(tag & 7), 0, {}};
    uint64_t size = 0;
    switch (field.type) {
        case varint: field.integer = take_varint(bytes, at); return field;
        case eight_bytes: size = 8; break;
        case four_bytes: size = 4; break;
        case delimited: size = take_varint(bytes, at); break;
        default: throw Malformed("a field has the wire type " + std::to_string(tag & 7));
    }
    if (size > bytes.size() - at) throw Malformed("a field of " + std::to_string(size) + " bytes does not fit");
    field.bytes = bytes.subspan(at, size);
    at += size;
    return field;
}

Message::Message(const char* what, Bytes bytes, std::initializer_list<Slot> slots) : what_(what) {
    for (size_t at = 0; at < bytes.size();) {
        const Field field = take_field(bytes, at);
        const auto* slot = std::find_if(slots.begin(), slots.end(), [&](const Slot& s) { return s.number == field.number; });
        if (slot == slots.end() || (field.type != slot->type && !(slot->packed && field.type == delimited)))
            throw Malformed("a " + std::string(what) + " has a field " + std::to_string(field.number) + " of wire type " +
                            std::to_string(field.type) + ", which fusedx does not write");
        if (!slot->repeated && has(field.number))
            throw Malformed("a " + std::string(what) + " has its field " + std::to_string(field.number) + " twice");
        fields_.push_back(field);
    }
}

bool Message::has(uint64_t number) const {
    return std::any_of(fields_.begin(), fields_.end(), [&](const Field& f) { return f.number == number; });
}

std::vector<Field> Message::all(uint64_t number) const {
    std::vector<Field> found;
    std::copy_if(fields_.begin(), fields_.end(), std::back_inserter(found), [&](const Field& f) { return f.number == number; });
    return found;
}

const Field& Message::only(uint64_t number) const {
    const Field* found = nullptr;
    for (const Field& field : fields_) {
        if (field.number != number) continue;
        if (found) throw Malformed("a " + std::string(what_) + " has its field " + std::to_string(number) + " twice");
        found = &field;
    }
    if (!found) throw Malformed("a " + std::string(what_) + " lacks its field " + std::to_string(number));
    return *found;
}

Bytes Message::bytes(uint64_t number) const { return only(number).bytes; }

std::string_view Message::text(uint64_t number) const { return wire::text(only(number).bytes); }

int64_t Message::integer(uint64_t number) const { return static_cast<int64_t>(only(number).integer); }

float Message::real(uint64_t number) const {
    float value;
    std::memcpy(&value, only(number).bytes.data(), sizeof value);
    return value;
}

std::vector<int64_t> Message::integers(uint64_t number) const {
    std::vector<int64_t> out;
    for (const Field& field : all(number)) {
        if (field.type == varint) out.push_back(static_cast<int64_t>(field.integer));
        for (size_t at = 0; field.type == delimited && at < field.bytes.size();)
            out.push_back(static_cast<int64_t>(take_varint(field.bytes, at)));
    }
    return out;
}

std::string_view text(Bytes bytes) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (!is_utf8(text)) throw Malformed("a name is not UTF-8 text");
    return text;
}

}  // namespace fusedx::wire
