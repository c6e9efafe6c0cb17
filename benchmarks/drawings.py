"""Drawings of fundus-like pictures (tools/fundus.py, which must be on the path), for encoders in int8: to calibrate with and to try."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import fundus
from fusedx.engine import preprocess


def images(seed: int, count: int) -> np.ndarray:
    """float32 [count,3,224,224], normalised; grades in turn."""
    return np.stack([preprocess.normalize(preprocess.to_square_uint8(fundus.draw(seed, i, i % 5))) for i in range(count)])


def folder(path: Path, seed: int, count: int) -> Path:
    """The same as pictures in a new folder."""
    path.mkdir()
    for i in range(count):
        Image.fromarray(fundus.draw(seed, i, i % 5)).save(path / f"{i:04}.png")
    return path
