"""The plain backend: the kernels' references in numpy, in the dtype of the tables.

float64 tables make it the reference of the whole chain; float32 tables make it the fallback where nothing is compiled.

BLAS libraries change their summation order with the number of rows, so each row is its own matrix-vector product: always the
same call with the same shapes.  That costs one read of the weights a row; the native backend shares them between rows.
"""

from __future__ import annotations

import numpy as np

from fusedx.engine.backends import Condition, constant_half
from fusedx.engine.denoiser import DenoiserTables
from fusedx.kernels.conditional_layer.reference import conditional_layer, tangent_layer
from fusedx.kernels.projection import project


class PythonDenoiser:
    """See :class:`fusedx.engine.backends.Denoiser`."""

    name = "python"

    def __init__(self, tables: DenoiserTables) -> None:
        self._tables = tables
        self._dtype = tables.weight2.dtype

    def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
        return Condition(constant_half(self._tables.weight_p, prior, self._dtype), feature.astype(self._dtype))

    def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        return np.concatenate([self._row(y[r : r + 1], step[r : r + 1], condition, entry[r : r + 1]) for r in range(len(y))])

    def eps_and_jacobian(
        self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        jacobian = [self._jacobian(y[r : r + 1], step[r : r + 1], condition, entry[r : r + 1]) for r in range(len(y))]
        return self.eps(y, step, condition, entry), np.concatenate(jacobian)

    def _jacobian(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        """[1,C,C] of one row: the C unit vectors pushed through the layers."""
        w = self._tables
        directions = np.eye(y.shape[1], dtype=self._dtype)[None]
        u, du = tangent_layer(
            y.astype(self._dtype), directions, w.weight_y, w.scale1, w.shift1, step, h=condition.constant, f=condition.feature, image=entry
        )
        u, du = tangent_layer(u, du, w.weight2, w.scale2, w.shift2, step)
        u, du = tangent_layer(u, du, w.weight3, w.scale3, w.shift3, step)
        return (du.astype(np.float64) @ w.weight4.T.astype(np.float64)).swapaxes(1, 2)

    def _row(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        w = self._tables
        u = conditional_layer(
            y.astype(self._dtype), w.weight_y, w.scale1, w.shift1, step, h=condition.constant, f=condition.feature, image=entry
        )
        u = conditional_layer(u, w.weight2, w.scale2, w.shift2, step)
        u = conditional_layer(u, w.weight3, w.scale3, w.shift3, step)
        return project(u, w.weight4, w.bias4)
