// Protobuf's wire format, the part that fusedx's own encoder.onnx uses.  Anything else is refused: a field that we never write could mean
// one thing here and another to a runtime.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "model/file_bytes.hpp"

namespace fusedx::wire {

enum Type : int { varint = 0, eight_bytes = 1, delimited = 2, four_bytes = 5 };

struct Field {
    uint64_t number;
    Type type;
    uint64_t integer;  // of a varint
    Bytes bytes;       // of everything else
};

// The field that starts at `at`, which moves behind it.  Throws Malformed.
Field take_field(Bytes bytes, size_t& at);

// A field that a message may have.  packed: a repeated integer, in either of its two forms.
struct Slot {
    uint64_t number;
    Type type;
    bool repeated = false;
    bool packed = false;
};

// One message whose fields all fit its slots, single ones at most once.  Throws Malformed.
class Message {
public:
    Message(const char* what, Bytes bytes, std::initializer_list<Slot> slots);

    std::vector<Field> all(uint64_t number) const;
    bool has(uint64_t number) const;

    // The only field of that number; Malformed where there is none or more.
    Bytes bytes(uint64_t number) const;
    std::string_view text(uint64_t number) const;  // UTF-8
    int64_t integer(uint64_t number) const;
    float real(uint64_t number) const;

    std::vector<int64_t> integers(uint64_t number) const;  // repeated, packed or not

private:
    const char* what_;
    std::vector<Field> fields_;

    const Field& only(uint64_t number) const;
};

std::string_view text(Bytes bytes);  // UTF-8, or Malformed

}  // namespace fusedx::wire
