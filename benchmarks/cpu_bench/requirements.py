"""What the CPU core must reach, each line beside what was measured."""

from __future__ import annotations

import statistics

from cpu_bench import chain_part, limits, opening, whole
from cpu_bench.contender import BITS, FUSEDX
from cpu_bench.results import Results, Row
from requirement import Target

#: (rows, precision, times as fast as the fastest library).
SPEEDUPS = ((1, "int8", 5.0), (1, "fp32", 1.6), (16, "int8", 5.0), (16, "fp32", 1.3))
_CLASSES_OF_BITS = ((32, "fp32"), (16, "16 bits or more"), (8, "8 bits or more"), (4, "any precision"))


def requirements(results: Results) -> list[Target]:
    """One line each, in the issue's order."""
    found = [_speedup(results, *wanted) for wanted in SPEEDUPS]
    for precision in ("int8", "bf16"):
        text = f"chain, 1 row {precision}: weights at a share of the read bandwidth of as many bytes"
        share = _share(_own(results, 1, precision), limits.bandwidth_name(precision))
        found.append(Target(text, share, 85, "%", True, "whole step, its other layers and update included"))
    rate = _share(_own(results, 32, "int8"), limits.VNNI)
    found.append(Target("chain, 32 rows int8: share of the register-only VNNI rate", rate, 60, "%", True, "whole step"))
    found.append(_end_to_end(results))
    return found + _opening(results)


def _own(results: Results, rows: int, precision: str) -> Row | None:
    return results.find(chain_part.PART, f"{FUSEDX} {precision}", rows)


def _speedup(results: Results, rows: int, precision: str, bound: float) -> Target:
    """Against the fastest library in whatever precision is its best; the note has the same against its wider precisions."""
    own, value, notes = _own(results, rows, precision), None, []
    for bits, words in _CLASSES_OF_BITS:
        library = chain_part.fastest(results.rows, rows, bits)
        if own is not None and library is not None:
            value = library.median / own.median
            notes.append(f"{value:.2f} x against {words} ({library.name}, {library.median:.2f} ms, eps error {library.eps_error:.0e})")
    text = f"chain, {rows} row{'s' if rows > 1 else ''} {precision}: the fastest library takes"
    if own is not None:
        notes.insert(0, f"fusedx {own.median:.2f} ms, eps error {own.eps_error:.0e}")
        if value is not None and (least := _least_milliseconds(results, own)):
            notes.append(f"this machine's limits allow {value * own.median / least:.2f} x at most ({least:.2f} ms)")
    return Target(text, value, bound, "x as long", True, "; ".join(notes))


def _least_milliseconds(results: Results, own: Row) -> float | None:
    """Of the two wide layers in this format: their bytes at the read bandwidth, or their products at the register-only rate."""
    read, products = (results.limit(name(own.precision)) for name in (limits.bandwidth_name, limits.products_name))
    return max(own.moved / read, own.operations / products) / 1e6 if read and products else None


def _share(row: Row | None, limit: str) -> float | None:
    """Per cent: the median of the rounds, each against the limit measured beside it."""
    return 100 * statistics.median(row.shares[limit]) if row is not None and row.shares.get(limit) else None


def _end_to_end(results: Results) -> Target:
    """The requirement leaves the precision open: judged is the fastest of 8 bits or more; four bits cost accuracy, and stand beside."""
    rows = [r for r in results.rows if r.part == whole.PART]
    released = next((r for r in rows if r.name == whole.RELEASED), None)
    own = min((r for r in rows if r.name != whole.RELEASED and BITS[r.precision] >= 8), key=lambda r: r.median, default=None)
    value = None if released is None or own is None else released.median / own.median
    own_rows = [] if released is None else [r for r in rows if r is not released]
    others = [f"{released.median / r.median:.1f} x {r.name}, error {r.error or 0:.0e}" for r in own_rows]
    return Target("v1-isic, one image end to end: the released semantics take", value, 30, "x as long", True, "; ".join(others))


def _opening(results: Results) -> list[Target]:
    row = results.find(opening.PART, opening.LIBRARY, 1)
    python = results.find(opening.PART, opening.PYTHON, 1)
    note = "" if python is None else f"the Python package {python.median / 1e3:.2f} s without its import"
    seconds = None if row is None else row.median / 1e3
    found = [Target("full-width int8 model from C: opening to first prediction", seconds, 1, "s", False, note)]
    ratio = None if row is None or not row.weights or row.resident is None else row.resident / row.weights
    return [*found, Target("the same: resident memory over packed weights and encoder", ratio, 1.2, "x", False)]
