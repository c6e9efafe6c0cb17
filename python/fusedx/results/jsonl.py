"""JSON lines: one object a row, the columns as its keys in order, UTF-8."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO

from fusedx.results.rows import Column, Row
from fusedx.results.writer import LineFile


class JSONLWriter:
    """See :class:`fusedx.results.writer.Writer`."""

    def __init__(self, file: IO[bytes], columns: list[Column]) -> None:
        self._lines = LineFile(file)
        self._names = [column.name for column in columns]

    def write(self, row: Row) -> None:
        line = json.dumps({name: row[name] for name in self._names}, ensure_ascii=False, allow_nan=False)
        self._lines.append(line.encode() + b"\n")

    def close(self) -> None:
        self._lines.close()


def records(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(end offset, bytes) of every whole line; a torn last one is not among them."""
    end = 0
    for line in file:
        end += len(line)
        if line.endswith(b"\n"):
            yield end, line


def decode(record: bytes) -> Row:
    """A line as a row.  ValueError when it is not an object."""
    value = json.loads(record)
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__} where a row should be")
    return value
