// 16-bit grey is scaled to 8 bits by its own range, grey is repeated to RGB, the centre square is cut out and resized on 8-bit
// values, and each level becomes (u / 255 - mean) / std with every operation rounded to float32.
#include "preprocess.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "resize/resize.hpp"

namespace fusedx {
namespace {

constexpr float kMean[3] = {0.485f, 0.456f, 0.406f}, kStd[3] = {0.229f, 0.224f, 0.225f};

struct LevelValues {
    float value[3][256];
    LevelValues() {
        for (int c = 0; c < 3; ++c)
            for (int u = 0; u < 256; ++u) {
                const float scaled = static_cast<float>(u) / 255.0f;
                value[c][u] = (scaled - kMean[c]) / kStd[c];
            }
    }
};

const uint8_t* row(const ImageView& image, int64_t y) { return static_cast<const uint8_t*>(image.data) + y * image.stride(); }

// What each 16-bit level becomes: (v - low) / (high - low) * 255, clipped and rounded half to even; a constant image is 0.
std::vector<uint8_t> stretch_table(const ImageView& image) {
    uint16_t low = UINT16_MAX, high = 0;
    for (int64_t y = 0; y < image.height; ++y) {
        const uint8_t* pixels = row(image, y);
        for (int64_t x = 0; x < image.width; ++x) {
            uint16_t v;
            std::memcpy(&v, pixels + 2 * x, 2);
            low = std::min(low, v), high = std::max(high, v);
        }
    }
    std::vector<uint8_t> table(1 << 16);
    if (high > low)
        for (int v = low; v <= high; ++v) {
            const double shade = (static_cast<double>(v) - low) / (static_cast<double>(high) - low) * 255.0;
            table[v] = static_cast<uint8_t>(std::nearbyint(std::clamp(shade, 0.0, 255.0)));
        }
    return table;
}

// 16-bit grey -> uint8 [H, W] without gaps.
std::vector<uint8_t> to_gray8(const ImageView& image) {
    const std::vector<uint8_t> table = stretch_table(image);
    std::vector<uint8_t> gray(image.width * image.height);
    for (int64_t y = 0; y < image.height; ++y) {
        const uint8_t* pixels = row(image, y);
        for (int64_t x = 0; x < image.width; ++x) {
            uint16_t v;
            std::memcpy(&v, pixels + 2 * x, 2);
            gray[y * image.width + x] = table[v];
        }
    }
    return gray;
}

// Of the 8-bit RGB form, so that grey and its RGB copy have the same noise.
Digest digest_of(const ImageView& image) {
    Sha256 sha;
    const bool grey = image.format == PixelFormat::gray8;
    std::vector<uint8_t> rgb(grey ? 3 * image.width : 0);
    for (int64_t y = 0; y < image.height; ++y) {
        const uint8_t* pixels = row(image, y);
        for (int64_t x = 0; grey && x < image.width; ++x) rgb[3 * x] = rgb[3 * x + 1] = rgb[3 * x + 2] = pixels[x];
        sha.update(grey ? rgb.data() : pixels, 3 * image.width);
    }
    return sha.finish();
}

// Half of an odd difference is rounded to even, as torchvision does.
int64_t corner(int64_t side, int64_t square) {
    const int64_t difference = side - square, half = difference / 2;
    return difference % 2 ? half + half % 2 : half;
}

// 8-bit RGB or grey -> float32 [3, 224, 224].
void to_input(const ImageView& image, float* to) {
    static const LevelValues levels;
    const int64_t side = std::min(image.width, image.height), channels = image.format == PixelFormat::rgb8 ? 3 : 1;
    const uint8_t* first = row(image, corner(image.height, side)) + corner(image.width, side) * channels;
    std::vector<uint8_t> small(kImageSize * kImageSize * channels);
    resize_bilinear({first, side, side, channels, image.stride(), channels, 1}, kImageSize, kImageSize, small.data());
    for (int64_t c = 0; c < 3; ++c)
        for (int64_t i = 0; i < kImageSize * kImageSize; ++i) *to++ = levels.value[c][small[i * channels + (channels == 3 ? c : 0)]];
}

}  // namespace

Digest preprocess(const ImageView& image, float* to) {
    std::vector<uint8_t> gray;
    ImageView view = image;
    if (image.format == PixelFormat::gray16) {
        gray = to_gray8(image);
        view = {gray.data(), image.width, image.height, 0, PixelFormat::gray8};
    }
    if (to != nullptr) to_input(view, to);
    return digest_of(view);
}

}  // namespace fusedx
