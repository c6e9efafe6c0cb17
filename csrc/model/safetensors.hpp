// A .safetensors file, as engine/safetensors.py reads it: only what the format promises is accepted, tensors that lie one after the other,
// without gaps, overlaps or a remainder, each aligned to its element.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/file_bytes.hpp"

namespace fusedx {

enum class Dtype { f64, f32, f16, bf16, i64, i8, u8, boolean };

const char* name(Dtype dtype);
int64_t item_bytes(Dtype dtype);

// Viewed data, little-endian; aligned to its element unless said otherwise.
struct Tensor {
    Dtype dtype = Dtype::f32;
    std::vector<int64_t> shape;
    Bytes bytes;

    std::string description() const;  // "F32 [2, 3]"
};

// Number of elements; false where it, or the number of bytes, exceeds what a file can hold.
bool count(const std::vector<int64_t>& shape, int64_t& elements);

// No NaN and no infinity; true for integers.
bool is_finite(const Tensor& tensor);

// Name -> view of `file`, which must start at an address that is a multiple of 8.  Throws Malformed.
std::map<std::string, Tensor> read_safetensors(Bytes file);

}  // namespace fusedx
