"""Modality and VOI lookup tables (PS3.3 C.11.1.1, C.11.2.1.1).

Not pydicom's ``apply_voi`` and ``apply_modality_lut``: they compute the index in the type of the table or of the pixels
before limiting it, so that rescaled values, or tables of more than 256 entries of 8 bits, wrap around.
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from fusedx.engine.errors import InputError
from fusedx.inputs.scaling import Curve


def table_curve(item: Dataset, little: bool, name: str) -> tuple[Curve, dict[str, object]]:
    """Return one sequence item's table as a curve, and {"entries", "first", "bits"}.

    A value is rounded, values before the first entry take the first, values after the last the last.
    Raises InputError("corrupt").
    """
    if "LUTDescriptor" not in item or "LUTData" not in item or len(item.LUTDescriptor) != 3:
        raise InputError("corrupt", f"{name}: a lookup table without descriptor or data")
    entries, first, bits = (int(part) for part in item.LUTDescriptor)
    entries = entries or 65536
    data = item.LUTData
    if isinstance(data, bytes):
        wide = len(data) >= 2 * entries
        table = np.frombuffer(data, ("<u2" if little else ">u2") if wide else np.uint8)
    else:
        table = np.atleast_1d(np.asarray(data, np.int64))
    if len(table) < entries or not 1 <= bits <= 16:
        raise InputError("corrupt", f"{name}: a lookup table of {len(table)} entries, {entries} of {bits} bits declared")
    table = table[:entries].astype(np.float64)

    def curve(values: np.ndarray) -> np.ndarray:
        return table[np.clip(np.rint(values) - first, 0, entries - 1).astype(np.intp)]

    return curve, {"entries": entries, "first": first, "bits": bits}
