"""The run behind ``fusedx classify``: pictures in, rows out, and what is said at the end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

import fusedx
from fusedx.cli import exits, progress
from fusedx.cli.options import open_model
from fusedx.cli.text import is_terminal, printable
from fusedx.results import Destination, OutputError, Run, Writer, row
from fusedx.results.rows import Row, text
from fusedx.results.writer import Existing

if TYPE_CHECKING:
    from rich.console import Console

    from fusedx.engine.sampling import Sampling
    from fusedx.model import Model, Settings


@dataclass(slots=True)
class Tally:
    """What was done so far in this run."""

    done: int = 0
    undecided: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.perf_counter)

    def count(self, made: Row) -> None:
        self.done += 1
        self.undecided += bool(made["undecided"])
        if made["status"] == "failed":
            self.reasons[made["reason"]] += 1


def run(
    path: str, found: Iterable[str], total: int | None, destination: Destination | None, *,
    topk: int | None, sampling: Settings, batch_size: int, **loading: Any,
) -> int:  # fmt: skip
    """Classify everything in ``found`` and write it; returns the exit status.  Raises exits.Stopped after an interruption."""
    model = open_model(path, **loading)
    setting = run_of(model, model.sampling(**sampling), topk)
    console = _console() if destination is None and is_terminal(sys.stdout) else None
    writer, existing = _open(destination, setting, console)
    tally = Tally()
    try:
        with progress.images(total, console) as advance:
            advance(existing.rows)
            rest = without(found, existing.sources.copy())
            for item in model.stream(rest, batch_size, **sampling):
                with exits.held():
                    made = row(setting, item)
                    _write(writer, made, destination, tally)
                advance(1)
    except KeyboardInterrupt:
        raise exits.Stopped(_stopped(tally, existing, destination)) from None
    finally:
        with exits.held():
            _close(writer, destination)
    click.echo(_summary(tally, existing, destination, setting, _calibration(model, setting)), err=True)
    return exits.SOME_FAILED if tally.reasons or existing.failed else exits.DONE


def run_of(model: Model, sampling: Sampling, topk: int | None) -> Run:
    """What all rows of this run have in common."""
    return Run(
        classes=model.classes,
        draws_setting=sampling.draws_setting,
        seed=sampling.seed,
        start=sampling.start,
        model_sha256=model.digest,
        fusedx=fusedx.__version__,
        exif_orientation=model.read_options.exif_orientation or "ignore",
        frame=model.read_options.frame,
        topk=topk or 0,
        solver=sampling.solver,
        solver_steps=sampling.solver_steps,
        temperature=model.manifest.temperature.value if sampling.calibrated and model.manifest.temperature else None,
        **model.runtime,
    )


def without(found: Iterable[str], present: Counter[str]) -> Iterator[str]:
    """``found`` less the rows already present, each of which stands for one occurrence."""
    for source in found:
        name = text(source)
        if present[name] > 0:
            present[name] -= 1
        else:
            yield source


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _open(destination: Destination | None, setting: Run, console: Console | None) -> tuple[Writer, Existing]:
    if destination:
        writer, existing = destination.open(setting)
        if existing.cut:
            click.echo(f"{printable(str(destination.path))}: cut off a half-written last row of {existing.cut} bytes", err=True)
        if existing.rows:
            click.echo(f"{printable(str(destination.path))}: {existing.rows} rows are there already", err=True)
        return writer, existing
    if console:
        from fusedx.cli.terminal import TerminalWriter

        return TerminalWriter(console, setting), Existing(Counter())
    from fusedx.results import columns
    from fusedx.results.csv import CSVWriter

    return CSVWriter(sys.stdout.buffer, columns(setting), own=False), Existing(Counter())


def _write(writer: Writer, made: Row, destination: Destination | None, tally: Tally) -> None:
    try:
        writer.write(made)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = destination.path if destination else "standard output"
        raise OutputError(f"{where} cannot be written: {error.strerror or error}; it holds {_images(tally.done)} of this run") from None
    tally.count(made)


def _close(writer: Writer, destination: Destination | None) -> None:
    try:
        writer.close()
    except OSError as error:
        raise OutputError(f"{destination and destination.path} cannot be written: {error.strerror or error}") from None


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def _stopped(tally: Tally, existing: Existing, destination: Destination | None) -> str:
    if destination is None:
        return f"{_images(tally.done)} done"
    kept = f"{_images(tally.done)} done, {existing.rows + tally.done} rows in {destination.path}"
    return kept if destination.kind == ".parquet" else f"{kept}; the same command with --resume continues"


def _calibration(model: Model, setting: Run) -> str:
    """What the probabilities were calibrated by, and whether it was fitted for other settings: 8 draws are more certain than 1."""
    t = model.manifest.temperature
    if t is None or setting.temperature is None:
        return ""
    same = t.fits(draws_setting=setting.draws_setting, start=setting.start, solver=setting.solver, solver_steps=setting.solver_steps)
    return f"calibrated, temperature {t.value:.4g}" + ("" if same else f", which was fitted for other settings: {t.made_for}")


def _summary(tally: Tally, existing: Existing, destination: Destination | None, setting: Run, calibration: str) -> str:
    failed = tally.reasons.total()
    seconds = time.perf_counter() - tally.started
    parts = [f"{_images(tally.done)}: {tally.done - failed} ok"]
    if tally.undecided:
        parts[0] += f", {tally.undecided} of them undecided"
    if failed:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(tally.reasons.items()))
        parts[0] += f", {failed} failed ({reasons})"
    if existing.rows:
        parts.append(f"{existing.rows} were there already" + (f", {existing.failed} of them failed" if existing.failed else ""))
    if tally.done:
        parts.append(f"{tally.done / seconds:.1f} images/s")
    if setting.solver_steps is not None:
        parts.append(f"approximate: {setting.solver} in {setting.solver_steps} steps")
    if calibration:
        parts.append(calibration)
    if destination:
        parts.append(printable(str(destination.path)))
    return "; ".join(parts)
