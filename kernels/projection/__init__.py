"""The denoiser's last layer, a few outputs summed in double precision in a fixed order."""

from __future__ import annotations

import numpy as np

from fusedx.kernels.native_module import native
from fusedx.kernels.projection import reference

__all__ = ["project"]


def project(u: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, isa: str = "") -> np.ndarray:
    """u float32 [R, N], weight float32 [C, N], bias float64 or float32 [C] -> float64 [R, C].

    The same bits with and without compiled code, whatever R, the threads and the instruction set.
    """
    if isa and native is None:
        raise ValueError(f"isa={isa}: fusedx._native is not built, so there is nothing to choose")
    for name, array, axes in (("u", u, 2), ("weight", weight, 2), ("bias", bias, 1)):
        kinds = (np.float32, np.float64) if name == "bias" else (np.float32,)
        fits = isinstance(array, np.ndarray) and array.dtype in kinds and array.ndim == axes and array.size
        if not fits or (name == "weight" and array.shape[1] != u.shape[1]) or (name == "bias" and array.shape[0] != weight.shape[0]):
            expected = {"u": "float32 [R, N]", "weight": f"float32 [C, {u.shape[-1]}]", "bias": f"float64 [{weight.shape[0]}]"}[name]
            found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ValueError(f"{name}: expected {expected}, got {found}")
    if native is None:
        return reference.project(u, weight, bias)
    return native.project(_rows(u), _rows(weight), np.ascontiguousarray(bias, np.float64), isa)


def _rows(array: np.ndarray) -> np.ndarray:
    """The array itself when its rows are contiguous, else a copy."""
    return array if array.strides[1] == array.itemsize and array.strides[0] % array.itemsize == 0 else np.ascontiguousarray(array)
