"""The compiled backend: weights packed into panels once, every row of a call sharing each read of them.

Lanes run over outputs and each row keeps its own accumulators, so a row's bits do not depend on the rows beside it.
"""

from __future__ import annotations

import numpy as np

from fusedx.engine.backends import Condition, constant_half
from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.memory import release_pages
from fusedx.kernels import conditional_layer, projection


def why_not() -> str | None:
    """None when the native module is built and loads here; otherwise the reason."""
    if conditional_layer.available():
        return None
    from fusedx.kernels._loader import reason

    return f"the native module is not built or does not load ({reason})"


class NativeDenoiser:
    """See :class:`fusedx.engine.backends.Denoiser`.  float32; safe to call from several threads."""

    name = "native"

    def __init__(self, tables: DenoiserTables) -> None:
        self._panels = []
        for weight in (tables.weight_y, tables.weight2, tables.weight3):
            self._panels.append(conditional_layer.pack(weight))
            # The mapped original is not read again, and would otherwise count twice.
            release_pages(weight)
        self._weight_p, self._weight4, self._bias4 = tables.weight_p, tables.weight4, tables.bias4
        self._scale = (tables.scale1, tables.scale2, tables.scale3)
        self._shift = (tables.shift1, tables.shift2, tables.shift3)

    def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
        half = constant_half(self._weight_p, prior, np.dtype(np.float32))
        return Condition(half, np.ascontiguousarray(feature, np.float32))

    def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        u = self._layer(0, y.astype(np.float32), step, h=condition.constant, f=condition.feature, image=entry)
        u = self._layer(1, u, step)
        u = self._layer(2, u, step)
        return projection.project(u, self._weight4, self._bias4)

    def _layer(
        self,
        k: int,
        u: np.ndarray,
        step: np.ndarray,
        *,
        h: np.ndarray | None = None,
        f: np.ndarray | None = None,
        image: np.ndarray | None = None,
    ) -> np.ndarray:
        return conditional_layer.run(u, self._panels[k], self._scale[k], self._shift[k], step, h=h, f=f, image=image)
