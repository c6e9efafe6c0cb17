#include <algorithm>
#include <cstring>

#include "model/safetensors.hpp"

namespace fusedx {

const char* name(Dtype dtype) {
    constexpr const char* names[] = {"F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL"};
    return names[static_cast<int>(dtype)];
}

int64_t item_bytes(Dtype dtype) {
    constexpr int64_t sizes[] = {8, 4, 2, 2, 8, 1, 1, 1};
    return sizes[static_cast<int>(dtype)];
}

std::string Tensor::description() const {
    std::string text = std::string(name(dtype)) + " [";
    for (size_t i = 0; i < shape.size(); ++i) {
        if (i == 8) return text + ", ...]";
        text += (i ? ", " : "") + std::to_string(shape[i]);
    }
    return text + "]";
}

bool count(const std::vector<int64_t>& shape, int64_t& elements) {
    constexpr int64_t kMost = int64_t{1} << 56;
    elements = 1;
    bool empty = false;
    for (int64_t n : shape) {
        if (n < 0 || n > kMost) return false;
        if (n == 0) {
            empty = true;
        } else if (elements > kMost / n) {
            return false;
        } else {
            elements *= n;
        }
    }
    if (empty) elements = 0;
    return true;
}

// Is every bit of an exponent set anywhere?  No branch inside, so that it runs at the memory's speed; copies allow any alignment.
template <class Word>
static bool without_full_exponent(Bytes bytes, Word exponent) {
    constexpr size_t kWords = 4096 / sizeof(Word);
    Word words[kWords];
    for (size_t at = 0; at < bytes.size();) {
        const size_t size = std::min(bytes.size() - at, sizeof words);
        std::memcpy(words, bytes.data() + at, size);
        at += size;
        unsigned full = 0;
        for (size_t i = 0; i < size / sizeof(Word); ++i) full |= (words[i] & exponent) == exponent;
        if (full) return false;
    }
    return true;
}

bool is_finite(const Tensor& tensor) {
    switch (tensor.dtype) {
        case Dtype::f64: return without_full_exponent<uint64_t>(tensor.bytes, uint64_t{0x7ff} << 52);
        case Dtype::f32: return without_full_exponent<uint32_t>(tensor.bytes, 0x7f800000);
        case Dtype::f16: return without_full_exponent<uint16_t>(tensor.bytes, 0x7c00);
        case Dtype::bf16: return without_full_exponent<uint16_t>(tensor.bytes, 0x7f80);
        default: return true;
    }
}

}  // namespace fusedx
