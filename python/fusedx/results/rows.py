"""What a row holds.  Every format writes these columns, in this order, with these types."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusedx.engine.errors import ConfigError
from fusedx.prediction import Failure, Prediction

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.  kind: text | int | uint64 | float | bool.  Empty (null) in the rows of failed images, unless it is of the run."""

    name: str
    kind: str = "text"


@dataclass(frozen=True, slots=True)
class Run:
    """What every row of a table has in common; two tables may be joined exactly where all of this is equal."""

    classes: tuple[str, ...]
    draws_setting: str
    seed: int
    start: str
    model_sha256: str
    fusedx: str
    device: str
    backend: str
    encoder: str
    precision: str
    encoder_precision: str
    exif_orientation: str
    frame: int
    solver: str = "published"
    solver_steps: int | None = None
    temperature: float | None = None
    topk: int = 0

    def __post_init__(self) -> None:
        if self.topk > len(self.classes):
            raise ConfigError(f"--topk {self.topk}: the model has {len(self.classes)} classes")


#: The columns whose value is the run's.
RUN_COLUMNS = (
    Column("draws_setting"),
    Column("seed", "uint64"),
    Column("start"),
    Column("model_sha256"),
    Column("fusedx"),
    Column("device"),
    Column("backend"),
    Column("encoder"),
    Column("precision"),
    Column("encoder_precision"),
    Column("exif_orientation"),
    Column("frame", "int"),
    Column("solver"),
    Column("solver_steps", "int"),
    Column("temperature", "float"),
)
_PER_CLASS = (("p", "probabilities"), ("score", "scores"), ("se", "standard_error"), ("prior", "prior"))


def columns(run: Run) -> list[Column]:
    """All columns of a run's table, in order."""
    made = [Column("source"), Column("status"), Column("reason"), Column("message"), Column("label"), Column("index", "int")]
    for k in range(1, run.topk + 1):
        made += [Column(f"top{k}"), Column(f"top{k}_p", "float")]
    made += [Column(f"{prefix}:{name}", "float") for prefix, _ in _PER_CLASS for name in run.classes]
    made += [Column("draws", "int"), Column("stability", "float"), Column("undecided", "bool")]
    return [*made, Column("image_sha256"), *RUN_COLUMNS, Column("input_notes")]


def row(run: Run, item: Prediction | Failure) -> Row:
    """The row of one image: every column present, None where there is nothing to say."""
    made: Row = dict.fromkeys(column.name for column in columns(run))
    made |= {column.name: getattr(run, column.name) for column in RUN_COLUMNS}
    made["source"] = text(item.source)
    if isinstance(item, Failure):
        return made | {"status": "failed", "reason": item.reason, "message": text(item.message)}
    made |= {"status": "ok", "label": item.label, "index": item.index}
    for k, i in enumerate(np.argsort(-item.scores, kind="stable")[: run.topk], start=1):
        made |= {f"top{k}": run.classes[i], f"top{k}_p": float(item.probabilities[i])}
    for prefix, field in _PER_CLASS:
        values = [value if math.isfinite(value) else None for value in getattr(item, field).tolist()]  # the error of one draw is unknown
        made |= {f"{prefix}:{name}": value for name, value in zip(run.classes, values, strict=True)}
    notes = json.dumps(item.provenance.get("input", {}), ensure_ascii=False, sort_keys=True, allow_nan=False)
    made |= {"draws": item.draws, "stability": item.stability, "undecided": item.undecided}
    return made | {"image_sha256": item.image_sha256, "input_notes": text(notes)}


def text(value: str) -> str:
    r"""``value`` as valid Unicode.  Bytes of a file name that are not UTF-8 (surrogates, in Python) become ``\xNN``."""
    return "".join(f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c for c in value).encode("utf-8", "replace").decode()
