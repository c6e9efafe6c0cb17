"""The denoiser's last layer alone, for the plain backend; compiled code has it in the epilogue of the layer before it."""

from fusedx.kernels.projection.reference import project

__all__ = ["project"]
