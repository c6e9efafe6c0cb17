"""The one form in which every input reaches the engine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fusedx.engine.errors import InputError


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture.

    pixels: uint8 [H, W, 3], RGB, C-contiguous, read-only, not shared with the source.
    source: the path, "array" or "PIL image".
    notes: every choice that was made on the way, JSON-serialisable.
    """

    pixels: np.ndarray
    source: str
    notes: dict[str, object] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of exactly ``pixels.tobytes()``: after orientation and grey scaling, before any crop.  Computed when asked for."""
        return hashlib.sha256(self.pixels.data).hexdigest()

    @classmethod
    def of(cls, pixels: np.ndarray, source: str, notes: dict[str, object]) -> Picture:
        """Freeze uint8 [H, W, 3] pixels of any strides into a picture; InputError("bad_array") for anything else."""
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise InputError("bad_array", f"{source}: expected uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
        raw = pixels.tobytes()
        frozen = np.frombuffer(raw, np.uint8).reshape(pixels.shape)  # backed by bytes, so it cannot be made writeable again
        return cls(frozen, source, notes)
