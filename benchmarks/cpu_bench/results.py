"""What was measured, as rows: printed as they come, and kept for the file."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

from requirement import Target


@dataclass(frozen=True, slots=True)
class Row:
    """One contender in one part.

    part: chain, end to end, or opening.  rows: of the chain, or images.  milliseconds: one entry a round: of a step (chain), of an image
    (end to end), of opening to first prediction.  moved, operations: of the two wide layers in that time, 0 where not counted.
    eps_error: of the first step's eps against float64; error: of the final state against the golden case.  resident, peak, weights:
    bytes of memory after the first prediction, at most until then, and of packed weights and encoder in files.  None: not measured.
    shares: name of a limit -> what part of it was reached, one entry a round.
    """

    part: str
    name: str
    library: str
    precision: str
    rows: int
    milliseconds: list[float]
    moved: float = 0
    operations: float = 0
    eps_error: float | None = None
    error: float | None = None
    resident: int | None = None
    peak: int | None = None
    weights: int | None = None
    note: str = ""
    shares: dict[str, list[float]] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Milliseconds."""
        return statistics.median(self.milliseconds)

    @property
    def gb_s(self) -> float:
        """GB of packed weights a second."""
        return self.moved / self.median / 1e6

    @property
    def gop_s(self) -> float:
        """10^9 operations a second, a product and its addition being two."""
        return self.operations / self.median / 1e6


@dataclass
class Results:
    """``limits``: name -> GB/s or GOP/s as measured, one entry a round.  ``others``: part -> share of the processors that others had."""

    facts: dict[str, object]
    rows: list[Row] = field(default_factory=list)
    limits: dict[str, list[float]] = field(default_factory=dict)
    others: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Keep and print one row."""
        self.rows.append(row)
        print(line(row), flush=True)

    def leave_out(self, what: str, reason: Exception | str) -> None:
        """What has no row, and why."""
        if isinstance(reason, Exception):
            reason = f"{type(reason).__name__}: {(str(reason).strip().splitlines() or [''])[0][:300]}"
        self.left_out.append(f"{what}: {reason}")
        print(f"left out: {what}: {reason}", flush=True)

    def find(self, part: str, name: str, rows: int) -> Row | None:
        """The last such row."""
        return next((r for r in reversed(self.rows) if (r.part, r.name, r.rows) == (part, name, rows)), None)

    def limit(self, name: str) -> float | None:
        """The median of what was measured."""
        return statistics.median(self.limits[name]) if self.limits.get(name) else None

    def write(self, path: Path, targets: list[Target]) -> None:
        """JSON."""
        rows = [asdict(r) | {"median": r.median, "gb_s": r.gb_s, "gop_s": r.gop_s} for r in self.rows]
        wanted = [asdict(t) | {"met": t.met} for t in targets]
        others = {"limits": self.limits, "other_processes": self.others, "left_out": self.left_out}
        path.write_text(json.dumps(self.facts | others | {"rows": rows, "requirements": wanted}, indent=1) + "\n")


HEADER = f"{'part':10} {'rows':>4}  {'':52} {'median ms':>9} {'from':>8} {'to':>8} {'GB/s':>6} {'GOP/s':>6}  {'eps err':>7}  error"


def line(row: Row) -> str:
    """One line under :data:`HEADER`."""
    spread = f"{row.median:9.3f} {min(row.milliseconds):8.3f} {max(row.milliseconds):8.3f}"
    rates = f"{row.gb_s:6.1f} {row.gop_s:6.0f}" if row.moved else " " * 13
    errors = "  ".join("-".rjust(7) if e is None else f"{e:7.0e}" for e in (row.eps_error, row.error))
    memory = ""
    if row.resident is not None and row.weights:
        ratio, peak = row.resident / row.weights, (row.peak or 0) / 2**20
        memory = f"  resident {row.resident / 2**20:.0f} MiB = {ratio:.2f} x weights and encoder, peak {peak:.0f} MiB"
    return f"{row.part:10} {row.rows:4d}  {row.name:52} {spread} {rates}  {errors}{memory}{'  ' + row.note if row.note else ''}"
