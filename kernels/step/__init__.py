"""One update of the chain's state from the denoiser's output."""

from fusedx.kernels.step.reference import STATE_BITS, ddim_step, on_grid, posterior_last_step, posterior_step

#: Columns of the coefficient table [T, columns] that device code takes, by family, in order; names as in reference.py.
COEFFICIENTS = {
    "posterior": ("q", "s", "g0", "g1", "g2", "sigma"),
    "ddim": ("sqrt_alpha_bar", "sqrt_one_minus", "sqrt_alpha_bar_prev", "sqrt_one_minus_prev"),
}

__all__ = ["COEFFICIENTS", "STATE_BITS", "ddim_step", "on_grid", "posterior_last_step", "posterior_step"]
