"""The layer on processors, in any weight format: weights packed once, then one pass over them for all rows.

A row's result is the same bits whatever rows run beside it, on any number of threads and on any instruction set.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedx.kernels.conditional_layer import packed
from fusedx.kernels.native_module import native, require

PANEL = 32  # outputs side by side in a panel, as in conditional_layer.hpp
CLASSES = 8  # classes side by side in a packed projection, likewise
MOST_TANGENTS = 63  # of a value, likewise


def available() -> bool:
    """Whether the compiled kernel can run here."""
    return native is not None


def pack(weight: np.ndarray, form: str = "fp32") -> Any:
    """float32 [N, K] (rows contiguous; may be read-only or memory-mapped) -> ``_native.Weights``, in a format of ``packed.FORMATS``."""
    module = require("conditional_layer.pack")
    if not isinstance(weight, np.ndarray) or weight.ndim != 2 or weight.dtype != np.float32:
        found = f"{weight.dtype} {list(weight.shape)}" if isinstance(weight, np.ndarray) else type(weight).__name__
        raise ValueError(f"weight: expected float32 [N, K], got {found}")
    arrays = {"panels": weight} if form == "fp32" else packed.pack(weight, form)
    return module.Weights(form, *weight.shape, **arrays)


def pack_projection(weight4: np.ndarray) -> np.ndarray:
    """float32 [C, N] -> panels float32 [ceil(N / 32), ceil(C / 8), 32, 8], zeros where there is no weight."""
    if not isinstance(weight4, np.ndarray) or weight4.ndim != 2 or weight4.dtype != np.float32 or not weight4.size:
        found = f"{weight4.dtype} {list(weight4.shape)}" if isinstance(weight4, np.ndarray) else type(weight4).__name__
        raise ValueError(f"weight4: expected float32 [C, N] with at least one element, got {found}")
    classes, inputs = weight4.shape
    panels, groups = -(-inputs // PANEL), -(-classes // CLASSES)
    padded = np.zeros((groups * CLASSES, panels * PANEL), np.float32)
    padded[:classes, :inputs] = weight4
    return np.ascontiguousarray(padded.reshape(groups, CLASSES, panels, PANEL).transpose(2, 0, 3, 1))


def run(
    u: np.ndarray,
    weights: Any,
    a: np.ndarray,
    c: np.ndarray,
    t: np.ndarray,
    *,
    h: np.ndarray | None = None,
    f: np.ndarray | None = None,
    image: np.ndarray | None = None,
    out: np.ndarray | None = None,
    isa: str = "",
    tangents: int = 0,
) -> np.ndarray:
    """u [R, K], weights [N, K] from :func:`pack`, a and c [T, N], t [R], h and f [I, N], image [R] -> out [R, N].

    All arrays float32, t and image int32.  Rows must be contiguous and may lie apart (``u[:, :K]`` of something wider is
    fine).  ``out`` must not overlap an input.  ``isa`` names an instruction set; empty means FUSEDX_ISA or the best.
    With ``tangents``, rows come in groups of 1 + tangents: a value and the directions along which it is differentiated, as
    ``reference.tangent_layer`` says, whose t and image are those of the group's first row.
    Raises ValueError naming the argument that does not fit.
    """
    module = require("conditional_layer.run")
    if out is None:
        out = np.empty((u.shape[0], a.shape[-1]), np.float32)
    module.conditional_layer(u, weights, a, c, t, h, f, image, out, isa, tangents)
    return out


def run_projected(
    u: np.ndarray,
    weights: Any,
    a: np.ndarray,
    c: np.ndarray,
    t: np.ndarray,
    panels4: np.ndarray,
    bias4: np.ndarray,
    *,
    h: np.ndarray | None = None,
    f: np.ndarray | None = None,
    image: np.ndarray | None = None,
    isa: str = "",
    tangents: int = 0,
) -> np.ndarray:
    """:func:`run` and the product after it, the layer's output never being written: -> float64 [R, C].

    eps[r, c] = sum_n W4[c, n] layer(u)[r, n] + b4[c], panels4 from :func:`pack_projection`, bias4 float64 [C]; rows of ``tangents``
    without b4.
    """
    module = require("conditional_layer.run_projected")
    return module.projected_layer(u, weights, a, c, t, h, f, image, panels4, bias4, isa, tangents)
