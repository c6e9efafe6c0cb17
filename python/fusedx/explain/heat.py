"""The saliency of one class as a heat map over the picture."""

from __future__ import annotations

import numpy as np
from PIL import Image

#: Anchors of matplotlib's "inferno" (CC0) without its two dark ends: lightness rises steadily, so it reads without colour vision.
_ANCHORS = np.array([
    (87, 16, 110), (123, 29, 109), (158, 40, 100), (191, 56, 84), (221, 81, 58),
    (241, 113, 31), (251, 153, 6), (248, 196, 49), (252, 255, 164),
], np.float64)  # fmt: skip
_OPAQUE_FROM, _OPAQUE_AT, _MOST_OPAQUE = 0.15, 0.75, 0.80
_GREY_LOW, _GREY_SPAN = 22.0, 0.42  # the picture below is grey and dim, so that every colour stands out on bright pictures too


def scaled(saliency: np.ndarray) -> np.ndarray:
    """[7,7] -> float64 [7,7] in 0..1 by its own least and greatest, as the regions are chosen; a flat map becomes zero."""
    values = np.asarray(saliency, np.float64)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def smooth(values: np.ndarray, side: int) -> np.ndarray:
    """[7,7] in 0..1 -> [side,side] in 0..1, bicubic; row and column stay row and column."""
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.clip(np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), np.float64), 0.0, 1.0)


def colours(values: np.ndarray) -> np.ndarray:
    """[...] in 0..1 -> float64 [...,3] in 0..255."""
    at = np.clip(values, 0.0, 1.0) * (len(_ANCHORS) - 1)
    return np.stack([np.interp(at, np.arange(len(_ANCHORS)), _ANCHORS[:, c]) for c in range(3)], axis=-1)


def opacity(values: np.ndarray) -> np.ndarray:
    """[...] in 0..1 -> [...]: nothing where low, then a smooth rise."""
    t = np.clip((values - _OPAQUE_FROM) / (_OPAQUE_AT - _OPAQUE_FROM), 0.0, 1.0)
    return _MOST_OPAQUE * t * t * (3 - 2 * t)


def overlay(square: Image.Image, saliency: np.ndarray) -> Image.Image:
    """The heat map of ``saliency`` [7,7] over ``square`` (RGB, any size), which turns grey below it."""
    grey = np.asarray(square.convert("L"), np.float64) * _GREY_SPAN + _GREY_LOW
    values = smooth(scaled(saliency), square.width)
    return _over(np.repeat(grey[..., None], 3, axis=-1), values)


def colour_bar(width: int, height: int) -> Image.Image:
    """Low (left) to high (right), as the overlay looks on a middling grey."""
    values = np.tile(np.linspace(0.0, 1.0, width), (height, 1))
    return _over(np.full((height, width, 3), 128 * _GREY_SPAN + _GREY_LOW), values)


def _over(below: np.ndarray, values: np.ndarray) -> Image.Image:
    alpha = opacity(values)[..., None]
    return Image.fromarray((below * (1 - alpha) + colours(values) * alpha + 0.5).astype(np.uint8))
