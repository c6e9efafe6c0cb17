"""The float32 layer on processors: weights packed once, then one pass over them for all rows.

A row's result is the same bits whatever rows run beside it, on any number of threads and on any instruction set.
"""

from __future__ import annotations

import numpy as np

from .._loader import native, require

PANEL = 32  # outputs side by side in a panel, as in conditional_layer.hpp


def available() -> bool:
    """Whether the compiled kernel can run here."""
    return native is not None


def pack(weight: np.ndarray) -> np.ndarray:
    """float32 [N, K] (rows contiguous; may be read-only or memory-mapped) -> panels float32 [ceil(N / 32), K, 32].

    ``np.empty`` asks for huge pages for large arrays, which doubles the speed at which the panels are read later.
    """
    if getattr(weight, "ndim", None) != 2:
        raise ValueError(f"weight: expected float32 [N, K], got {getattr(weight, 'shape', type(weight).__name__)}")
    outputs, inputs = weight.shape
    panels = np.empty((-(-outputs // PANEL), inputs, PANEL), np.float32)
    require("conditional_layer.pack").pack(weight, panels)
    return panels


def run(
    u: np.ndarray,
    panels: np.ndarray,
    a: np.ndarray,
    c: np.ndarray,
    t: np.ndarray,
    *,
    h: np.ndarray | None = None,
    f: np.ndarray | None = None,
    image: np.ndarray | None = None,
    out: np.ndarray | None = None,
    isa: str = "",
) -> np.ndarray:
    """u [R, K], panels from :func:`pack`, a and c [T, N], t [R], h and f [I, N], image [R] -> out [R, N].

    All float32, t and image int32.  Rows must be contiguous and may lie apart (``u[:, :K]`` of something wider is
    fine).  ``out`` must not overlap an input.  ``isa`` names an instruction set; empty means FUSEDX_ISA or the best.
    Raises ValueError naming the argument that does not fit.
    """
    module = require("conditional_layer.run")
    if out is None:
        out = np.empty((u.shape[0], a.shape[-1]), np.float32)
    module.conditional_layer(u, panels, a, c, t, h, f, image, out, isa)
    return out
