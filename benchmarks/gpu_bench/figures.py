"""What was measured, as rows, and the arithmetic on them: bytes, operations, rates, ratios, the table.  Plain numbers only."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: End of a contender's name: the same one, free to give a row other bits in other company.
NOT_INVARIANT = ", not invariant"
#: End of a contender's name: the same one by the parallel sampler, many steps of a chain at once.
PARALLEL = ", parallel"
#: Bytes of one weight in each format.
WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}


@dataclass(frozen=True, slots=True)
class Limits:
    """What this GPU was measured to do: GB/s of a device copy (bytes read and written) and of reading, TFLOP/s of a bf16 matmul."""

    copy: float
    read: float
    matmul: float


@dataclass(frozen=True, slots=True)
class Row:
    """One contender at one size.

    part: chain, aptos, encoder or classify.  batch: rows of the chain, or images.  seconds: one entry a round; contenders of one group have
    their rounds in common.  moved, operations: bytes of weights that the definition reads and floating-point operations it does in
    that time; 0 where neither is counted.  error: relative, of the values that ``against`` names.  l2: state of the L2 cache at
    the start.  device_seconds: of the same work with the host ahead of the device.
    """

    part: str
    name: str
    batch: int
    seconds: list[float]
    moved: float
    operations: float
    error: float
    against: str
    l2: str
    device_seconds: list[float] | None = None
    note: str = ""

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def gb_s(self) -> float:
        """GB of weights a second."""
        return self.moved / self.median / 1e9

    @property
    def tflop_s(self) -> float:
        """10^12 operations a second."""
        return self.operations / self.median / 1e12

    @property
    def host_added(self) -> float | None:
        """Seconds that the host adds to the device's; None where the row is of device time itself."""
        return None if self.device_seconds is None else self.median - statistics.median(self.device_seconds)


def chain_bytes(feature_dim: int, weight: str, steps: int) -> int:
    """Bytes of the two [F,F] matrices, each read once a step; the tables, 1 % of that, are not counted."""
    return 2 * feature_dim * feature_dim * WEIGHT_BYTES[weight] * steps


def chain_operations(rows: int, feature_dim: int, steps: int) -> int:
    """Multiplications and additions of the two [F,F] matrices."""
    return 2 * 2 * feature_dim * feature_dim * rows * steps


def flush_bytes(l2: int) -> int:
    """What is written to evict everything else from an L2 cache of so many bytes."""
    return 2 * l2


def extrapolated(seconds: float, measured_steps: int, steps: int) -> float:
    """Time of ``steps`` steps from that of the first few: a step costs the same wherever it stands in the chain."""
    if not 0 < measured_steps <= steps:
        raise ValueError(f"measured_steps must be from 1 to {steps}, got {measured_steps}")
    return seconds * steps / measured_steps


def ratio(slow: Row, fast: Row) -> float:
    """How many times as long ``slow`` takes: the median of the quotients of each round, so that a slow round counts for both."""
    return statistics.median(a / b for a, b in zip(slow.seconds, fast.seconds, strict=True))


def invariance_costs(rows: Sequence[Row]) -> list[str]:
    """A line for each contender that was also measured without batch invariance."""
    lines = []
    for free in rows:
        strict = find(rows, free.part, free.name.removesuffix(NOT_INVARIANT), free.batch)
        if free.name.endswith(NOT_INVARIANT) and strict is not None:
            cost = f"{ratio(strict, free):.2f} x the time without it"
            lines.append(f"batch invariance, {free.part}, {strict.name}, batch {free.batch}: {cost}")
    return lines


def as_json(row: Row, limits: Limits) -> dict[str, object]:
    """Everything in the table and the single rounds."""
    return {
        "part": row.part, "contender": row.name, "batch": row.batch, "median_seconds": row.median, "seconds": row.seconds,
        "gb_s": row.gb_s, "of_copy": row.gb_s / limits.copy, "of_read": row.gb_s / limits.read,
        "tflop_s": row.tflop_s, "of_matmul": row.tflop_s / limits.matmul,
        "error": row.error, "error_against": row.against, "l2": row.l2,
        "device_seconds": row.device_seconds, "host_added_seconds": row.host_added, "note": row.note,
    }  # fmt: skip


HEADER = (
    f"{'part':8} {'contender':32} {'batch':>5} {'median ms':>10} {'min..max':>17} {'GB/s':>6} {'of copy':>7} {'of read':>7}"
    f" {'TFLOP/s':>8} {'of matmul':>9} {'L2':>4}  error"
)


def line(row: Row, limits: Limits) -> str:
    """One row of the table, under :data:`HEADER`."""
    spread = f"{min(row.seconds) * 1e3:.3f}..{max(row.seconds) * 1e3:.3f}"
    moved = f"{row.gb_s:6.0f} {row.gb_s / limits.copy:7.0%} {row.gb_s / limits.read:7.0%}" if row.moved else " " * 22
    done = f"{row.tflop_s:8.1f} {row.tflop_s / limits.matmul:9.1%}" if row.operations else " " * 18
    start = f"{row.part:8} {row.name:32} {row.batch:5d} {row.median * 1e3:10.3f} {spread:>17}"
    host = "" if row.host_added is None else f"host adds {row.host_added * 1e3:.3f} ms"
    said = "; ".join(text for text in (host, row.note) if text)
    return f"{start} {moved} {done} {row.l2:>4}  {row.error:.0e} ({row.against})" + (f"  [{said}]" if said else "")


def find(rows: Sequence[Row], part: str, name: str, batch: int) -> Row | None:
    """The row of that contender and size, None where it was not measured."""
    return next((row for row in rows if (row.part, row.name, row.batch) == (part, name, batch)), None)
