#include "engine/sampler_choice.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace fusedx {
namespace {

// Milliseconds of one evaluation at F = 6144 on two cores of a Zen 4 processor (AVX-512, VNNI), by rows; a narrower denoiser's are in
// proportion, and only proportions count here.
constexpr std::array<double, 12> kRows = {1, 4, 8, 12, 14, 16, 20, 24, 32, 48, 64, 128};
constexpr std::array<double, 12> kTimes[] = {
    {8.4, 8.4, 8.6, 8.9, 10.0, 11.6, 14.2, 17.4, 22.6, 33.8, 46.2, 93.6},   // fp32
    {4.7, 4.9, 6.6, 9.6, 10.8, 12.8, 15.4, 18.7, 25.0, 37.1, 49.9, 99.7},   // bf16
    {4.5, 4.8, 6.6, 9.3, 10.5, 13.0, 15.5, 18.4, 24.7, 36.7, 48.4, 97.9},   // fp16
    {1.8, 1.9, 2.3, 2.7, 3.1, 3.4, 4.5, 5.4, 7.1, 10.7, 14.2, 30.0},        // int8
    {0.6, 1.1, 1.9, 2.9, 3.4, 3.8, 4.7, 5.8, 7.5, 11.7, 15.2, 30.8},        // int4
};
constexpr int64_t kSweeps[] = {8, 12, 14, 16, 20, 24, 32, 48, 64, 96, 128};  // rows that are considered

// How much longer the arithmetic of a row takes than on that machine, by what each instruction set does at once; not measured.
double arithmetic(WeightFormat weights, Isa isa) {
    const bool integer = weights == WeightFormat::int8 || weights == WeightFormat::int4;
    switch (isa) {
        case Isa::avx512vnni:
        case Isa::amx: return 1;
        case Isa::avx512: return integer ? 3 : 1;
        case Isa::avxvnni: return 2;
        case Isa::avx2: return integer ? 6 : 2;
        case Isa::neondot: return 4;
        case Isa::neon: return integer ? 12 : 4;
        default: return 50;
    }
}

// T steps take T / (a r^b) + c sweeps with r rows of a chain in each: fitted to a trained full-width denoiser, engine/sampler/cost.py, GAIN.
double sweeps(WeightFormat weights, int64_t rows, int64_t steps) {
    const bool integer = weights == WeightFormat::int8 || weights == WeightFormat::int4;
    const double a = integer ? 0.77 : 0.60, b = integer ? 0.87 : 0.85, c = integer ? 7.0 : 8.0, t = static_cast<double>(steps);
    return std::min(std::max(2.0, t / std::max(1.0, a * std::pow(static_cast<double>(rows), b)) + c), t);
}

}  // namespace

double evaluation_ms(WeightFormat weights, Isa isa, int64_t rows) {
    const std::array<double, 12>& times = kTimes[static_cast<int>(weights)];
    const double r = static_cast<double>(rows);
    const size_t above = std::min<size_t>(std::upper_bound(kRows.begin(), kRows.end(), r) - kRows.begin(), kRows.size() - 1);
    const double from = kRows[above - 1], to = kRows[above];
    const double here = r >= to ? times[above] * r / to : times[above - 1] + (times[above] - times[above - 1]) * (r - from) / (to - from);
    // On slower arithmetic a row's own time comes to count sooner: 1/128 of that of 128 rows.
    return std::max(here, arithmetic(weights, isa) * times.back() / kRows.back() * r);
}

SamplerPlan choose_sampler(const SamplerWish& wish, WeightFormat weights, Isa isa, int64_t steps, int64_t chains) {
    if (wish.kind == SamplerKind::sequential || steps < 2 || chains < 1) return {};
    const auto seconds = [&](int64_t rows) {
        const int64_t each = std::clamp<int64_t>(rows / chains, 1, steps);
        return sweeps(weights, each, steps) * evaluation_ms(weights, isa, each * chains);
    };
    int64_t best = wish.rows;
    for (const int64_t rows : kSweeps)
        if (wish.rows == 0 && rows >= 2 * chains && (best == 0 || seconds(rows) < seconds(best))) best = rows;
    if (wish.kind == SamplerKind::parallel) return {best > 0 ? best : 2 * chains, 0};
    const double one = evaluation_ms(weights, isa, chains);
    if (best == 0 || seconds(best) >= static_cast<double>(steps) * one) return {};
    return {best, evaluation_ms(weights, isa, best) / one};
}

}  // namespace fusedx
