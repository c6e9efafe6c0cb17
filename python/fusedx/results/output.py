"""Where a table goes: checked before any work, opened once the model is known."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import cast

from fusedx.results import parquet, resume
from fusedx.results.csv import CSVWriter
from fusedx.results.jsonl import JSONLWriter
from fusedx.results.rows import Run, columns
from fusedx.results.writer import Existing, OutputError, Writer

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

FORMATS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Destination:
    """An output path and what to do when it exists."""

    path: Path
    overwrite: bool = False
    resume: bool = False

    @property
    def kind(self) -> str:
        """.csv, .jsonl or .parquet."""
        return self.path.suffix.lower()

    def check(self) -> None:
        """OutputError or UnavailableError for what can be known before the model is loaded; changes nothing."""
        if self.kind not in FORMATS:
            raise OutputError(f"{self.path}: the name must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
        if self.overwrite and self.resume:
            raise OutputError("--overwrite and --resume contradict each other")
        if self.kind == ".parquet":
            if self.resume:
                raise OutputError("--resume works with .csv and .jsonl; a Parquet file cannot be continued")
            parquet.require()
        if self.path.exists() and not self.path.is_file():
            raise OutputError(f"{self.path} exists and is not a file")
        if self.path.exists() and not (self.overwrite or self.resume):
            more = "" if self.kind == ".parquet" else ", --resume to continue it"
            raise OutputError(f"{self.path} exists; pass --overwrite to replace it{more}, or choose another name")
        self._probe()

    def open(self, run: Run) -> tuple[Writer, Existing]:
        """The writer, and what the table already has (nothing, unless resuming)."""
        table = columns(run)
        try:
            if self.kind == ".parquet":
                return parquet.ParquetWriter(self.path, table), Existing(Counter())
            present = (self.resume or self.overwrite) and self.path.exists()
            file = cast(FileIO, self.path.open("r+b" if present else "xb", buffering=0))
            self._lock(file)
            if self.resume and present:
                return self._continue(file, run)
            file.truncate(0)
        except FileExistsError:
            raise OutputError(f"{self.path} has appeared since the start; it was left alone") from None
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror or error}") from None
        return (CSVWriter(file, table) if self.kind == ".csv" else JSONLWriter(file, table)), Existing(Counter())

    def _continue(self, file: FileIO, run: Run) -> tuple[Writer, Existing]:
        existing, end = resume.read(file, self.path, run)
        file.truncate(end)
        file.seek(end)
        if self.kind == ".csv":
            return CSVWriter(file, columns(run), header=end == 0), existing
        return JSONLWriter(file, columns(run)), existing

    def _lock(self, file: FileIO) -> None:
        """Two runs that write one table would interleave their rows; the second is refused.  Released when the file closes."""
        if fcntl is None:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise OutputError(f"{self.path} is being written by another run; it was left alone") from None
        except OSError:  # a file system without locks
            pass

    def _probe(self) -> None:
        """Really opens something for writing: permission bits do not tell of read-only media, quotas or the root user."""
        try:
            if self.path.exists() and self.kind != ".parquet":
                self.path.open("r+b").close()
            else:
                tempfile.TemporaryFile(dir=self.path.parent).close()
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror or error}") from None
