"""The interface of the three formats, and the file beneath two of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import IO, Protocol

from fusedx.engine.errors import FusedxError
from fusedx.results.rows import Row


class OutputError(FusedxError):
    """A table cannot be written where it was asked for."""


@dataclass(frozen=True, slots=True)
class Existing:
    """The rows that a resumed table already has.  sources: how often each occurs."""

    sources: Counter[str]
    failed: int = 0
    cut: int = 0

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.sources.total()


class Writer(Protocol):
    """Takes rows in order.  After ``close`` the table is valid, however few rows it has; ``close`` may be called twice."""

    def write(self, row: Row) -> None: ...
    def close(self) -> None: ...


class LineFile:
    """A file that only ever grows by whole records: each is handed to the system at once, and a half-written one is cut off.

    ``own``: False for standard output, which is neither cut (it may be appended to something) nor closed.
    """

    def __init__(self, file: IO[bytes], own: bool = True) -> None:
        self._file = file
        self._own = own
        self._end = file.tell() if own else 0

    def append(self, record: bytes) -> None:
        """OSError (a full disk, say) leaves the file as it was before."""
        try:
            rest = memoryview(record)
            while rest:
                rest = rest[self._file.write(rest) :]
            self._file.flush()
        except OSError:
            if self._own:
                self._file.truncate(self._end)
            raise
        self._end += len(record)

    def close(self) -> None:
        """Nothing is buffered here, so nothing can fail."""
        if self._own:
            self._file.close()
