#include "model/safetensors.hpp"

#include <algorithm>
#include <compare>
#include <cstring>
#include <optional>
#include <utility>

#include "model/json.hpp"
#include "model/text.hpp"

namespace fusedx {

namespace {

constexpr uint64_t kMaxHeader = 1 << 20;
constexpr size_t kMaxDimensions = 64;

struct Span {
    uint64_t start, end;
    auto operator<=>(const Span&) const = default;
};

std::optional<Dtype> dtype_of(const json::Value* value) {
    const auto* text = value ? value->get<std::string>() : nullptr;
    for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::i8, Dtype::u8})
        if (text && *text == name(dtype)) return dtype;
    return {};
}

std::vector<int64_t> whole_numbers(const json::Value* value, const std::string& what) {
    const auto* items = value ? value->get<json::Array>() : nullptr;
    std::vector<int64_t> numbers;
    for (const json::Value& item : items ? *items : json::Array{}) {
        const auto* n = item.get<json::Integer>();
        if (!n || !n->within(0, INT64_MAX)) throw Malformed(what + " has a malformed shape or offsets");
        numbers.push_back(static_cast<int64_t>(n->magnitude));
    }
    if (!items || numbers.size() > kMaxDimensions) throw Malformed(what + " has a malformed shape or offsets");
    return numbers;
}

std::pair<Tensor, Span> tensor(const std::string& name, const json::Value& entry, Bytes data) {
    const std::string what = quoted(name);
    const auto dtype = dtype_of(entry.find("dtype"));
    if (!dtype) throw Malformed(what + " has no known dtype; expected F64, F32, F16, BF16, I8 or U8");
    const std::vector<int64_t> shape = whole_numbers(entry.find("shape"), what);
    const std::vector<int64_t> offsets = whole_numbers(entry.find("data_offsets"), what);
    if (offsets.size() != 2) throw Malformed(what + " has a malformed shape or offsets");
    const Span span{static_cast<uint64_t>(offsets[0]), static_cast<uint64_t>(offsets[1])};
    int64_t elements = 0;
    const auto item = static_cast<uint64_t>(item_bytes(*dtype));
    if (!count(shape, elements) || span.start > span.end || span.end > data.size() ||
        span.end - span.start != static_cast<uint64_t>(elements) * item)
        throw Malformed(what + " does not fit: " + Tensor{*dtype, shape, {}}.description() + ", bytes " + std::to_string(span.start) +
                        " to " + std::to_string(span.end) + " of " + std::to_string(data.size()));
    if (span.start % item)
        throw Malformed(what + " starts at byte " + std::to_string(span.start) + ", which is not aligned for its elements");
    return {Tensor{*dtype, shape, data.subspan(span.start, span.end - span.start)}, span};
}

}  // namespace

std::map<std::string, Tensor> read_safetensors(Bytes file) {
    if (file.size() < 8) throw Malformed("it is shorter than its header");
    uint64_t size = 0;
    for (int i = 7; i >= 0; --i) size = size << 8 | file[static_cast<size_t>(i)];
    if (size > std::min<uint64_t>(kMaxHeader, file.size() - 8))
        throw Malformed("a header of " + std::to_string(size) + " bytes in a file of " + std::to_string(file.size()));
    const json::Value header = json::parse({reinterpret_cast<const char*>(file.data()) + 8, size});
    const auto* members = header.get<json::Object>();
    if (!members) throw Malformed("the header is not an object");
    if (size % 8) throw Malformed("its tensors are not aligned to 8 bytes");
    const Bytes data = file.subspan(8 + size);
    std::map<std::string, Tensor> tensors;
    std::vector<Span> spans;
    for (const json::Member& member : *members) {
        if (member.key == "__metadata__") continue;
        auto [view, span] = tensor(member.key, member.value, data);
        tensors.emplace(member.key, std::move(view));
        spans.push_back(span);
    }
    std::sort(spans.begin(), spans.end());
    uint64_t end = 0;
    for (const Span& span : spans) {
        if (span.start != end) throw Malformed("tensors overlap or leave gaps");
        end = span.end;
    }
    if (end != data.size()) throw Malformed("bytes follow the last tensor");
    return tensors;
}

}  // namespace fusedx
