"""Half-precision constants without a numpy type for bfloat16: its bits are held as the upper halves of float32."""

from __future__ import annotations

import numpy as np

from fusedx.kernels.conditional_layer.formats import from_bf16, to_bf16

#: Precision -> the element type that a Cast node names.
HALF_TYPES = {"fp16": "float16", "bf16": "bfloat16"}
#: A dtype of its own, so that bfloat16 bits are never mistaken for integers.
BFLOAT16 = np.dtype([("bfloat16", "<u2")])


def to_half(array: np.ndarray, precision: str) -> np.ndarray:
    """float32 [...] -> float16, or :data:`BFLOAT16`; round to nearest, ties to even; what is too large becomes infinite."""
    if precision == "fp16":
        with np.errstate(over="ignore"):
            return array.astype(np.float16)
    return to_bf16(array).astype("<u2").reshape(-1).view(BFLOAT16).reshape(array.shape)


def from_half(array: np.ndarray) -> np.ndarray:
    """float16 or :data:`BFLOAT16` -> float32, exactly."""
    if array.dtype != BFLOAT16:
        return array.astype(np.float32)
    return from_bf16(array.reshape(-1).view("<u2")).reshape(array.shape)
