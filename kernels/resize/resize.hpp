// Bilinear resize of 8-bit images, antialiased when it shrinks, with Pillow's bits.
#pragma once

#include <cstdint>

namespace fusedx {

struct Pixels {  // a view of uint8 [height, width, channels]; strides in bytes, of any sign
    const uint8_t* data;
    int64_t height, width, channels;
    int64_t row_stride, column_stride, channel_stride;
};

// to: contiguous uint8 [height, width, pixels.channels]
void resize_bilinear(const Pixels& pixels, int64_t height, int64_t width, uint8_t* to);

}  // namespace fusedx
