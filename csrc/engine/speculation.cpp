#include "engine/speculation.hpp"

#include <cmath>
#include <cstring>
#include <numeric>

namespace fusedx {
namespace {

constexpr int64_t kAhead = 4;        // steps past the front, for each row of a sweep, among which those without a right eps are sought
constexpr double kForget = 0.5;      // weight of what was known before in every mean that a chain keeps
constexpr double kLeastMove = 1e-4;  // of a state, below which rounding to the grid drowns what eps did
constexpr double kLeastBlend = -0.5, kMostBlend = 1.5;

int64_t window_for(int64_t steps, int64_t rows) { return std::min(steps, kAhead * rows); }

}  // namespace

Speculation::Speculation(const Process& process, int state_bits, int64_t first, int64_t chains, double* state, int64_t rows,
                         double least_gain, const KeptStates& kept)
    : process_(process), bits_(state_bits), first_(first), rows_(rows), window_(window_for(process.steps, rows)), least_gain_(least_gain),
      kept_(kept), state_(state), chains_(chains), held_eps_(chains * window_ * process.classes),
      held_seen_(chains * window_ * process.classes), recent_eps_(chains * process.classes), y_(process.classes),
      guessed_(process.classes) {
    gathered_.reserve(std::max(rows, chains));
}

int64_t Speculation::bytes(int64_t classes, int64_t steps, int64_t chains, int64_t rows) {
    return chains * ((window_for(steps, rows) * 12 + 8) * classes + static_cast<int64_t>(sizeof(OneChain))) +
           std::max(rows, chains) * static_cast<int64_t>(sizeof(Row));
}

int64_t Speculation::slowest() const {
    int64_t front = process_.steps;
    for (const OneChain& chain : chains_) front = std::min(front, chain.front);
    return front;
}

int64_t Speculation::gather(const SweepRows& rows) {
    gathered_.clear();
    int64_t unfinished = 0, gained = 0;
    for (const OneChain& chain : chains_) unfinished += chain.front < process_.steps;
    const int64_t working = unfinished;
    for (int64_t chain = 0; chain < static_cast<int64_t>(chains_.size()); ++chain) {
        if (chains_[chain].front == process_.steps) continue;
        // What a chain leaves of its share goes to those after it.
        const int64_t share = (rows_ - static_cast<int64_t>(gathered_.size())) / unfinished--;
        gained += walk(chain, sequential_ ? 1 : std::max<int64_t>(1, share), rows);
    }
    if (sweep_++ > 0) look_at_gain(gained, working);
    return static_cast<int64_t>(gathered_.size());
}

// From the chain's front on: steps whose eps is held for exactly the state that they now have, `share` others which join the sweep and
// take a guess meanwhile.  The front follows as long as nothing was guessed.  Returns by how many steps.
int64_t Speculation::walk(int64_t chain, int64_t share, const SweepRows& rows) {
    const int64_t classes = process_.classes;
    OneChain& own = chains_[chain];
    double *const y = y_.data(), *const known = state_ + chain * classes;
    std::copy_n(known, classes, y);
    const int64_t from = own.front;
    bool all_known = true;
    int64_t joined = 0;
    for (int64_t i = from; i < std::min(process_.steps, own.front + kAhead * share); ++i) {  // (so an unfinished chain always has a row)
        const int64_t row = static_cast<int64_t>(gathered_.size());
        float* const seen = rows.y + row * classes;  // taken if the step joins
        for (int64_t c = 0; c < classes; ++c) seen[c] = static_cast<float>(on_grid(y[c], bits_));
        const double* eps;
        if (i < own.evaluated && std::memcmp(seen, seen_by(chain, i), classes * sizeof(float)) == 0) {
            eps = eps_of(chain, i);
        } else {
            rows.step[row] = static_cast<int32_t>(process_.table_row(i));
            rows.entry[row] = static_cast<int32_t>(process_.entry(first_ + chain));
            gathered_.push_back({chain, i});
            all_known = false;
            if (++joined == share) break;
            guess(chain, i, y, guessed_.data());
            eps = guessed_.data();
        }
        process_.update(first_ + chain, i, y, eps, y);
        if (!all_known) continue;
        std::copy_n(y, classes, known);
        own.front = i + 1;
        kept_.put(process_, own.front, first_ + chain, y);
    }
    own.counts.sweeps += joined > 0, own.counts.evaluations += static_cast<int32_t>(joined);
    return own.front - from;
}

// eps of step i at state y, from the eps that was evaluated last, at this step or, of a step that never was, at those before it: their
// mean, since steps have embeddings of their own, which may have nothing to do with each other.  Between two extremes: eps has not
// changed; or the clean state y0 that it estimates has not,
//   y = q y0 + (1 - q) p + s eps   in DiffMIC's chain,
// as of a denoiser that knows the answer.  Where between them, `blend`, is fitted to what eps did as states moved in recent sweeps.
// DiffMIC-v2's chain is ten steps of a clamped estimate, where a fit comes late and the clamp hides y0: there eps is held.
void Speculation::guess(int64_t chain, int64_t i, const double* y, double* eps) {
    const int64_t classes = process_.classes;
    const OneChain& own = chains_[chain];
    const int64_t j = std::min(i, own.evaluated - 1);
    if (j < 0) return static_cast<void>(std::fill_n(eps, classes, 0.0));
    std::copy_n(i < own.evaluated ? eps_of(chain, j) : &recent_eps_[chain * classes], classes, eps);
    if (own.blend == 0) return;
    const double *const now = process_.step_coefficients(i), *const then = process_.step_coefficients(j);  // q, s, ...
    const double* const p = process_.mean + process_.entry(first_ + chain) * classes;
    const float* const at = seen_by(chain, j);
    for (int64_t c = 0; c < classes; ++c) {
        const double y0 = (at[c] - (1 - then[0]) * p[c] - then[1] * eps[c]) / then[0];
        const double held = (y[c] - (1 - now[0]) * p[c] - now[0] * y0) / now[1];
        eps[c] += own.blend * (held - eps[c]);
    }
}

void Speculation::scatter(const SweepRows& rows, const double* eps) {
    const int64_t classes = process_.classes, count = static_cast<int64_t>(gathered_.size());
    for (int64_t row = 0; row < count;) {
        OneChain& own = chains_[gathered_[row].chain];
        const int64_t chain = gathered_[row].chain;
        double points = 0, slope = 0;
        int64_t evaluated = own.evaluated;
        for (; row < count && gathered_[row].chain == chain; ++row) {
            const int64_t i = gathered_[row].step;
            const float *const seen = rows.y + row * classes, *const before = seen_by(chain, i);
            const double *const now = eps + row * classes, *const then = eps_of(chain, i);
            if (i < own.evaluated && process_.family == Family::posterior) {
                double largest = 0, along = 0, square = 0;
                for (int64_t c = 0; c < classes; ++c) {
                    const double dy = static_cast<double>(seen[c]) - before[c];
                    largest = std::max(largest, std::fabs(dy)), square += dy * dy, along += dy * (now[c] - then[c]);
                }
                const double found = process_.step_coefficients(i)[1] * along / square;
                if (largest > kLeastMove && std::isfinite(found)) points += 1, slope += found;
            }
            if (i >= own.evaluated) {
                double* const recent = &recent_eps_[chain * classes];
                const double keep = i == 0 ? 0 : kForget;
                for (int64_t c = 0; c < classes; ++c)  // (a guess that overflows must not spoil those to come)
                    if (std::isfinite(now[c])) recent[c] = keep * recent[c] + (1 - keep) * now[c];
            }
            std::copy_n(now, classes, eps_of(chain, i));
            std::copy_n(seen, classes, seen_by(chain, i));
            evaluated = std::max(evaluated, i + 1);
        }
        own.evaluated = evaluated;
        if (points == 0) continue;
        own.points = kForget * own.points + points, own.slope = kForget * own.slope + slope;
        own.blend = std::clamp(own.slope / own.points, kLeastBlend, kMostBlend);
    }
}

void Speculation::look_at_gain(int64_t gained, int64_t working) {
    if (sequential_ || !(least_gain_ > 0)) return;
    const int64_t at = (sweep_ - 2) % 8;
    recent_[0][at] = gained, recent_[1][at] = working;
    if (sweep_ < 9) return;
    const double steps = static_cast<double>(std::accumulate(recent_[0], recent_[0] + 8, int64_t{0}));
    const double sweeps = static_cast<double>(std::accumulate(recent_[1], recent_[1] + 8, int64_t{0}));
    if (steps >= least_gain_ * sweeps) return;
    sequential_ = true;
    for (OneChain& chain : chains_) chain.counts.sequential_steps = static_cast<int32_t>(process_.steps - chain.front);
}

}  // namespace fusedx
