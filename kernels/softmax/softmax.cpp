// Only + - * /, in the order of reference.py and never contracted, so both give the same bits everywhere.
#include "softmax.hpp"

#include <bit>
#include <cmath>

namespace fusedx {
namespace {

constexpr double kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33, kPerLn2 = 0x1.71547652b82fep+0, kLeast = -708.0;
constexpr int kDegree = 13;

// 1 / degree!, of which both operands are exact.
constexpr double reciprocal_factorial(int degree) {
    double product = 1.0;
    for (int i = 2; i <= degree; ++i) product *= i;
    return 1.0 / product;
}

// exp(x) for x <= 0: x = k ln 2 + r, |r| <= ln 2 / 2.
double exp_negative(double x) {
    if (!(x >= kLeast)) return x != x ? x : 0.0;
    const double k = std::floor(x * kPerLn2 + 0.5);
    const double r = (x - k * kLn2High) - k * kLn2Low;
    double p = reciprocal_factorial(kDegree);
    for (int degree = kDegree - 1; degree > 1; --degree) p = p * r + reciprocal_factorial(degree);
    const double power = std::bit_cast<double>(static_cast<uint64_t>(static_cast<int64_t>(k) + 1023) << 52);
    return (1.0 + (r + r * r * p)) * power;
}

}  // namespace

void softmax(const double* scores, int64_t classes, double* out) {
    double largest = scores[0];
    for (int64_t c = 1; c < classes; ++c)
        if (scores[c] > largest || scores[c] != scores[c]) largest = scores[c];
    double total = 0.0;
    for (int64_t c = 0; c < classes; ++c) total = total + (out[c] = exp_negative(scores[c] - largest));
    for (int64_t c = 0; c < classes; ++c) out[c] = out[c] / total;
}

double sigmoid(double x) {
    const double e = exp_negative(x < 0 ? x : -x);
    return (x < 0 ? e : 1.0) / (1.0 + e);
}

}  // namespace fusedx
