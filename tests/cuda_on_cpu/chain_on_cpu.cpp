// kernels/chain/chain.cu as a library for the CPU, with a C interface for ctypes.
#include <cstdio>
#include <string>

#include "chain.cu"

namespace {

using fusedx::ChainParams;
using fusedx::on_cpu::Faults;
using fusedx::on_cpu::Launch;

struct Report {
    char problem[256];
    int32_t sync_sites;
    int64_t kept, left;  // bytes copied: that the L2 cache is asked to keep, and that it is not
};

using Kernel = void (*)(const ChainParams);
constexpr Kernel kKernels[] = {fusedx_chain_fp32, fusedx_chain_bf16, fusedx_chain_fp16, fusedx_chain_fp8};
constexpr int kInputsAChunk[] = {8, 16, 16, 32};

}  // namespace

// dtype: 0 fp32, 1 bf16, 2 fp16, 3 fp8.  0: done (look at control->status); 1: report->problem says what went wrong.
extern "C" int fx_chain_emulate_with(const ChainParams* params, int dtype, int blocks, size_t shared, const Faults* faults,
                                     Report* report) {
    const Kernel kernel = kKernels[dtype];
    Launch launch(blocks, fusedx::kThreads, shared, *faults, [=] { kernel(*params); });
    const size_t bytes = static_cast<size_t>(fusedx::kWarps) * params->tiles * params->stages_a_tile * fusedx::kStageBytes;
    for (const void* weight : params->weight) launch.allow_reads(weight, bytes);
    if (params->k != params->stages_a_tile * fusedx::kWarps * fusedx::kStageChunks * kInputsAChunk[dtype]) {
        std::snprintf(report->problem, sizeof report->problem, "k and stages_a_tile do not agree");
        return 1;
    }
    const std::string problem = launch.run();
    std::snprintf(report->problem, sizeof report->problem, "%s", problem.c_str());
    report->sync_sites = launch.sync_sites();
    report->kept = launch.copied(true);
    report->left = launch.copied(false);
    return problem.empty() ? 0 : 1;
}

extern "C" int fx_chain_emulate(const ChainParams* params, int dtype, int blocks, size_t shared, uint64_t seed) {
    Faults faults;
    faults.seed = seed;
    Report report;
    const int failed = fx_chain_emulate_with(params, dtype, blocks, shared, &faults, &report);
    if (failed) std::fprintf(stderr, "chain on CPU: %s\n", report.problem);
    return failed;
}

extern "C" void fx_softplus(const float* in, float* out, int n) {
    for (int i = 0; i < n; ++i) out[i] = fusedx::softplus(in[i]);
}

// fp16 bits of four e4m3 bytes.
extern "C" void fx_decode_fp8(uint32_t word, uint32_t* low, uint32_t* high) {
    *low = fusedx::Fp8::decode(fusedx::device::spread_low(word));
    *high = fusedx::Fp8::decode(fusedx::device::spread_high(word));
}

extern "C" uint16_t fx_to_bf16(float x) { return fusedx::on_cpu::to_bf16(x); }
extern "C" uint16_t fx_to_fp16(float x) { return fusedx::on_cpu::to_fp16(x); }
extern "C" float fx_from_fp16(uint16_t x) { return fusedx::on_cpu::from_fp16(x); }

// "name offset size" a line, then the whole structs: what kernels/chain/params.py mirrors.
extern "C" const char* fx_chain_layout() {
    static const std::string text = [] {
        std::string lines;
        const auto add = [&](const char* name, size_t offset, size_t size) {
            lines += std::string(name) + " " + std::to_string(offset) + " " + std::to_string(size) + "\n";
        };
#define FIELD(name) add(#name, offsetof(ChainParams, name), sizeof(ChainParams::name))
        FIELD(weight); FIELD(scale); FIELD(shift); FIELD(weight_y); FIELD(constant); FIELD(feature); FIELD(weight4); FIELD(bias4);
        FIELD(entry); FIELD(table_row); FIELD(coefficients); FIELD(mean); FIELD(noise); FIELD(states); FIELD(hidden); FIELD(partial);
        FIELD(control); FIELD(watchdog_ns); FIELD(family); FIELD(steps); FIELD(rows); FIELD(classes); FIELD(k); FIELD(tiles);
        FIELD(stages_a_tile); FIELD(ring_stages); FIELD(resident); FIELD(kept);
#undef FIELD
        add("ChainParams", 0, sizeof(ChainParams));
        add("control.status", offsetof(fusedx::ChainControl, status), sizeof(fusedx::ChainControl::status));
        add("ChainControl", 0, sizeof(fusedx::ChainControl));
        return lines;
    }();
    return text.c_str();
}

// Bytes of dynamic shared memory that a launch really takes: what plan.py predicts.
extern "C" size_t fx_chain_shared_bytes(const ChainParams* params, int dtype) {
    size_t bytes = 0;
    Launch launch(1, fusedx::kThreads, 0, {}, [&] {
        const void* last = dtype == 0 ? fusedx::Workspace<fusedx::Fp32>(*params).terms : fusedx::Workspace<fusedx::Bf16>(*params).terms;
        bytes = static_cast<size_t>(static_cast<const char*>(last) - fusedx::device::shared_memory()) + sizeof(fusedx::StepTerms);
    });
    launch.run();
    return bytes;
}
