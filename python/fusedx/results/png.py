"""A picture as a PNG file, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def save_png(picture: Image, target: Path) -> None:
    """Write beside the target and rename; replaces what is there."""
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        picture.save(scratch, "PNG")
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
