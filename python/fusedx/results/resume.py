"""Reads the table of an interrupted run, so that it can go on where it stopped.  Refuses whatever is not the same run's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fusedx.results import csv, jsonl
from fusedx.results.rows import RUN_COLUMNS, Row, Run, columns
from fusedx.results.writer import Existing, OutputError


def read(file: IO[bytes], path: Path, run: Run) -> tuple[Existing, int]:
    """(what the table has, offset where its whole rows end).  OutputError for a table of another model or other settings."""
    sources: Counter[str] = Counter()
    failed = end = 0
    size = file.seek(0, 2)
    file.seek(0)
    for number, (offset, row) in enumerate(_rows(file, path, run), start=1):
        end = offset
        if row is None:
            continue
        _check(row, path, run, number)
        sources[row["source"] or ""] += 1
        failed += row["status"] == "failed"
    if end == 0 and size > 0 and not _torn_start(file, path, run):
        raise OutputError(f"{path} holds no table of fusedx; it was left alone")
    return Existing(sources, failed, size - end), end


def _rows(file: IO[bytes], path: Path, run: Run) -> Iterator[tuple[int, Row | None]]:
    """(end offset, row); the header of a CSV file is None."""
    table = columns(run)
    names = [column.name for column in table]
    is_csv = path.suffix.lower() == ".csv"
    for number, (end, record) in enumerate(csv.records(file) if is_csv else jsonl.records(file), start=1):
        row: Row | None = None
        try:
            if is_csv and number == 1:
                found = csv.header(record)
            else:
                row = csv.decode(record, table) if is_csv else jsonl.decode(record)
                found = list(row)
        except ValueError as error:
            raise OutputError(f"{path}: record {number} cannot be read ({error}); it was left alone") from None
        if found != names:
            raise OutputError(f"{path} has other columns ({_difference(found, names)}); it was left alone")
        yield end, row


def _difference(found: list[str], wanted: list[str]) -> str:
    missing, extra = [n for n in wanted if n not in found], [n for n in found if n not in wanted]
    parts = [
        f"{word} {', '.join(repr(n) for n in some[:4])}{', ...' if len(some) > 4 else ''}"
        for word, some in (("it lacks", missing), ("this run does not write", extra))
        if some
    ]
    return "; ".join(parts) or "in another order"


def _check(row: Row, path: Path, run: Run, number: int) -> None:
    for column in RUN_COLUMNS:
        if row[column.name] != getattr(run, column.name):
            raise OutputError(
                f"{path}: record {number} was computed with {column.name} {row[column.name]}, this run has "
                f"{getattr(run, column.name)}; it was left alone"
            )


def _torn_start(file: IO[bytes], path: Path, run: Run) -> bool:
    """Whether a file without one whole record is the beginning of ours."""
    file.seek(0)
    head = csv.encode([column.name for column in columns(run)]) if path.suffix.lower() == ".csv" else b'{"source": "'
    start = file.read(len(head))
    return head.startswith(start)
