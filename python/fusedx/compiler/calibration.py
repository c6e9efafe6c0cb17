"""The calibration folder: pictures like those that a model will see, from which an int8 encoder's ranges are measured."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusedx.engine.errors import ConfigError, InputError
from fusedx.inputs import ReadOptions, read
from fusedx.preparation import preprocess

#: Fewer pictures say too little about the ranges; more than the most change nothing but the time it takes.
FEWEST, MOST = 16, 300


@dataclass(frozen=True, slots=True)
class Calibration:
    """images: float32 [3,224,224] each.  digest: SHA-256 of the pictures' pixel digests, in order.  skipped: why, one text a file."""

    images: list[np.ndarray]
    digest: str
    skipped: list[str]


def read_folder(folder: str | os.PathLike, options: ReadOptions = ReadOptions()) -> Calibration:  # noqa: B008  # frozen
    """Every picture below ``folder``, or :data:`MOST` evenly spaced ones, sorted by path; the same folder gives the same set.

    Files that are no pictures, or cannot be read, are skipped and named.  ConfigError where fewer than :data:`FEWEST` are left.
    """
    files = picture_files(Path(folder))
    if len(files) > MOST:
        files = [files[i * len(files) // MOST] for i in range(MOST)]
    images, skipped, digest = [], [], hashlib.sha256()
    for path in files:
        try:
            picture = read(path, options)
        except InputError as error:
            skipped.append(str(error))
            continue
        images.append(preprocess(picture))
        digest.update(bytes.fromhex(picture.sha256))
    if len(images) < FEWEST:
        why = f"; {len(skipped)} could not be read, the first: {skipped[0]}" if skipped else ""
        raise ConfigError(
            f"calibration needs at least {FEWEST} pictures (100 or more are better), and {folder} gave {len(images)}{why}"
        )
    return Calibration(images, digest.hexdigest(), skipped)


def picture_files(folder: Path) -> list[Path]:
    """Regular files below ``folder``, sorted; hidden ones are left out, links to folders are not followed."""
    if not folder.is_dir():
        raise ConfigError(f"calibration folder {folder} is not a folder")
    found: list[Path] = []
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(base, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())
