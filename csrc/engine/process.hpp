// What a chain is: how it starts, the mean and noise that each of its steps uses, and the update itself.
//
// A sample is a (draw, image) pair, number draw * B + image.  A chain is one row of the denoiser: DiffMIC has one a sample, DiffMIC-v2
// six, one for each distinct |i - j| of its 6x6 map, which never meet before the map's mean is taken.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/chain.hpp"
#include "step/step.hpp"

namespace fusedx {

constexpr int64_t points_of(Family family) { return family == Family::ddim ? kMapPoints : 1; }

// [C], [C] -> [C]: point `point` of the map, (1 - d) a + d b with d = point / 5; d and 1 - d are float32 values, as published.
void dense_point(const double* at_zero, const double* at_one, int64_t classes, int64_t point, double* to);

// [6, C] -> [C]: the mean over the 36 points of the map, summed in a fixed order.
void map_mean(const double* points, int64_t classes, double* mean);

struct Process {
    Family family;
    int64_t classes, steps;      // C, T
    const double* coefficients;  // [T, kCoefficients[family]]
    const double* mean;          // [entries, C], what posterior chains run towards: the prior, or zeros (noise_prior)
    const double* noise;         // posterior [T, samples, C]; ddim [2, samples, C]
    int64_t samples, entries;    // of the whole run; an entry of the condition is an image, for ddim an (image, point)

    int64_t points() const { return points_of(family); }
    int64_t entry(int64_t chain) const { return chain % entries; }

    // DiffMIC's chain goes down the timestep tables from their last row, DiffMIC-v2's tables are in the order of its steps.
    int64_t table_row(int64_t i) const { return family == Family::ddim ? i : steps - 1 - i; }
    const double* step_coefficients(int64_t i) const { return coefficients + table_row(i) * kCoefficients[static_cast<int>(family)]; }

    // The state [C] of chain `chain` before step 0.
    void start(int64_t chain, double* y) const;

    // Step i: y, eps [C] -> the state after it; y and next may be the same.
    void update(int64_t chain, int64_t i, const double* y, const double* eps, double* next) const {
        const double* const k = step_coefficients(i);
        if (family == Family::ddim) {
            for (int64_t c = 0; c < classes; ++c) next[c] = ddim_step(k, y[c], eps[c]);
            return;
        }
        const double* const p = mean + entry(chain) * classes;
        if (i + 1 == steps) {
            for (int64_t c = 0; c < classes; ++c) next[c] = posterior_last_step(k, y[c], eps[c], p[c]);
            return;
        }
        const double* const z = noise + ((i + 1) * samples + chain) * classes;
        for (int64_t c = 0; c < classes; ++c) next[c] = posterior_step(k, y[c], eps[c], p[c], z[c]);
    }
};

}  // namespace fusedx
