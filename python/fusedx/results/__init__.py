"""Tables of results: the same rows as CSV, JSON lines or Parquet, one row an image."""

from fusedx.results.output import Destination
from fusedx.results.rows import Column, Run, columns, row
from fusedx.results.writer import OutputError, Writer

__all__ = ["Column", "Destination", "OutputError", "Run", "Writer", "columns", "row"]
