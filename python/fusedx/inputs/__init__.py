"""Reading one picture from a file, an array or a PIL image: always 8-bit RGB, always with a record of what was decided."""

from fusedx.inputs.options import ReadOptions
from fusedx.inputs.picture import Picture
from fusedx.inputs.reading import read

__all__ = ["Picture", "ReadOptions", "read"]
