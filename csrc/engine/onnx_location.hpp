// Where an ONNX model's weights lie, rewritten: so what OpenVINO reads are the very bytes whose digests were checked, whatever happens
// to the folder meanwhile.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace fusedx {

// OpenVINO takes an initializer's external data with this location from memory at the address in `offset`; it copies them.
inline constexpr std::string_view kInMemory = "*/_ORT_MEM_ADDR_/*";

// model: bytes of an ONNX file whose initializers have external data in a file of weights_bytes.  Returns it with each reference's
// location made `location`, and `base` added to its offset.  Throws Error(bad_model) where the bytes are not of that form.
std::string with_weights_at(std::string_view model, std::string_view location, uint64_t base, uint64_t weights_bytes);

}  // namespace fusedx
