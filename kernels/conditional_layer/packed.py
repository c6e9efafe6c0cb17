"""The weight formats of the layer on processors, in numpy: how a matrix W [N, K] lies in a compiled model, and what it is worth.

    fp32        the plain matrix
    bf16, fp16  rounded to nearest even; panels of 32 outputs, 16 bits an element
    int8        w = scale[n] q, q in [-127, 127], one scale an output; panels of 64 outputs by 4 inputs
    int4        w = scale[n, g] (q - 8), q in [0, 15], one fp16 scale for each group of 64 inputs of an output

``packed_weights.hpp`` has the same layouts in C++.  Lanes run over outputs, so the bytes that one vector instruction wants lie side by
side; outputs past N and inputs past K are stored as zero weights.
"""

from __future__ import annotations

import numpy as np

FORMATS = ("fp32", "bf16", "fp16", "int8", "int4")
#: Outputs side by side, of 16-bit elements and of smaller ones; inputs side by side under one output; inputs that share a scale.
PANEL, WIDE_PANEL, QUAD, GROUP = 32, 64, 4, 64
#: Of int8 and int4: the largest sum of products of 8 bits, 255 * 128 * 65536, fits 32.
MOST_INTEGER_INPUTS = 65536
#: Trial scales of a group, as fractions of the one that loses nothing at the ends; the least squared error wins.
_TRIALS = np.linspace(0.75, 1.0, 11)


