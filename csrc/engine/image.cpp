#include "image.hpp"

#include <algorithm>
#include <cstdlib>

namespace fusedx {
namespace {

// Whether [first row, last row] stay inside the address space, whichever way the rows run.
bool fits_in_memory(const ImageView& image, int64_t row_bytes, int64_t stride) {
    const int64_t distance = stride < 0 ? -stride : stride;  // of two rows; the caller has excluded INT64_MIN
    if (distance > (INTPTR_MAX - row_bytes) / std::max<int64_t>(1, image.height - 1)) return false;
    const uintptr_t first = reinterpret_cast<uintptr_t>(image.data);
    const uintptr_t span = static_cast<uintptr_t>(distance * (image.height - 1));
    return stride < 0 ? first >= span && UINTPTR_MAX - first >= static_cast<uintptr_t>(row_bytes)
                      : UINTPTR_MAX - first >= span + static_cast<uintptr_t>(row_bytes);
}

}  // namespace

const char* name(Reason reason) {
    switch (reason) {
    case Reason::none: return "none";
    case Reason::empty: return "empty";
    case Reason::too_large: return "too_large";
    case Reason::too_small: return "too_small";
    case Reason::bad_array: return "bad_array";
    case Reason::not_finite: return "not_finite";
    }
    return "unknown";
}

ImageFault check(const ImageView& image, const ImageLimits& limits) {
    const std::string size = std::to_string(image.width) + "x" + std::to_string(image.height);
    if (image.format != PixelFormat::rgb8 && image.format != PixelFormat::gray8 && image.format != PixelFormat::gray16)
        return {Reason::bad_array, "format " + std::to_string(static_cast<int32_t>(image.format)) + " is unknown; use FX_RGB8, FX_GRAY8 or FX_GRAY16"};
    if (image.width < 0 || image.height < 0 || image.width > INT32_MAX || image.height > INT32_MAX)
        return {Reason::bad_array, "a size of " + size + " is impossible"};
    if (image.width == 0 || image.height == 0) return {Reason::empty, size + " has no pixels"};
    if (image.width * image.height > limits.max_pixels)
        return {Reason::too_large, size + " is " + std::to_string(image.width * image.height) + " pixels, the limit (max_pixels) is "
                                       + std::to_string(limits.max_pixels)};
    if (std::min(image.width, image.height) < limits.min_side)
        return {Reason::too_small, size + ", the shorter side must have at least " + std::to_string(limits.min_side) + " pixels"};
    if (image.data == nullptr) return {Reason::bad_array, "data is NULL"};
    const int64_t row_bytes = image.width * image.pixel_bytes(), stride = image.stride();
    if (stride == INT64_MIN || std::llabs(stride) < row_bytes)
        return {Reason::bad_array, "rows of " + std::to_string(row_bytes) + " bytes cannot lie " + std::to_string(stride) + " bytes apart (row_stride)"};
    if (!fits_in_memory(image, row_bytes, stride))
        return {Reason::bad_array, size + " with row_stride " + std::to_string(stride) + " reaches beyond the address space"};
    return {};
}

}  // namespace fusedx
