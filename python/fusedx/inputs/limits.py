"""Size limits, checked on declared sizes before decoding and on real sizes after."""

from __future__ import annotations

from fusedx.engine.errors import InputError
from fusedx.inputs.options import ReadOptions


def check_size(width: int, height: int, options: ReadOptions, name: str) -> None:
    """Raise InputError "empty", "too_large" or "too_small" for a frame of ``width`` x ``height`` pixels."""
    if width < 1 or height < 1:
        raise InputError("empty", f"{name}: {width}x{height} has no pixels")
    if width * height > options.max_pixels:
        raise InputError(
            "too_large", f"{name}: {width}x{height} is {width * height} pixels, the limit (max_pixels) is {options.max_pixels}"
        )
    if min(width, height) < options.min_side:
        raise InputError("too_small", f"{name}: {width}x{height}, the shorter side must have at least {options.min_side} pixels")


def check_frame(index: int, count: int, name: str) -> None:
    """Raise InputError("no_such_frame") unless 0 <= index < count."""
    if not 0 <= index < count:
        raise InputError("no_such_frame", f"{name}: frame {index} asked for, it has {count} (counted from 0)")
