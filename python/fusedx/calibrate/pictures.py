"""Which pictures a calibration looks at, and what their labels are: two tables of a person's making, so every mistake is named."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fusedx.engine.errors import ConfigError

COLUMNS = ("path", "label")
#: Names that an error lists.
_MANY = 5


@dataclass(frozen=True, slots=True)
class Listed:
    """Pictures to be read: paths, sorted; labels: the class of each, None where it has none."""

    paths: list[str]
    labels: list[int | None]


def find(folder: str | os.PathLike[str], labels: str | os.PathLike[str] | None, classes: Sequence[str]) -> Listed:
    """Every file below ``folder`` that is a picture by its name or content, hidden ones left out, with its label.

    labels: a CSV file with the columns path, relative to the file's own folder or else to ``folder``, and label, a class's name or its
    number from 0.  ConfigError for a folder without pictures, and for labels that name no class or no picture of the folder.
    """
    from fusedx.cli.sources import expand

    if not os.path.isdir(folder):
        raise ConfigError(f"{os.fspath(folder)} is not a folder of pictures")
    unlisted: list[str] = []
    paths = list(expand([os.fspath(folder)], recursive=True, warn=unlisted.append))
    if not paths:
        raise ConfigError(f"there is no picture in {os.fspath(folder)}")
    known = _read(Path(labels), Path(folder), classes) if labels is not None else {}
    missing = known.keys() - {os.path.realpath(path) for path in paths}
    if missing:
        raise ConfigError(f"{labels} has labels for files that are no pictures below {os.fspath(folder)}: {_some(sorted(missing))}")
    return Listed(paths, [known.get(os.path.realpath(path)) for path in paths])


def _read(table: Path, folder: Path, classes: Sequence[str]) -> dict[str, int]:
    """Real path -> class."""
    numbers = {str(i): i for i in range(len(classes))} | {name: i for i, name in enumerate(classes)}
    known: dict[str, int] = {}
    wrong: list[str] = []
    for line, path, label in _rows(table):
        if not label.strip():
            continue  # not labelled yet
        if label.strip() not in numbers:
            wrong.append(f"line {line}: {label!r:.60}")
            continue
        where = _place(table, folder, path, line)
        if known.setdefault(where, numbers[label.strip()]) != numbers[label.strip()]:
            raise ConfigError(f"{table}, line {line}: {path!r:.200} has another label than before")
    if wrong:
        raise ConfigError(f"{table} has labels that are no class of the model ({', '.join(classes)}), such as {_some(wrong)}")
    if not known:
        raise ConfigError(f"{table} has no labels")
    return known


def _place(table: Path, folder: Path, path: str, line: int) -> str:
    """The real path of a file beside the table, or else of one in the folder."""
    try:
        beside = table.parent / path
        return os.path.realpath(beside if beside.exists() else folder / path)
    except (OSError, ValueError) as error:  # a name that is too long, a null character
        raise ConfigError(f"{table}, line {line}: {path!r:.200} is no file's name: {getattr(error, 'strerror', None) or error}") from None


def _rows(table: Path) -> list[tuple[int, str, str]]:
    """(line, path, label) of every row that is not empty."""
    try:
        with open(table, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            if absent := [name for name in COLUMNS if name not in (reader.fieldnames or [])]:
                found = ", ".join(repr(name) for name in list(reader.fieldnames or [])[:20]) or "none"
                raise ConfigError(f"{table} has no column {' or '.join(map(repr, absent))}; its columns: {found}")
            return [(reader.line_num, row["path"] or "", row["label"] or "") for row in reader if row["path"] or row["label"]]
    except ConfigError:  # a ValueError too, and says what is wrong already
        raise
    except OSError as error:
        raise ConfigError(f"{table} cannot be read: {error.strerror}") from None
    except (csv.Error, ValueError) as error:
        raise ConfigError(f"{table} is not a table in CSV: {error}") from None


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MANY} more" if len(texts) > _MANY else ""
    return ", ".join(texts[:_MANY]) + more
