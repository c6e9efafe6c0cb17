"""Where what is made once and kept on disk lies: compiled kernels, TensorRT plans."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fusedx.engine.errors import ConfigError


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """FUSEDX_CACHE, else fusedx in XDG_CACHE_HOME, else in ~/.cache; a relative XDG_CACHE_HOME is ignored, as its specification asks.

    ConfigError where none of these names one: a container's user may have no home.
    """
    if chosen := environment.get("FUSEDX_CACHE"):
        return Path(chosen)
    base = Path(environment.get("XDG_CACHE_HOME", ""))
    try:
        return (base if base.is_absolute() else Path.home() / ".cache") / "fusedx"
    except RuntimeError as error:
        raise ConfigError(f"there is no folder to keep files in: {error} FUSEDX_CACHE names one") from None


def anyone_may_write(folder: Path) -> bool:
    """Whether what lies there may be someone else's.  Raises OSError."""
    return bool(folder.stat().st_mode & stat.S_IWOTH)


def write_whole(file: Path, content: bytes) -> None:
    """Whole or not at all, also while other processes write it, and on the disk when it appears.  Raises OSError."""
    name = ""
    try:
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with os.fdopen(handle, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
