"""Counter-based random numbers: the same key and counter give the same bits on every machine, in any order."""

from __future__ import annotations

import numpy as np

from fusedx.kernels.native_module import native
from fusedx.kernels.philox import reference

__all__ = ["normal", "uniform"]


def uniform(key: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Uniform float64 [n] in [0, 1) for ``key`` uint32 [2] and ``counters`` uint32 [n, 4]."""
    key, counters = _checked(key, counters)
    return native.philox_uniform(key, counters) if native else reference.uniform(reference.philox4x32(counters, key))


def normal(key: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Standard normal float64 [n] for ``key`` uint32 [2] and ``counters`` uint32 [n, 4]."""
    key, counters = _checked(key, counters)
    return native.philox_normal(key, counters) if native else reference.normal(reference.philox4x32(counters, key))


def _checked(key: np.ndarray, counters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for name, array, shape, axes in (("key", key, (2,), 1), ("counters", counters, (4,), 2)):
        if not isinstance(array, np.ndarray) or array.dtype != np.uint32 or array.ndim != axes or array.shape[-1:] != shape:
            found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ValueError(f"{name}: expected uint32 {'[2]' if axes == 1 else '[n, 4]'}, got {found}")
    return np.ascontiguousarray(key), np.ascontiguousarray(counters)
