// One image in the caller's memory, and the checks that make it safe to read.
//
// What is accepted and refused is what python/fusedx/inputs does with arrays of the same kind, by the same reason codes.
#pragma once

#include <cstdint>
#include <string>

namespace fusedx {

// Numbered as in include/fusedx/fusedx.h.
enum class PixelFormat : int32_t { rgb8 = 1, gray8 = 2, gray16 = 3 };
enum class Reason : int32_t { none = 0, empty = 1, too_large = 2, too_small = 3, bad_array = 4, not_finite = 5 };

const char* name(Reason reason);  // the Python package's code: "empty", "too_large" ...; "none"

struct ImageView {
    const void* data;  // first pixel of the upper row
    int64_t width, height;
    int64_t row_stride;  // bytes, of any sign; 0: rows follow without a gap
    PixelFormat format;

    int64_t pixel_bytes() const { return format == PixelFormat::rgb8 ? 3 : format == PixelFormat::gray16 ? 2 : 1; }
    int64_t stride() const { return row_stride ? row_stride : width * pixel_bytes(); }
};

struct ImageLimits {
    int64_t max_pixels = 178'956'970 / 2;  // as fusedx.ReadOptions
    int64_t min_side = 2;
};

struct ImageFault {
    Reason reason = Reason::none;
    std::string text;  // for people
};

// Looks at no pixel.  An image without a fault may be read: all its rows lie inside the address space and none overlaps another.
ImageFault check(const ImageView& image, const ImageLimits& limits);

}  // namespace fusedx
