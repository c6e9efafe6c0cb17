// Two passes, each rounded to 8 bits: across the rows, then down the columns.  See reference.py for the arithmetic.
#include "resize.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace fusedx {
namespace {

constexpr int kBits = 32 - 8 - 2;  // fixed point: 8 bits of pixel, 2 of headroom, the rest for the weight

struct Taps {  // output x is the sum of weight[x * most + i] * input[first[x] + i] over i in [0, count[x])
    int64_t most;
    std::vector<int64_t> first, count;
    std::vector<int32_t> weight;
};

Taps triangle_taps(int64_t from, int64_t to) {
    const double scale = static_cast<double>(from) / static_cast<double>(to);
    const double support = std::max(scale, 1.0);  // half the width of the triangle, in input pixels
    const double narrow = 1.0 / support;
    Taps taps{2 * static_cast<int64_t>(std::ceil(support)) + 1, {}, {}, {}};
    taps.first.resize(to), taps.count.resize(to), taps.weight.resize(to * taps.most);
    std::vector<double> w(taps.most);
    for (int64_t x = 0; x < to; ++x) {
        const double centre = (static_cast<double>(x) + 0.5) * scale;
        const int64_t begin = std::max<int64_t>(0, static_cast<int64_t>(centre - support + 0.5));
        const int64_t end = std::min<int64_t>(from, static_cast<int64_t>(centre + support + 0.5));
        double sum = 0.0;
        for (int64_t i = begin; i < end; ++i) {
            const double distance = std::fabs((static_cast<double>(i) - centre + 0.5) * narrow);
            w[i - begin] = distance < 1.0 ? 1.0 - distance : 0.0;
            sum += w[i - begin];
        }
        taps.first[x] = begin, taps.count[x] = end - begin;
        for (int64_t i = 0; i < end - begin; ++i)  // weights are never negative, so this rounds half up
            taps.weight[x * taps.most + i] = static_cast<int32_t>((sum != 0.0 ? w[i] / sum : w[i]) * (1 << kBits) + 0.5);
    }
    return taps;
}

uint8_t to_byte(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

template <int C>  // channels
void across(const Pixels& from, const uint8_t* row, const Taps& taps, uint8_t* to, int64_t width) {
    for (int64_t x = 0; x < width; ++x) {
        int32_t sum[C];
        for (int c = 0; c < C; ++c) sum[c] = 1 << (kBits - 1);
        const uint8_t* pixel = row + taps.first[x] * from.column_stride;
        const int32_t* weight = &taps.weight[x * taps.most];
        for (int64_t i = 0; i < taps.count[x]; ++i, pixel += from.column_stride)
            for (int c = 0; c < C; ++c) sum[c] += weight[i] * pixel[c * from.channel_stride];
        for (int c = 0; c < C; ++c) *to++ = to_byte(sum[c]);
    }
}

}  // namespace

void resize_bilinear(const Pixels& from, int64_t height, int64_t width, uint8_t* to) {
    const int64_t bytes = width * from.channels;  // of a row after the first pass
    const Taps columns = triangle_taps(from.width, width), rows = triangle_taps(from.height, height);
    std::vector<uint8_t> narrow(from.height * bytes);
    for (int64_t y = 0; y < from.height; ++y) {
        const uint8_t* row = from.data + y * from.row_stride;
        (from.channels == 1 ? across<1> : across<3>)(from, row, columns, &narrow[y * bytes], width);
    }
    std::vector<int32_t> sum(bytes);
    for (int64_t y = 0; y < height; ++y, to += bytes) {
        std::fill(sum.begin(), sum.end(), 1 << (kBits - 1));
        for (int64_t i = 0; i < rows.count[y]; ++i) {
            const int32_t weight = rows.weight[y * rows.most + i];
            const uint8_t* row = &narrow[(rows.first[y] + i) * bytes];
            for (int64_t x = 0; x < bytes; ++x) sum[x] += weight * row[x];
        }
        for (int64_t x = 0; x < bytes; ++x) to[x] = to_byte(sum[x]);
    }
}

}  // namespace fusedx
