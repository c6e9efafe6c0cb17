// Image arguments: any width, height, stride and format are refused, or every pixel that preprocessing reads lies where they say.
//
// An input is width, height, stride (8 bytes each), format (4 bytes), and pixels, which are repeated as often as needed.
#include <cmath>
#include <cstdlib>
#include <vector>

#include "engine/preprocess.hpp"
#include "exact_copy.hpp"

using namespace fusedx;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    constexpr size_t kHead = 28;
    if (size <= kHead) return 0;
    ImageView image{data + kHead, 0, 0, 0, {}};
    std::memcpy(&image.width, data, 8);
    std::memcpy(&image.height, data + 8, 8);
    std::memcpy(&image.row_stride, data + 16, 8);
    std::memcpy(&image.format, data + 24, 4);
    const ImageLimits limits{1 << 16, 2};
    const ImageFault fault = check(image, limits);
    if ((fault.reason == Reason::none) != fault.text.empty()) std::abort();
    if (fault.reason != Reason::none) return 0;
    if (image.width < 1 || image.height < 1 || image.width > limits.max_pixels / image.height) std::abort();

    const int64_t row = image.width * image.pixel_bytes(), stride = image.stride(), below = image.height - 1;
    constexpr int64_t kMost = 1 << 22;
    if (below && std::abs(stride) > kMost / below) return 0;  // a fault less than in an address space, more than is worth filling
    const int64_t span = std::abs(stride) * below + row;
    std::vector<uint8_t> pixels(static_cast<size_t>(span));
    for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = data[kHead + i % (size - kHead)];
    const fuzz::ExactCopy copy(pixels.data(), pixels.size());
    image.data = copy.bytes().data() + (stride < 0 ? -stride * below : 0);
    std::vector<float> network_input(kImageElements);
    const Digest digest = preprocess(image, network_input.data());
    for (float x : network_input)
        if (!(x > -3 && x < 3)) std::abort();  // (0 - 0.485) / 0.229 to (1 - 0.406) / 0.225
    if (preprocess(image, nullptr) != digest) std::abort();
    return 0;
}
