"""CSV as RFC 4180 has it: comma, double quotes where needed, CRLF, a header; UTF-8 without a mark.

Cells are written faithfully.  One that begins with ``=``, ``+``, ``-`` or ``@`` is not altered, although a spreadsheet program
may run it as a formula when it opens the file: a file name is evidence, and a changed one would find no file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import IO, Any

from fusedx.results.rows import Column, Row
from fusedx.results.writer import LineFile

csv.field_size_limit(1 << 24)


class CSVWriter:
    """See :class:`fusedx.results.writer.Writer`.  ``header``: False when the table already has one."""

    def __init__(self, file: IO[bytes], columns: list[Column], header: bool = True, own: bool = True) -> None:
        self._lines = LineFile(file, own)
        self._names = [column.name for column in columns]
        if header:
            self._lines.append(encode(self._names))

    def write(self, row: Row) -> None:
        self._lines.append(encode([row[name] for name in self._names]))

    def close(self) -> None:
        self._lines.close()


def encode(cells: list[Any]) -> bytes:
    """One record; numbers so that they read back exactly, None as an empty cell, truth as ``true`` and ``false``."""
    line = io.StringIO()
    csv.writer(line).writerow([str(cell).lower() if isinstance(cell, bool) else cell for cell in cells])
    return line.getvalue().encode()


def records(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(end offset, bytes) of every whole record from the start; a torn last one is not among them.

    Quotes pair up in whole records and only there, because a quote inside a cell is doubled.
    """
    record, end = b"", 0
    for line in file:
        record += line
        end += len(line)
        if line.endswith(b"\n") and record.count(b'"') % 2 == 0:
            yield end, record
            record = b""


def header(record: bytes) -> list[str]:
    """The cells of a record.  ValueError when it is not CSV in UTF-8."""
    try:
        return next(csv.reader(io.StringIO(record.decode(), newline=""), strict=True))
    except (csv.Error, StopIteration) as error:
        raise ValueError(str(error)) from None


def decode(record: bytes, columns: list[Column]) -> Row:
    """A record as the row that was written.  ValueError when it does not fit the columns."""
    cells = header(record)
    if len(cells) != len(columns):
        raise ValueError(f"{len(cells)} cells in {len(columns)} columns")
    return {column.name: value_of(cell, column.kind) for cell, column in zip(cells, columns, strict=True)}


def value_of(cell: str, kind: str) -> Any:
    """The value that :func:`encode` was given; an empty cell is None."""
    if cell == "":
        return None
    if kind == "bool":
        if cell not in ("true", "false"):
            raise ValueError(f"{cell!r} is neither true nor false")
        return cell == "true"
    return cell if kind == "text" else float(cell) if kind == "float" else int(cell)
