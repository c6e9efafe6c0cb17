"""The compiled backend: weights packed into panels once, every row of a call sharing each read of them.

Lanes run over outputs and each row keeps its own accumulators, so a row's bits do not depend on the rows beside it.
"""

from __future__ import annotations

import numpy as np

from fusedx.engine.backends import Condition, constant_half
from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.errors import ConfigError
from fusedx.engine.memory import release_pages
from fusedx.kernels import conditional_layer, native_module


def why_not() -> str | None:
    """None when the native module is built and loads here; otherwise the reason."""
    if conditional_layer.available():
        return None
    return f"the native module is not built or does not load ({native_module.reason})"


def _check_settings() -> None:
    """Refuse an impossible FUSEDX_ISA or FUSEDX_THREADS now, not in the middle of the first prediction."""
    module = native_module.require("the native backend")
    try:
        module.isa()
        module.threads()
    except ValueError as error:
        raise ConfigError(str(error)) from None


class NativeDenoiser:
    """See :class:`fusedx.engine.backends.Denoiser`.  float32; safe to call from several threads."""

    name = "native"

    def __init__(self, tables: DenoiserTables) -> None:
        _check_settings()
        self._panels = []
        for weight in (tables.weight_y, tables.weight2, tables.weight3):
            self._panels.append(conditional_layer.pack(weight))
            # The mapped original is not read again, and would otherwise count twice.
            release_pages(weight)
        self._weight_p = tables.weight_p
        self._panels4, self._bias4 = conditional_layer.pack_projection(tables.weight4), tables.bias4.astype(np.float64)
        self._scale = (tables.scale1, tables.scale2, tables.scale3)
        self._shift = (tables.shift1, tables.shift2, tables.shift3)

    def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
        half = constant_half(self._weight_p, prior, np.dtype(np.float32))
        return Condition(half, np.ascontiguousarray(feature, np.float32))

    def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        u = self._layer(0, y.astype(np.float32), step, h=condition.constant, f=condition.feature, image=entry)
        u = self._layer(1, u, step)
        # Layer 4 rides in layer 3's epilogue, so layer 3's output is never written.
        third = self._panels[2], self._scale[2], self._shift[2]
        return conditional_layer.run_projected(u, *third, step, self._panels4, self._bias4)

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
