"""INPUT arguments to single pictures, found lazily: files, folders, patterns, and manifests with a ``path`` column."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Callable, Iterable, Iterator

from fusedx.engine.errors import ConfigError

#: What is taken from a folder by its name; files named one by one are always tried, whatever they are called.
EXTENSIONS = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .tif .tiff .bmp .gif .webp .dcm .dicom".split()
)  # fmt: skip
MANIFESTS = (".csv", ".parquet")
COLUMN = "path"

Warn = Callable[[str], None]


def check(inputs: Iterable[str]) -> None:
    """ConfigError or UnavailableError for a manifest that cannot be used, before any work is done."""
    for path in inputs:
        if _is_manifest(path):
            next(_manifest(path), None)


def expand(inputs: Iterable[str], recursive: bool = False, warn: Warn = lambda text: None) -> Iterator[str]:
    """Every picture of ``inputs``, in order.  A folder's files come sorted, without hidden ones; links to folders are not followed.

    A path that names nothing is yielded as it is and fails later, as its own row; ``warn`` hears of folders and patterns
    without pictures.
    """
    for path in inputs:
        found = False
        for source in _one(path, recursive, warn):
            found = True
            yield source
        if not found:
            warn(f"no picture in {path}" if os.path.isdir(path) or _is_manifest(path) else f"nothing matches {path}")


def _one(path: str, recursive: bool, warn: Warn) -> Iterator[str]:
    if not os.path.lexists(path) and glob.has_magic(path):
        for match in sorted(glob.iglob(path, recursive=True)):
            yield from _plain(match, recursive, warn)
    else:
        yield from _plain(path, recursive, warn)


def _plain(path: str, recursive: bool, warn: Warn) -> Iterator[str]:
    if os.path.isdir(path):
        yield from _folder(path, recursive, warn)
    elif _is_manifest(path):
        yield from _manifest(path)
    else:
        yield path


def _folder(folder: str, recursive: bool, warn: Warn) -> Iterator[str]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        warn(f"{folder} cannot be listed: {error.strerror}")
        yield folder  # becomes a failed row, so that its pictures are not silently left out
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if recursive:
                yield from _folder(entry.path, recursive, warn)
        elif _is_picture(entry):
            yield entry.path


def _is_picture(entry: os.DirEntry[str]) -> bool:
    extension = os.path.splitext(entry.name)[1].lower()
    if extension in EXTENSIONS:
        return not entry.is_dir()
    # DICOM archives name files without an extension, or by a UID, whose last number looks like one.
    return (extension == "" or extension[1:].isdigit()) and entry.is_file() and _is_dicom(entry.path)


def _is_dicom(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _is_manifest(path: str) -> bool:
    return (
        os.path.splitext(path)[1].lower() in MANIFESTS and not os.path.isdir(path) and (os.path.lexists(path) or not glob.has_magic(path))
    )


def _manifest(path: str) -> Iterator[str]:
    """Paths of a manifest, relative to its folder; an empty cell stays empty and fails as its own row."""
    folder = os.path.dirname(path)
    cells = _parquet_cells(path) if path.lower().endswith(".parquet") else _csv_cells(path)
    for cell in cells:
        yield os.path.join(folder, cell) if cell else ""


def _csv_cells(path: str) -> Iterator[str]:
    try:
        # surrogateescape: a path that is not UTF-8 still finds its file.
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            table = csv.DictReader(file)
            _require_column(path, list(table.fieldnames or []))
            for row in table:
                yield row[COLUMN] or ""
    except OSError as error:
        raise ConfigError(f"the manifest {path} cannot be read: {error.strerror}") from None
    except csv.Error as error:
        raise ConfigError(f"the manifest {path} is not CSV: {error} in line {table.line_num}") from None


def _parquet_cells(path: str) -> Iterator[str]:
    from fusedx.results import parquet

    parquet.require()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            _require_column(path, table.schema_arrow.names)
            for batch in table.iter_batches(1024, columns=[COLUMN]):
                for value in batch.column(0).cast(pa.string()).to_pylist():
                    yield value or ""
    except OSError as error:
        raise ConfigError(f"the manifest {path} cannot be read: {error.strerror or error}") from None
    except pa.ArrowException as error:
        raise ConfigError(f"the manifest {path} cannot be read: {error}") from None


def _require_column(path: str, columns: list[str]) -> None:
    if COLUMN not in columns:
        found = ", ".join(repr(c) for c in columns[:20]) or "none"
        raise ConfigError(f"the manifest {path} has no column {COLUMN!r}; its columns: {found}{', ...' if len(columns) > 20 else ''}")
