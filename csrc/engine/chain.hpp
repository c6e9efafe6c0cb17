// The chain of diffusion steps on processors: encoder's outputs and noise in, final states out.
//
// The same computation as engine/sampler.py on fusedx.engine.backends.python, which is written for reading; state and coefficients are
// double, the layers are kernels/conditional_layer.  A row's bits depend on nothing but that row: not on the rows beside it, their
// order, the number of threads or the instruction set.
#pragma once

#include <atomic>
#include <cstdint>
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

// What else a caller may want of a run; all of it may be left out.
struct RunOptions {
    double* states = nullptr;                      // the states of the chain, [T + 1, D, B, C] (ddim: [T + 1, D, B, 6, C])
    bool ends_only = false;                        // only the first and the last of them, [2, ...]
    const std::atomic<bool>* cancelled = nullptr;  // looked at before every step; Error(cancelled) once it is true
    void (*poll)(void*) = nullptr;                 // called before every step, on the calling thread; may throw
    void* poll_context = nullptr;
};

// Made once, then used from any number of threads at a time.
class Chain {
public:
    // Copies the weights into memory of its own (huge pages where allowed), each part touched first by the thread that reads it.
    // Throws Error (unavailable: isa or format; out_of_memory).
    explicit Chain(const DenoiserView& denoiser, const std::string& isa = "");
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

    // The denoiser alone at row `step` of the timestep tables: y [B, C] (ddim: [B, 6, C]) -> eps, the same shape.
    void eps(const EncodedView& encoded, const double* y, int64_t step, double* eps) const;

    int64_t weight_bytes() const;  // of its own copies
    // What a run over so many images takes beside its arguments, about.
    int64_t workspace_bytes(int64_t images, int64_t draws) const;
    Isa isa() const;

private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

}  // namespace fusedx
