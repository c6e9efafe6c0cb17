"""Seconds of an evaluation of the denoiser, by machine, precision and width: built in, or measured here and kept.

``fusedx doctor --calibrate`` measures.  The file is the user's own and may be gone, old or damaged: then the built-in times serve.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusedx.engine import processor
from fusedx.engine.cache_folder import cache_folder, write_whole
from fusedx.engine.errors import ConfigError
from fusedx.engine.sampler.cost import GAIN, Costs
from fusedx.kernels.step import STATE_BITS

log = logging.getLogger("fusedx")
_FORMAT = 1
#: Rows and widths beyond are nobody's.
_MOST = 1 << 30

#: Rows of the evaluations that are timed, and the widths F.
ROWS = (1, 4, 8, 12, 14, 16, 20, 24, 32, 48, 64, 128)
WIDTHS = (512, 2048, 6144)


@dataclass(frozen=True, slots=True)
class Machine:
    """What an evaluation's time depends on beside the denoiser."""

    processor: str
    isa: str
    threads: int

    @property
    def file(self) -> Path:
        """Where its times are kept."""
        key = hashlib.sha256(f"{self.processor}|{self.isa}|{self.threads}".encode()).hexdigest()[:16]
        return cache_folder() / f"sampler-costs-{key}.json"


def this_machine() -> Machine:
    """Needs the native module."""
    from fusedx.kernels import native_module

    module = native_module.require("sampler costs")
    return Machine(processor.name(), module.isa(), module.threads())


def costs(precision: str, width: int, machine: Machine | None = None) -> Costs:
    """Of a native denoiser, F = ``width``: times of this machine if they were measured, those of the nearest width times F^2."""
    machine = machine or this_machine()
    tables = read(machine)
    source = "measured here" if tables.get(precision) else "built in, of another machine; fusedx doctor --calibrate measures this one"
    by_width = tables.get(precision) or {WIDTHS[-1]: _built_in(precision, machine.isa)}
    nearest = min(by_width, key=lambda other: abs(math.log(other / width)))
    scale = (width / nearest) ** 2
    rows = sorted(by_width[nearest])
    return Costs(tuple(rows), tuple(by_width[nearest][r] * scale for r in rows), GAIN[STATE_BITS[precision]], source)


def _built_in(precision: str, isa: str) -> dict[int, float]:
    """rows -> seconds at the published width, as the C library has them."""
    from fusedx.kernels import native_module

    module = native_module.require("sampler costs")
    return {rows: module.evaluation_ms(precision, rows, isa) / 1e3 for rows in ROWS}


#: precision -> width -> rows -> seconds.
Tables = dict[str, dict[int, dict[int, float]]]


def write(machine: Machine, tables: Mapping[str, Mapping[int, Mapping[int, float]]]) -> Path:
    """Keep what was measured; -> the file.  Raises OSError."""
    machine.file.parent.mkdir(parents=True, exist_ok=True)
    named = {"processor": machine.processor, "isa": machine.isa, "threads": machine.threads}
    write_whole(machine.file, json.dumps({"format": _FORMAT, "machine": named, "seconds": tables}, indent=1).encode())
    return machine.file


def read(machine: Machine) -> Tables:
    """What was measured on this machine; empty where nothing was or could be kept, or where the file is not what :func:`write` makes."""
    try:
        file = machine.file
    except ConfigError:  # a user without a home
        return {}
    try:
        content = json.loads(file.read_bytes())
        if content["format"] != _FORMAT:
            return {}
        return {precision: _by_width(by_width) for precision, by_width in content["seconds"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        log.warning("%s is not used: %s; fusedx doctor --calibrate makes it anew", file, error)
        return {}


def _by_width(found: Any) -> dict[int, dict[int, float]]:
    tables = {int(width): {int(rows): float(s) for rows, s in by_rows.items()} for width, by_rows in found.items()}
    for width, by_rows in tables.items():
        whole = 1 <= width <= _MOST and 1 in by_rows and 1 <= min(by_rows) and max(by_rows) <= _MOST
        if not whole or not all(0 < s < math.inf for s in by_rows.values()):
            raise ValueError(f"the times of width {str(width):.20} are not positive seconds of 1 row and more")
    return tables
