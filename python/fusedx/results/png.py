"""A picture as a PNG file, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fusedx.scratch import file_beside

if TYPE_CHECKING:
    from PIL.Image import Image


def save_png(picture: Image, target: Path) -> None:
    """Write beside the target and rename; replaces what is there."""
    scratch = file_beside(target)
    try:
        picture.save(scratch, "PNG")
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
