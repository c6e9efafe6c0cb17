// Entry points, one a weight format.  Launch: plan.blocks blocks of 256 threads, plan.shared_bytes of dynamic shared memory,
// cooperatively; all blocks must be on the device at once.
#include "chain.cuh"

FUSEDX_KERNEL fusedx_chain_fp32(const __grid_constant__ fusedx::ChainParams params) { fusedx::run_chain<fusedx::Fp32>(params); }
FUSEDX_KERNEL fusedx_chain_bf16(const __grid_constant__ fusedx::ChainParams params) { fusedx::run_chain<fusedx::Bf16>(params); }
FUSEDX_KERNEL fusedx_chain_fp16(const __grid_constant__ fusedx::ChainParams params) { fusedx::run_chain<fusedx::Fp16>(params); }
FUSEDX_KERNEL fusedx_chain_fp8(const __grid_constant__ fusedx::ChainParams params) { fusedx::run_chain<fusedx::Fp8>(params); }
