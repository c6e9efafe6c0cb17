"""The weight formats of the layer on GPUs, in numpy: what each one stores, and what a stored weight is worth.

    fp32    as they are
    bf16    rounded to nearest even; bits in uint16, since numpy has no such type
    fp16    rounded to nearest even
    fp8     e4m3 (OCP 8-bit floating point, "e4m3fn": bias 7, largest 448, no infinity) in uint8, one scale an output channel

The scale of an fp8 channel is not stored beside the weights but multiplied into the layer's a_t, so that the kernel has nothing to
do with it: a_t (W u) = (a_t s) (W/s u).  The layer must have no constant part h, which would need dividing by s.

An e4m3 bit pattern b, moved to where fp16 keeps sign, exponent and mantissa, is the fp16 number  value * 2^-8  exactly, subnormals
included (fp16's exponent bias is 15, e4m3's is 7).  Kernels decode with two masks and two shifts on any architecture, and 2^8 is
multiplied into a_t with the scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Weight format -> (dtype of the stored bits, name of the activations' format).
FORMATS = {
    "fp32": (np.float32, "fp32"),
    "bf16": (np.uint16, "bf16"),
    "fp16": (np.float16, "fp16"),
    "fp8": (np.uint8, "fp16"),
}
E4M3_MAX = 448.0
#: What an e4m3 pattern read as fp16 bits has to be multiplied by.
E4M3_TO_FP16 = 2.0**8


@dataclass(frozen=True, slots=True)
class Stored:
    """A weight matrix in a format.  bits [N,K]; ``scale`` float32 [N], to be multiplied into a_t, or None where it is one."""

    bits: np.ndarray
    scale: np.ndarray | None


def store(weight: np.ndarray, format: str) -> Stored:
    """float32 [N,K] -> its bits and scale.  Raises ValueError for an unknown format, or weights that the format cannot hold."""
    if format not in FORMATS:
        raise ValueError(f"unknown weight format {format!r}; there are: {', '.join(FORMATS)}")
    if weight.ndim != 2 or weight.dtype != np.float32:
        raise ValueError(f"weight: expected float32 [N, K], got {weight.dtype} {list(weight.shape)}")
    if format == "fp32":
        return Stored(weight, None)
    if format == "bf16":
        return Stored(to_bf16(weight), None)
    if format == "fp16":
        with np.errstate(over="ignore"):
            half = weight.astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(f"weights up to {np.abs(weight).max():g} do not fit fp16 (65504): use bf16, fp8 or fp32")
        return Stored(half, None)
    largest = np.abs(weight).max(axis=1)
    scale = np.where(largest > 0, largest / E4M3_MAX, 1).astype(np.float32)
    # A scale that rounded down would push the largest weight above 448; to_e4m3 saturates it there, within half a unit.
    return Stored(to_e4m3(weight / scale[:, None]), (scale * np.float32(E4M3_TO_FP16)).astype(np.float32))


def value(stored: Stored, format: str) -> np.ndarray:
    """float32 [N,K]: what the kernels multiply with, times the scale that is folded elsewhere."""
    if format == "fp8":
        assert stored.scale is not None
        return e4m3_as_fp16(stored.bits).astype(np.float32) * stored.scale[:, None]
    return from_bf16(stored.bits) if format == "bf16" else stored.bits.astype(np.float32)


def to_bf16(x: np.ndarray) -> np.ndarray:
    """float32 -> uint16 bits, to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    """uint16 bits -> float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_e4m3(x: np.ndarray) -> np.ndarray:
    """Finite float32 -> uint8 bits, to nearest even, saturating at 448."""
    if not np.isfinite(x).all():
        raise ValueError("e4m3 weights must be finite")
    magnitude = np.minimum(np.abs(x).astype(np.float32), np.float32(E4M3_MAX))
    _, exponent = np.frexp(magnitude)
    # Values below 2^-6 share the smallest exponent: they are subnormal, in units of 2^-9.
    exponent = np.where(magnitude > 0, np.maximum(exponent - 1, -6), -6)
    units = np.rint(np.ldexp(magnitude, 3 - exponent)).astype(np.int32)  # 0 .. 16; 8 .. 15 are normal, 16 carries
    code = ((exponent + 6) << 3) + units  # a carry into 16 becomes the next exponent by itself
    code = np.minimum(code, 0x7E)
    return (code | np.where(np.signbit(x), 0x80, 0)).astype(np.uint8)


def e4m3_as_fp16(bits: np.ndarray) -> np.ndarray:
    """uint8 bits -> float16 holding the value * 2^-8, as the kernels decode it."""
    wide = bits.astype(np.uint16)
    return (((wide & 0x80) << 8) | ((wide & 0x7F) << 7)).view(np.float16)
