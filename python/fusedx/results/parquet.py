"""Parquet through pyarrow.  A Parquet file is unreadable before its footer, so it is written beside the target and renamed."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fusedx.engine.errors import UnavailableError
from fusedx.results.rows import Column, Row
from fusedx.scratch import file_beside

INSTALL = "Parquet needs pyarrow: pip install 'fusedx[parquet]'"
_ROWS = 512


def require() -> None:
    """UnavailableError, with the command to run, unless pyarrow can be imported."""
    if find_spec("pyarrow") is None:
        raise UnavailableError(INSTALL)
    try:
        import pyarrow.parquet  # noqa: F401
    except Exception as error:  # a broken installation may raise anything
        raise UnavailableError(
            f"pyarrow is installed and cannot be imported ({error}); reinstall it: pip install 'fusedx[parquet]'"
        ) from None


class ParquetWriter:
    """See :class:`fusedx.results.writer.Writer`.  Holds at most 512 rows; the file appears at ``close``, and only then."""

    def __init__(self, path: Path, columns: list[Column]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {"text": pa.string(), "int": pa.int64(), "uint64": pa.uint64(), "float": pa.float64(), "bool": pa.bool_()}
        self._schema = pa.schema([pa.field(column.name, kinds[column.kind]) for column in columns])
        self._path = path.resolve()  # a link stays a link
        self._scratch = file_beside(self._path)
        self._table: Any = pq.ParquetWriter(self._scratch, self._schema)
        self._rows: list[Row] = []
        self._open = True

    def write(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) >= _ROWS:
            self._flush()

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            self._flush()
            self._table.close()
            os.replace(self._scratch, self._path)
        except BaseException:
            self._scratch.unlink(missing_ok=True)
            raise

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._table.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
            self._rows = []
