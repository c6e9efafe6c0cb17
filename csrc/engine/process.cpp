#include "engine/process.hpp"

namespace fusedx {

void dense_point(const double* at_zero, const double* at_one, int64_t classes, int64_t point, double* to) {
    const float d = static_cast<float>(point) / static_cast<float>(kMapPoints - 1);
    const double near = 1.0f - d, far = d;
    for (int64_t c = 0; c < classes; ++c) to[c] = near * at_zero[c] + far * at_one[c];
}

void map_mean(const double* points, int64_t classes, double* mean) {
    constexpr int64_t kPointCounts[kMapPoints] = {6, 10, 8, 6, 4, 2};  // how many of the 36 points of the map have each |i - j|
    for (int64_t c = 0; c < classes; ++c) {
        double total = 0;
        for (int64_t p = 0; p < kMapPoints; ++p) total = total + static_cast<double>(kPointCounts[p]) * points[p * classes + c];
        mean[c] = total / 36.0;
    }
}

void Process::start(int64_t chain, double* y) const {
    if (family == Family::ddim) {
        const double* const z = noise + chain / kMapPoints * classes;
        return dense_point(z, z + samples * classes, classes, chain % kMapPoints, y);
    }
    const double* const p = mean + entry(chain) * classes;
    const double* const z = noise + chain * classes;
    for (int64_t c = 0; c < classes; ++c) y[c] = p[c] + z[c];
}

}  // namespace fusedx
