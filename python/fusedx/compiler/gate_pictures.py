"""The pictures of the precision gate: read once, each counted once, and those that set an int8 encoder's ranges kept from judging it.

The split goes by the SHA-256 of the pixels: the smallest digests set the ranges, the others judge.  So it depends neither on names nor
on the order of files, and has nothing to do with what a picture shows.  Of n pictures a tenth set ranges, from FEWEST to MOST of
compiler/calibration.py, and fewer where otherwise too few were left to judge.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusedx.compiler.calibration import FEWEST, MOST, picture_files
from fusedx.engine import processor
from fusedx.engine.errors import ConfigError, InputError
from fusedx.engine.manifest import IMAGE_SIZE
from fusedx.engine.preprocess import normalize, to_square_uint8
from fusedx.inputs import ReadOptions, read

#: Files that are read side by side, and seconds between two lines of progress within one stage.
_BLOCK, EVERY = 64, 10.0


@dataclass(frozen=True, slots=True)
class Pictures:
    """n pictures in the order of their digests.

    pixels uint8 [N,224,224,3], of all pictures that were read, mapped from a file; rows: these pictures' places there.
    digests: SHA-256 of the decoded pixels, which keys a picture's noise; names: of their files.
    """

    pixels: np.ndarray
    rows: tuple[int, ...]
    digests: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.digests)

    def images(self, start: int, stop: int) -> np.ndarray:
        """float32 [at most stop - start,3,224,224], as an encoder takes them."""
        return np.stack([normalize(self.pixels[row]) for row in self.rows[start:stop]])

    def part(self, start: int, stop: int) -> Pictures:
        """Some of them."""
        return Pictures(self.pixels, self.rows[start:stop], self.digests[start:stop], self.names[start:stop])

    def sha256(self) -> str:
        """One digest of all: over the digests, in their order."""
        return hashlib.sha256(b"".join(map(bytes.fromhex, self.digests))).hexdigest()


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder held.  skipped: why a file is no picture, one text a file.  repeated: files with the pixels of another one."""

    pictures: Pictures
    skipped: tuple[str, ...]
    repeated: int

    def __str__(self) -> str:
        return self.counts + (f", the first: {self.skipped[0]}" if self.skipped else "")

    @property
    def counts(self) -> str:
        """Without a file's name."""
        text = f"{len(self.pictures)} different pictures"
        if self.repeated:
            text += f", {self.repeated} further ones with the pixels of another"
        if self.skipped:
            text += f", {_files(len(self.skipped))} that could not be read"
        return text


def require_files(folder: str | os.PathLike[str], needed: str, fewest: int) -> list[Path]:
    """The files below ``folder``; ConfigError, which says ``needed``, where even they are fewer than ``fewest``."""
    files = picture_files(Path(folder))
    if len(files) < fewest:
        raise ConfigError(f"{needed}; {folder} has {_files(len(files))}")
    return files


def read_pictures(
    folder: str | os.PathLike[str], needed: str, fewest: int, options: ReadOptions, scratch: Path, progress: Callable[[str], None]
) -> Found:
    """Every picture below ``folder``; files that are none, or cannot be read, are skipped and named.

    fewest: ConfigError, which says ``needed``, where there are fewer different ones.
    scratch: a folder for the pixels, 150 kB a picture.
    """
    files = require_files(folder, needed, fewest)
    done = counter(progress, "reading the calibration pictures", len(files), "files")
    kept: dict[str, tuple[int, str]] = {}  # digest -> (row of pixels, name)
    skipped: list[str] = []
    with (scratch / "pixels").open("wb") as file, ThreadPoolExecutor(processor.usable(), thread_name_prefix="fusedx-read") as pool:
        for start in range(0, len(files), _BLOCK):
            done(start)
            block = files[start : start + _BLOCK]
            for path, result in zip(block, pool.map(lambda path: _read(path, options), block), strict=True):
                if isinstance(result, str):
                    skipped.append(result)
                elif result[0] not in kept:
                    kept[result[0]] = len(kept), str(path)
                    file.write(result[1].tobytes())
    order = sorted(kept)
    pixels = np.empty((0, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    if kept:  # an empty file cannot be mapped
        pixels = np.memmap(scratch / "pixels", np.uint8, "r", shape=(len(kept), *pixels.shape[1:]))
    rows, names = zip(*(kept[digest] for digest in order), strict=True) if kept else ((), ())
    found = Found(Pictures(pixels, rows, tuple(order), names), tuple(skipped), len(files) - len(skipped) - len(kept))
    if len(kept) < fewest:
        raise ConfigError(f"{needed}; {folder} has {found}")
    progress(f"the calibration folder has {found}")
    return found


def counter(progress: Callable[[str], None], what: str, total: int, unit: str = "pictures") -> Callable[[int], None]:
    """A function that takes how many are done: it reports the first call, and then at most one in :data:`EVERY` seconds."""
    last: float | None = None

    def done(count: int) -> None:
        nonlocal last
        if last is None or time.monotonic() - last >= EVERY:
            last = time.monotonic()
            progress(f"{what}: {count} of {total} {unit}")

    return done


def split(pictures: Pictures, fewest_judges: int) -> tuple[Pictures, Pictures]:
    """(those that set an int8 encoder's ranges, those that judge); none of the first where they would be too few to say anything."""
    n = len(pictures)
    ranges = min(MOST, max(FEWEST, n // 10), n - fewest_judges)
    ranges = ranges if ranges >= FEWEST else 0
    return pictures.part(0, ranges), pictures.part(ranges, n)


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"


def _read(path: Path, options: ReadOptions) -> tuple[str, np.ndarray] | str:
    """(digest, uint8 [224,224,3]), or why not."""
    try:
        picture = read(path, options)
        return picture.sha256, to_square_uint8(picture.pixels)
    except InputError as error:
        return str(error)
    except MemoryError:
        return f"{path}: not enough memory to decode it"
