"""Weights in the order in which the chain kernel's lanes read them, and tables padded to its row stride.

[8 warps][tiles][stages][4 chunks][32 lanes][16 bytes].  Warp w has the w-th eighth of K, so that its part of any run of tiles is
contiguous; nothing depends on the number of blocks or on the device.  In a chunk, lane (g, q) = (lane // 4, lane % 4) holds

    bf16, fp16   outputs g and g + 8, inputs 4q .. 4q + 3: the A fragment of mma.m16n8k16 with inputs permuted (format.cuh)
    fp8          the same for 16 inputs, then for the next 16
    fp32         output lane // 2, inputs 4 (lane % 2) .. + 3
"""

from __future__ import annotations

import numpy as np

from fusedx.kernels.chain.layout import TILE, WARPS, Format, shape, weight_format
from fusedx.kernels.conditional_layer.formats import FORMATS

#: What ``pack_weight`` takes: bf16 and e4m3 as their bits, numpy having neither.
WEIGHT_DTYPES = {name: bits for name, (bits, _) in FORMATS.items()}

# Axes of the padded weights, and their order in memory.  half: outputs g or g + 8; pair: inputs 4q, 4q + 1 or 4q + 2, 4q + 3.
_AXES = {
    "fp32": ("tile output warp chunk half_of_k input", (None, 16, WARPS, None, 2, 4), "warp tile chunk output half_of_k input"),
    "bf16": ("tile half g warp chunk q pair input", (None, 2, 8, WARPS, None, 4, 2, 2), "warp tile chunk g q pair half input"),
    "fp8": ("tile half g warp chunk step q input", (None, 2, 8, WARPS, None, 2, 4, 4), "warp tile chunk g q step half input"),
}
_AXES["fp16"] = _AXES["bf16"]


def pack_weight(weight: np.ndarray, dtype: str) -> np.ndarray:
    """weight [F, F] of ``WEIGHT_DTYPES[dtype]`` -> uint8 [shape.weight_bytes].

    Raises ValueError for another dtype or shape and for fp8 codes of not-a-number, which the kernel would read as 480 / 256.
    """
    form = weight_format(dtype)
    wanted = np.dtype(WEIGHT_DTYPES[dtype])
    if weight.ndim != 2 or weight.shape[0] != weight.shape[1] or weight.dtype != wanted:
        raise ValueError(f"weight: expected {wanted} [F, F] for {dtype}, got {weight.dtype} {list(weight.shape)}")
    if dtype == "fp8" and np.any(bad := (weight & 0x7F) == 0x7F):
        raise ValueError(f"weight: e4m3 not-a-number at {np.argwhere(bad)[0].tolist()}; quantise finite weights")
    size = shape(form, weight.shape[0])
    padded = np.zeros((size.tiles * TILE, size.k), wanted)
    padded[: weight.shape[0], : weight.shape[1]] = weight
    before, lengths, after = _axes(form, size.tiles)
    ordered = padded.reshape(lengths).transpose([before.index(axis) for axis in after])
    return np.ascontiguousarray(ordered).reshape(-1).view(np.uint8)


def unpack_weight(packed: np.ndarray, dtype: str, feature_dim: int) -> np.ndarray:
    """The padded weights [16 tiles, K] back from :func:`pack_weight`."""
    form = weight_format(dtype)
    size = shape(form, feature_dim)
    before, lengths, after = _axes(form, size.tiles)
    full = np.empty(size.tiles * TILE * size.k, np.uint8).reshape(lengths).shape  # numpy resolves the free axis
    ordered = packed.view(WEIGHT_DTYPES[dtype]).reshape([full[before.index(axis)] for axis in after])
    return ordered.transpose([after.index(axis) for axis in before]).reshape(size.tiles * TILE, size.k)


def pad(table: np.ndarray, dtype: str) -> np.ndarray:
    """[..., F] -> float32 [..., K], zeros beyond F: the row stride of every table that the kernel reads."""
    k = shape(weight_format(dtype), table.shape[-1]).k
    out = np.zeros((*table.shape[:-1], k), np.float32)
    out[..., : table.shape[-1]] = table
    return out


def _axes(form: Format, tiles: int) -> tuple[list[str], list[int], list[str]]:
    before, lengths, after = _AXES[form.name]
    free = before.split().index("chunk")
    return before.split(), [tiles, *(-1 if i == free else int(n or 0) for i, n in enumerate(lengths) if i)], after.split()
