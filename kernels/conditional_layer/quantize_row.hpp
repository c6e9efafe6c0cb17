// A row of inputs in 8 bits: u[k] = step * (x[k] - zero) to half a step, x in [0, 255].
//
// step and zero are of the row's own least and greatest element, zero counted in, so that 0 is exact; a row knows nothing of its neighbours.
//   step = max / 255 - min / 255        two quotients, since the difference of two floats may be infinite
//   zero = round(-min / step),  x[k] = round(u[k] / step) + zero, both kept within 0 to 255;  / step is * (1 / step), rounding to even
// A row whose step would be subnormal, all elements below 3e-36, is taken as zeros.  A row with an element that is not finite gets
// a step that is not a number, and with it outputs that are none: an error that shows, in this row alone.
#pragma once

#include "runtime/vec.hpp"

namespace fusedx::FUSEDX_ISA {
namespace {

struct Extremes { float least, greatest; bool finite; };  // of the elements and 0

inline Extremes extremes(const float* u, int64_t count) {
    vec low{}, high{};
    ivec magnitude{};  // as bits, among which infinity and what is not a number come last
    const auto take = [&](vec x) {
        const ivec bits = (ivec)x & all(INT32_MAX);
        low = x < low ? x : low;
        high = x > high ? x : high;
        magnitude = bits > magnitude ? bits : magnitude;
    };
    int64_t k = 0;
    for (; k + kLanes <= count; k += kLanes) take(load(u + k));
    if (k < count) {
        vec last{};
        std::memcpy(&last, u + k, (count - k) * sizeof(float));
        take(last);
    }
    Extremes e{0.0f, 0.0f, true};
    for (int i = 0; i < kLanes; ++i) {
        e.least = low[i] < e.least ? low[i] : e.least;
        e.greatest = high[i] > e.greatest ? high[i] : e.greatest;
        e.finite = e.finite && magnitude[i] < 0x7f800000;
    }
    return e;
}

typedef uint8_t byte_vec __attribute__((vector_size(kBytes / 4)));

// One row's rounding: made of all its elements, then applied to any piece of them.
class RowQuantizer {
public:
    RowQuantizer(const float* u, int64_t count) {
        constexpr float kLeastNormal = 1.17549435e-38f;
        const Extremes e = extremes(u, count);
        const float step = e.greatest / 255.0f - e.least / 255.0f;
        if (!e.finite) step_ = __builtin_nanf("");
        if (!e.finite || step < kLeastNormal) return;
        step_ = step;
        inverse_ = 1.0f / step;
        const float shifted = -e.least * inverse_ + kRound;
        zero_ = shifted < kRound + 255.0f ? static_cast<int32_t>(shifted - kRound) : 255;
    }

    float step() const { return step_; }
    int32_t zero() const { return zero_; }

    // u [count] -> x [count], each less `offset` modulo 256.
    void quantize(const float* u, int64_t count, int offset, uint8_t* x) const {
        if (inverse_ == 0) {
            std::memset(x, (256 - offset) & 255, count);
            return;
        }
        int64_t k = 0;
        for (; k + kLanes <= count; k += kLanes) {
            const byte_vec q = bytes(load(u + k), offset);
            std::memcpy(x + k, &q, sizeof q);
        }
        if (k == count) return;
        vec last{};
        std::memcpy(&last, u + k, (count - k) * sizeof(float));
        const byte_vec q = bytes(last, offset);
        std::memcpy(x + k, &q, count - k);
    }

private:
    static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number

    byte_vec bytes(vec u, int32_t offset) const {
        ivec q = (ivec)(u * all(inverse_) + all(kRound)) - (ivec)all(kRound) + all(zero_);
        q = q < all(0) ? all(0) : q;
        q = q > all(255) ? all(255) : q;
        return __builtin_convertvector(q - all(offset), byte_vec);
    }

    float step_ = 0, inverse_ = 0;  // inverse_ is 0 where every element becomes 0
    int32_t zero_ = 0;
};

}  // namespace
}  // namespace fusedx::FUSEDX_ISA
