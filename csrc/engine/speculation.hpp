// Parallel in time: many steps of a chain are evaluated at once, at guessed states, and what was guessed right is kept.
//
// The denoiser sees states on a grid (kernels/step/step.hpp), so a guess is right when it falls on the very numbers that the sequential
// chain gives the denoiser.  Then its eps is the sequential chain's own, and so is everything computed from it: the result has the
// sequential chain's bits, whatever was guessed.  A chain's first unknown step is always evaluated at its true state, so every sweep
// takes each chain at least one step further; at worst this is the sequential chain with rows to spare.
//
// A sweep: gather() writes rows, the caller evaluates them, scatter() takes their eps.  The idea of iterating all steps of a sampler at
// once is that of ParaDiGMS (arXiv 2305.16317); here the update between evaluations is exact, and so is the end.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/process.hpp"

namespace fusedx {

// Where the states of a run are written as they become known, or nowhere.
struct KeptStates {
    double* to;  // [T + 1, chains, C], or [2, chains, C]: the ends alone
    int64_t chains;
    bool ends_only;

    void put(const Process& process, int64_t i, int64_t chain, const double* y) const {
        if (!to || (ends_only && i != 0 && i != process.steps)) return;
        const int64_t slot = ends_only ? i / process.steps : i;
        std::copy_n(y, process.classes, to + (slot * chains + chain) * process.classes);
    }
};

// Rows of one sweep: y [R, C] on the grid, row of the timestep tables [R], entry of the condition [R].
struct SweepRows {
    float* y;
    int32_t *step, *entry;
};

class Speculation {
public:
    // Chains first, first + 1, ... of the process.  state [chains, C]: each chain's start, and from then on its newest known state.
    // rows: of a sweep, shared out evenly, at least one a chain.  least_gain: see RunOptions.
    Speculation(const Process& process, int state_bits, int64_t first, int64_t chains, double* state, int64_t rows, double least_gain,
                const KeptStates& kept);

    // Writes the next sweep's rows and returns how many, at most max(rows, chains); 0: every chain is at its end.
    int64_t gather(const SweepRows& rows);
    void scatter(const SweepRows& rows, const double* eps);  // the same rows, and their eps [R, C]

    // Of chain `chain`, counted from `first`.
    struct Counts {
        int32_t sweeps = 0, evaluations = 0;  // sweeps that had rows of it; its rows in all
        int32_t sequential_steps = 0;         // steps that were left when the rest was run one by one, for want of gain
    };
    const Counts& counts(int64_t chain) const { return chains_[chain].counts; }
    int64_t slowest() const;  // steps known of the chain that is furthest behind

    static int64_t bytes(int64_t classes, int64_t steps, int64_t chains, int64_t rows);

private:
    struct OneChain {
        int64_t front = 0;            // steps whose states are known; `state_` holds the last of them
        int64_t evaluated = 0;        // steps that have been evaluated at some state: all of them before this one
        double blend = 0;             // lambda of the guess, fitted:
        double points = 0, slope = 0; // what the fit has seen, older sweeps weighing less
        Counts counts;
    };
    struct Row { int64_t chain, step; };

    double* eps_of(int64_t chain, int64_t i) { return &held_eps_[(chain * window_ + i % window_) * process_.classes]; }
    float* seen_by(int64_t chain, int64_t i) { return &held_seen_[(chain * window_ + i % window_) * process_.classes]; }
    int64_t walk(int64_t chain, int64_t share, const SweepRows& rows);
    void guess(int64_t chain, int64_t i, const double* y, double* eps);
    void look_at_gain(int64_t gained, int64_t working);

    const Process process_;
    const int bits_;
    const int64_t first_, rows_, window_;
    const double least_gain_;
    const KeptStates kept_;
    double* const state_;
    std::vector<OneChain> chains_;
    std::vector<double> held_eps_;  // [chains, window, C], step i at i % window: the eps that was evaluated last
    std::vector<float> held_seen_;  // and the state on the grid that it was evaluated at
    std::vector<double> recent_eps_;  // [chains, C]: of new steps, later ones weighing more
    std::vector<Row> gathered_;     // of the sweep under way
    std::vector<double> y_, guessed_;  // [C]
    int64_t recent_[2][8] = {}, sweep_ = 0;  // steps gained and chains at work, of the last sweeps
    bool sequential_ = false;
};

}  // namespace fusedx
