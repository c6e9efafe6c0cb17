// From an image of any size to the network's input, with the bits of engine/preprocess.py and python/fusedx/inputs.
#pragma once

#include <cstdint>

#include "engine/image.hpp"
#include "model/sha256.hpp"

namespace fusedx {

constexpr int64_t kImageSize = 224;
constexpr int64_t kImageElements = 3 * kImageSize * kImageSize;

// Bytes of the copy that preprocess makes of an image, which grow with it.
inline int64_t preprocess_bytes(const ImageView& image) { return image.format == PixelFormat::gray16 ? image.width * image.height : 0; }

// `image` must have passed check().  to: float32 [3, 224, 224], may be null where the digest alone is wanted.
// Returns the SHA-256 of the image as 8-bit RGB [H, W, 3], which keys its noise.
Digest preprocess(const ImageView& image, float* to);

}  // namespace fusedx