def shapes(form: str, outputs: int, inputs: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Array name -> (shape, safetensors dtype) of a packed [outputs, inputs] matrix.

    Raises ValueError for an unknown format, and for more inputs than it can have.
    """
    if form in ("int8", "int4") and inputs > MOST_INTEGER_INPUTS:
        raise ValueError(f"{form} weights: expected at most {MOST_INTEGER_INPUTS} inputs (32-bit sums), got {inputs}; use bf16")
    wide = -(-outputs // WIDE_PANEL)
    if form == "fp32":
        return {"panels": ((outputs, inputs), "F32")}
    if form in ("bf16", "fp16"):
        return {"panels": ((-(-outputs // PANEL), inputs, PANEL), form.upper().replace("FP", "F"))}
    if form == "int8":
        return {"panels": ((wide, -(-inputs // QUAD), WIDE_PANEL, QUAD), "I8"), "scale": ((outputs,), "F32")}
    if form == "int4":
        groups = -(-inputs // GROUP)
        panels = (wide, groups, GROUP // (2 * QUAD), WIDE_PANEL, QUAD)
        return {"panels": (panels, "U8"), "scale": ((wide, groups, WIDE_PANEL), "F16")}
    raise ValueError(f"unknown weight format {form!r}; there are: {', '.join(FORMATS)}")


def pack(weight: np.ndarray, form: str) -> dict[str, np.ndarray]:
    """float32 [N, K], finite -> arrays as :func:`shapes` says; bf16 as its bits in uint16, since numpy has no such type.

    Raises ValueError for a value that the format cannot hold (fp16 ends at 65504), and as :func:`shapes` does.
    """
    n, k = weight.shape
    shapes(form, n, k)
    weight = np.ascontiguousarray(weight, np.float32)
    if form == "fp32":
        return {"panels": weight}
    if form in ("bf16", "fp16"):
        return {"panels": _panels(_bf16(weight) if form == "bf16" else _fp16(weight), PANEL)}
    if form == "int8":
        scale = np.abs(weight).max(axis=1) / np.float32(127)
        scale[scale == 0] = 1
        q = np.clip(np.rint(weight / scale[:, None]), -127, 127).astype(np.int8)  # a subnormal scale is coarse
        return {"panels": _quads(_padded(q, WIDE_PANEL, QUAD, 0)), "scale": scale}
    q, scale = _int4(_padded(weight, WIDE_PANEL, GROUP, 0))  # [N', K'], [N', K' / 64]
    nibbles = _quads(q).reshape(len(q) // WIDE_PANEL, -1, 2, GROUP // (2 * QUAD), WIDE_PANEL, QUAD)
    scales = scale.reshape(-1, WIDE_PANEL, scale.shape[1]).transpose(0, 2, 1)
    return {"panels": nibbles[:, :, 0] | nibbles[:, :, 1] << 4, "scale": np.ascontiguousarray(scales)}


def unpack(arrays: dict[str, np.ndarray], form: str, outputs: int, inputs: int) -> np.ndarray:
    """What the stored weights are worth: float32 [outputs, inputs], the products of scales rounded once."""
    panels = arrays["panels"]
    if form == "fp32":
        return panels
    if form in ("bf16", "fp16"):
        flat = panels.transpose(0, 2, 1).reshape(-1, inputs)[:outputs]
        return (flat.astype(np.uint32) << 16).view(np.float32) if form == "bf16" else flat.view(np.float16).astype(np.float32)
    if form == "int8":
        return _from_quads(panels)[:outputs, :inputs].astype(np.float32) * arrays["scale"][:, None]
    q = _from_quads(np.stack([panels & 15, panels >> 4], axis=2).reshape(len(panels), -1, WIDE_PANEL, QUAD)).astype(np.float32) - 8
    scale = arrays["scale"].transpose(0, 2, 1).reshape(len(q), -1).astype(np.float32)
    return (q.reshape(len(q), -1, GROUP) * scale[:, :, None]).reshape(q.shape)[:outputs, :inputs]


def padding_is_zero(panels: np.ndarray, form: str, outputs: int, inputs: int) -> bool:
    """Whether what lies past the last output and the last input is as :func:`pack` writes it: zero weights."""
    if form == "fp32":
        return True
    if form in ("bf16", "fp16"):
        return not (outputs % PANEL and panels[-1, :, outputs % PANEL :].view(np.uint16).any())
    n = outputs % WIDE_PANEL
    if form == "int8":
        return not (n and panels[-1, :, n:].any()) and not (inputs % QUAD and panels[:, -1, :, inputs % QUAD :].any())
    if n and (panels[-1, :, :, n:] != 0x88).any():
        return False
    low = np.arange(GROUP // 2).reshape(-1, 1, QUAD)  # a byte's inputs within the group: this, and 32 farther
    used, last = (inputs - 1) % GROUP + 1, panels[:, -1]
    return not ((last & 15 != 8) & (low >= used)).any() and not ((last >> 4 != 8) & (low + GROUP // 2 >= used)).any()


def _padded(x: np.ndarray, rows: int, columns: int, value: int) -> np.ndarray:
    n, k = x.shape
    return np.pad(x, ((0, -n % rows), (0, -k % columns)), constant_values=value)


def _panels(x: np.ndarray, width: int) -> np.ndarray:
    x = _padded(x, width, 1, 0)
    return np.ascontiguousarray(x.reshape(-1, width, x.shape[1]).transpose(0, 2, 1))


def _quads(q: np.ndarray) -> np.ndarray:
    """[N', K'] -> [N' / 64, K' / 4, 64, 4]."""
    n, k = q.shape
    return np.ascontiguousarray(q.reshape(n // WIDE_PANEL, WIDE_PANEL, k // QUAD, QUAD).transpose(0, 2, 1, 3))


def _from_quads(panels: np.ndarray) -> np.ndarray:
    wide, quads = panels.shape[:2]
    return panels.transpose(0, 2, 1, 3).reshape(wide * WIDE_PANEL, quads * QUAD)


def _bf16(x: np.ndarray) -> np.ndarray:
    bits = x.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    if (rounded & 0x7FFF >= 0x7F80).any():
        raise ValueError("a weight is too large for bf16")
    return rounded


def _fp16(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        half = x.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError(f"a weight of {np.abs(x).max():.3g} is too large for fp16, which ends at 65504")
    return half


def _int4(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """q uint8 [N, K] and scale fp16 [N, K / 64]: of several scales, each sign included, the one with the least squared error."""
    q, scale = np.empty(weight.shape, np.uint8), np.empty((len(weight), weight.shape[1] // GROUP), np.float16)
    for row in range(0, len(weight), 256):  # bounded memory
        part = weight[row : row + 256].reshape(-1, GROUP)
        far = part[np.arange(len(part)), np.abs(part).argmax(axis=1)]  # the largest in magnitude becomes -8 exactly
        best = np.full(len(part), np.inf, np.float32)
        best_q, best_scale = np.full(part.shape, 8, np.uint8), np.ones(len(part), np.float16)
        for trial in _TRIALS:
            s = _fp16((far / np.float32(-8) * np.float32(trial)).astype(np.float32))
            wide = s.astype(np.float32)
            with np.errstate(divide="ignore", invalid="ignore"):
                code = np.clip(np.nan_to_num(np.rint(part / wide[:, None])), -8, 7)
            error = np.square(part - code * wide[:, None]).sum(axis=1)
            better = (error < best) & (wide != 0)
            best[better], best_scale[better], best_q[better] = error[better], s[better], code[better].astype(np.int8) + 8
        q[row : row + 256] = best_q.reshape(-1, weight.shape[1])
        scale[row : row + 256] = best_scale.reshape(-1, scale.shape[1])
    return q, scale
