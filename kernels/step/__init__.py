"""One update of the chain's state from the denoiser's output."""

from fusedx.kernels.step.reference import ddim_step, posterior_last_step, posterior_step

__all__ = ["ddim_step", "posterior_last_step", "posterior_step"]
