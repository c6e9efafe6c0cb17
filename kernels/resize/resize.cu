// One 8-bit frame on the GPU to the network's input: resize with Pillow's bits, then normalise.  The arithmetic of reference.py,
// in two kernels without any framework; cuda.py says how to launch them.
//
//     narrow[y,c,x] = round8(sum_i weight[i,x] * pixels[y, first[x] + i, c])            across the rows
//     out[c,y,x]    = values[c, round8(sum_i weight[i,y] * narrow[first[y] + i, c, x])]      down the columns
//
// first int32 [size] and weight int32 [most, size] are plan.py's table.  Taps past the line have weight zero and are not read.
#include <cstdint>

namespace {

constexpr int kBits = 32 - 8 - 2;  // fixed point: 8 bits of pixel, 2 of headroom, the rest for the weight
constexpr int32_t kHalf = 1 << (kBits - 1);

// Weights are never negative and sum to 2^22 within their rounding: nothing to clamp below, and int32 does not overflow.
__device__ inline uint8_t round8(int32_t sum) {
    const int32_t level = sum >> kBits;
    return static_cast<uint8_t>(level > 255 ? 255 : level);
}

}  // namespace

// pixels: uint8 [side, side, 3], strides in bytes (channel_stride 0: grey).  narrow: uint8 [side, 3, size], contiguous.
// One thread an (x, y), with all channels; grid (side, ceil(size / threads)).
extern "C" __global__ void fusedx_resize_across(const uint8_t* pixels, int64_t row_stride, int64_t column_stride,
                                                int64_t channel_stride, int32_t side, const int32_t* first,
                                                const int32_t* weight, int32_t most, int32_t size, uint8_t* narrow) {
    const int32_t y = static_cast<int32_t>(blockIdx.x);
    const int32_t x = static_cast<int32_t>(blockIdx.y * blockDim.x + threadIdx.x);
    if (x >= size) return;
    const int32_t begin = first[x], taps = min(most, side - begin);
    const uint8_t* pixel = pixels + y * row_stride + begin * column_stride;
    int32_t sum[3] = {kHalf, kHalf, kHalf};
    for (int32_t i = 0; i < taps; ++i, pixel += column_stride) {
        const int32_t w = weight[i * size + x];
        for (int c = 0; c < 3; ++c) sum[c] += w * pixel[c * channel_stride];
    }
    uint8_t* to = narrow + static_cast<int64_t>(y) * 3 * size + x;
    for (int c = 0; c < 3; ++c) to[c * size] = round8(sum[c]);
}

// values: float32 [3, 256], what each level becomes in each channel.  out: float32 [3, size, size], contiguous.
// One thread an output; grid (size, ceil(size / threads), 3).
extern "C" __global__ void fusedx_resize_down(const uint8_t* narrow, int32_t side, const int32_t* first, const int32_t* weight,
                                              int32_t most, int32_t size, const float* values, float* out) {
    const int32_t y = static_cast<int32_t>(blockIdx.x), channel = static_cast<int32_t>(blockIdx.z);
    const int32_t x = static_cast<int32_t>(blockIdx.y * blockDim.x + threadIdx.x);
    if (x >= size) return;
    const int32_t begin = first[y], taps = min(most, side - begin);
    const uint8_t* level = narrow + (static_cast<int64_t>(begin) * 3 + channel) * size + x;
    int32_t sum = kHalf;
    for (int32_t i = 0; i < taps; ++i, level += 3 * size) sum += weight[i * size + y] * *level;
    out[(static_cast<int64_t>(channel) * size + y) * size + x] = values[channel * 256 + round8(sum)];
}
