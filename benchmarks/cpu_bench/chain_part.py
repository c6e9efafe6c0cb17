"""The hoisted chain: every form of each library first among its own, then the best of each library against fusedx.

Heats keep memory bounded, and a library's best form by rows is known only after them.  Before each timed chain there is a rest and an
untimed chain: threads of the contender before may spin for milliseconds after their work, and would take the processor from the next.

Right after each form of fusedx its limits are measured, in every round: on a rented machine the bandwidth that the neighbours leave may
double from one minute to the next, and only a limit of the same moment says how near a kernel came.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from cpu_bench import limits
from cpu_bench.contender import BITS, FUSEDX, Form, Opened
from cpu_bench.problem import Problem, exact_eps, relative_error
from cpu_bench.results import Results, Row
from turns import alternate

REST = 0.03  # seconds; longer than any library's threads were seen to spin
PROBE = 0.1  # seconds
PART, HEAT = "chain", "heat"


def measure(
    results: Results, problem: Problem, libraries: Iterable[Sequence[Form]], own: Sequence[Form], rounds: int, expected: np.ndarray | None
) -> None:
    """``libraries``: the forms of each.  ``expected``: golden final state of row 0, or None where the problem is not the golden case."""
    exact = exact_eps(problem)
    finalists: list[Form] = []
    for forms in libraries:
        rows = _rounds(results, HEAT, problem, forms, max(3, rounds // 2), exact, None)
        for library in dict.fromkeys(form.library for form in forms):
            finalists += best(forms, [row for row in rows if row.library == library])
    _rounds(results, PART, problem, [*finalists, *own], rounds, exact, expected)


def best(forms: Sequence[Form], rows: Sequence[Row]) -> list[Form]:
    """The fastest of 32, 16, 8 and 4 bits, as far as each is faster than those of more bits."""
    found: list[Row] = []
    for bits in sorted(set(BITS.values()), reverse=True):
        fastest = min((row for row in rows if BITS[row.precision] == bits), key=lambda row: row.median, default=None)
        if fastest is not None and all(fastest.median < row.median for row in found):
            found.append(fastest)
    return [form for form in forms if form.name in {row.name for row in found}]


def _rounds(
    results: Results, part: str, problem: Problem, forms: Sequence[Form], rounds: int, exact: np.ndarray, expected: np.ndarray | None
) -> list[Row]:
    opened: dict[str, tuple[Form, Opened]] = {}
    for form in forms:
        try:
            ready = form.open(problem)
            ready.chain()
            opened[form.name] = form, ready
        except Exception as error:  # a format that a library does not take here must not cost the others
            results.leave_out(f"{part}, {problem.rows} rows, {form.name}", error)
    contenders: dict[str, Callable[[], float]] = {}
    for name, (form, ready) in opened.items():
        contenders[name] = _timed(ready.chain)
        if form.library == FUSEDX:
            contenders |= {f"{name}: {limit}": run for limit, run in limits.probes(problem, form.precision, PROBE).items()}
    seconds = alternate(contenders, rounds)
    rows = []
    for name, (form, ready) in opened.items():
        row = _row(part, problem, form, ready, seconds[name], exact, expected if part == PART else None)
        for limit in (limits.bandwidth_name(form.precision), limits.products_name(form.precision)):
            for milliseconds, rate in zip(row.milliseconds, seconds.get(f"{name}: {limit}", []), strict=False):
                results.limits.setdefault(limit, []).append(rate)
                done = row.moved if limit == limits.bandwidth_name(form.precision) else row.operations
                if rate:
                    row.shares.setdefault(limit, []).append(done / milliseconds / 1e6 / rate)
        results.add(row)
        rows.append(row)
    opened.clear()
    gc.collect()
    return rows


def _timed(chain: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        time.sleep(REST)
        chain()
        started = time.perf_counter()
        chain()
        return time.perf_counter() - started

    return run


def _row(
    part: str, problem: Problem, form: Form, ready: Opened, seconds: list[float], exact: np.ndarray, expected: np.ndarray | None
) -> Row:
    wide = problem.tables.weight2.size + problem.tables.weight3.size
    return Row(
        part=part,
        name=form.name,
        library=form.library,
        precision=form.precision,
        rows=problem.rows,
        milliseconds=[s / problem.steps * 1e3 for s in seconds],
        moved=wide * BITS[form.precision] / 8,
        operations=2.0 * problem.rows * wide,
        eps_error=relative_error(ready.eps(), exact),
        error=None if expected is None else relative_error(ready.whole(), expected),
    )


def fastest(rows: Sequence[Row], count: int, least_bits: int) -> Row | None:
    """The fastest library's row for ``count`` rows with weights of at least so many bits."""
    of = [r for r in rows if r.part == PART and r.rows == count and r.library != FUSEDX and BITS[r.precision] >= least_bits]
    return min(of, key=lambda row: row.median, default=None)
