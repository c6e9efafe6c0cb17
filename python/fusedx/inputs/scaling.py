"""Deep grey values to 8 bits, in blocks of rows so that the float64 working copy stays small."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from fusedx.engine.errors import InputError

_BLOCK_PIXELS = 1 << 20

Curve = Callable[[np.ndarray], np.ndarray]
"""Maps float64 values to float64 of the same shape."""


def _blocks(values: np.ndarray) -> Iterator[slice]:
    step = max(1, _BLOCK_PIXELS // max(1, values.shape[1]))
    for start in range(0, values.shape[0], step):
        yield slice(start, start + step)


def _widened(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a signalling NaN; the caller looks for NaN itself
        return values.astype(np.float64)


def identity(values: np.ndarray) -> np.ndarray:
    return values


def span(values: np.ndarray, name: str, curve: Curve = identity, leave_out: np.ndarray | None = None) -> tuple[float, float]:
    """Return (min, max) of ``curve(values)``, values [H, W] of any real dtype, without the pixels where leave_out is true.

    When every pixel is left out, none is.  Raises InputError("bad_values") for NaN, infinity, or an infinite range.
    """
    if leave_out is not None and leave_out.all():
        leave_out = None
    low, high = np.inf, -np.inf
    for rows in _blocks(values):
        block = _widened(values[rows])
        if leave_out is not None:
            block = block[~leave_out[rows]]
        if block.size:
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below, by name
                block = curve(block)
            low, high = min(low, block.min()), max(high, block.max())  # NaN is found below: it never compares
            if not np.isfinite(block).all():
                raise InputError("bad_values", f"{name}: has not-a-number or infinite pixel values")
    low, high = float(low), float(high)
    if not np.isfinite(high - low):
        raise InputError("bad_values", f"{name}: pixel values from {low} to {high} are too far apart to scale")
    return low, high


def stretch(low: float, high: float) -> Curve:
    """The line from low..high to 0..255; a constant picture (low == high) becomes 0."""
    if high == low:
        return np.zeros_like
    return lambda values: (values - low) / (high - low) * 255.0


def to_uint8(values: np.ndarray, curve: Curve, name: str) -> np.ndarray:
    """Return uint8 [H, W]: ``curve(values)`` clipped to 0..255 and rounded, half to even.

    Raises InputError("bad_values") where the curve gives NaN.
    """
    out = np.empty(values.shape, np.uint8)
    for rows in _blocks(values):
        with np.errstate(over="ignore", invalid="ignore"):
            shade = np.clip(curve(_widened(values[rows])), 0.0, 255.0)
        if np.isnan(shade).any():
            raise InputError("bad_values", f"{name}: has not-a-number pixel values")
        out[rows] = np.rint(shade)
    return out


def stretch_to_uint8(values: np.ndarray, name: str, notes: dict[str, object], key: str) -> np.ndarray:
    """Scale [H, W] by its own min..max to uint8 [H, W] and note the range under ``key``."""
    low, high = span(values, name)
    notes[key] = {"min": low, "max": high, "constant": low == high}
    return to_uint8(values, stretch(low, high), name)


def grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    """uint8 [H, W] -> uint8 [H, W, 3]."""
    return np.repeat(grey[:, :, None], 3, axis=2)
