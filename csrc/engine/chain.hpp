// The chain of diffusion steps on processors: encoder's outputs and noise in, final states out.
//
// The same computation as engine/sampler on fusedx.engine.backends.python, which is written for reading; state and coefficients are
// double, the layers are kernels/conditional_layer.  A row's bits depend on nothing but that row: not on the rows beside it, their
// order, the number of threads or the instruction set.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "conditional_layer/packed_weights.hpp"
#include "runtime/isa.hpp"

namespace fusedx {

enum class Family { posterior, ddim };  // DiffMIC's chain, DiffMIC-v2's

constexpr int64_t kMapPoints = 6;                       // distinct |i - j| of the 6x6 map
constexpr int kCoefficients[2] = {6, 4};                // by family; columns as in fusedx.kernels.step.COEFFICIENTS

// Views of denoiser.safetensors, F features, C classes, T rows of the timestep tables; see engine/denoiser.py.  Everything float32
// unless said otherwise.  The memory must outlive the Chain, but for weight_y, weight2, weight3, weight4 and bias4, which it copies.
struct DenoiserView {
    int64_t features, classes, steps;
    const float *weight_y, *weight_p;  // [F, C]
    PackedView weight2, weight3;       // W [F, F]
    const float *weight4, *bias4;      // [C, F], [C]
    const float *scale[3], *shift[3];  // [T, F]
    const double* coefficients;        // [T, kCoefficients[family]]
    Family family;
    bool noise_prior;                  // posterior: the chain's mean is zero in place of the prior
};

// B images.  posterior: prior [B, C].  ddim: the two ends of the prior map, y_global and y_local [B, C].
struct EncodedView {
    int64_t images;
    const double *prior, *y_global, *y_local;
    const float* feature;  // [B, F]
};

// Condition of the denoiser as other samplers hold it, M entries: constant [M, F], W1_p p; feature [M, F].
struct ConditionView {
    int64_t entries;
    const float *constant, *feature;
};

// How one sample, a (draw, image) pair, was computed.  Of a ddim sample's six chains: the most sweeps, and the sums of the rest.
struct SampleReport {
    int32_t sweeps, evaluations;  // evaluations of the denoiser that had rows of it; its rows in all
    int32_t sequential_steps;     // that were run one by one: all of them, or those that were left when sweeps no longer paid
};

// What else a caller may want of a run; all of it may be left out.
struct RunOptions {
    // Parallel in time (speculation.hpp): rows of the denoiser a sweep over all chains that run together.  A run with no more rows than
    // chains goes step by step.  No bit of a result depends on it.
    int64_t rows = 0;
    double least_gain = 0;                         // mean steps a sweep over the last 8 below which the rest runs step by step; 0: never
    SampleReport* report = nullptr;                // [D, B]
    double* states = nullptr;                      // the states of the chain, [T + 1, D, B, C] (ddim: [T + 1, D, B, 6, C])
    bool ends_only = false;                        // only the first and the last of them, [2, ...]
    const std::atomic<bool>* cancelled = nullptr;  // looked at before every step or sweep; Error(cancelled) once it is true
    void (*poll)(void*) = nullptr;                 // called before every step or sweep, on the calling thread; may throw
    void* poll_context = nullptr;
};

// Made once, then used from any number of threads at a time.
class Chain {
public:
    // Copies the weights into memory of its own (huge pages where allowed), each part touched first by the thread that reads it.
    // copied: called when weight2 has been copied, and again when weight3 has, so that their originals need not lie in memory together
    // with both copies.  Throws Error (unavailable: isa or format; out_of_memory).
    explicit Chain(const DenoiserView& denoiser, const std::string& isa = "", const std::function<void()>& copied = {});
    ~Chain();
    Chain(const Chain&) = delete;
    Chain& operator=(const Chain&) = delete;

    // noise [T, D, B, C] (posterior) or [2, D, B, C] (ddim), double -> scores [D, B, C], double.
    void run(const EncodedView& encoded, const double* noise, int64_t draws, double* scores, const RunOptions& options = {}) const;

    void run(const EncodedView& encoded, const double* noise, int64_t draws, double* scores, double* states,
             const std::atomic<bool>* cancelled = nullptr) const {
        RunOptions options;
        options.states = states, options.cancelled = cancelled;
        run(encoded, noise, draws, scores, options);
    }

    // The denoiser alone, at states as they are, not rounded to the grid; row `step` of the timestep tables: y [B, C] (ddim: [B, 6, C])
    // -> eps, the same shape.
    void eps(const EncodedView& encoded, const double* y, int64_t step, double* eps) const;

    // The same for rows of any step and entry: y [R, C], step and entry [R] -> eps [R, C].
    void eps(const ConditionView& condition, const double* y, const int32_t* step, const int32_t* entry, int64_t rows, double* eps) const;

    // The same eps, to the bit, and its derivative: jacobian [R, C, C] = d eps[r, c] / d y[r, d], approximate where weights are integers.
    // Costs 1 + C rows a row.
    void eps_and_jacobian(const ConditionView& condition, const double* y, const int32_t* step, const int32_t* entry, int64_t rows,
                          double* eps, double* jacobian) const;

    int64_t chains_together(int64_t images, int64_t draws) const;  // of a run over so many, each a row of the denoiser
    int64_t weight_bytes() const;                                  // of its own copies
    // What a run over so many images takes beside its arguments, about.
    int64_t workspace_bytes(int64_t images, int64_t draws, int64_t rows = 0) const;
    Isa isa() const;

private:
    struct Block;
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

}  // namespace fusedx
