"""Where what is made once and kept on disk lies: compiled kernels, TensorRT plans."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """FUSEDX_CACHE, else fusedx in XDG_CACHE_HOME, else in ~/.cache; a relative XDG_CACHE_HOME is ignored, as its specification asks."""
    if chosen := environment.get("FUSEDX_CACHE"):
        return Path(chosen)
    base = Path(environment.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "fusedx"
