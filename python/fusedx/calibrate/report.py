"""A calibration from beginning to end, and what is left of it: a folder with the curve, and the temperature in the manifest."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fusedx
from fusedx.calibrate import answers, curve, pictures, temperature
from fusedx.calibrate.answers import Advance
from fusedx.calibrate.curve import Curve, Point
from fusedx.engine import compiled
from fusedx.engine.errors import ConfigError, ModelFormatError
from fusedx.engine.limits import SOLVERS
from fusedx.engine.sampling import Sampling
from fusedx.engine.temperature import Temperature
from fusedx.results.writer import OutputError
from fusedx.scratch import file_beside, folder_beside

if TYPE_CHECKING:
    from fusedx.model import Model

#: Steps that are tried where none are named: of DiffMIC, and of the ten of DiffMIC-v2.
STEPS = {"diffmic-v1": (5, 10, 20, 50), "diffmic-v2": (1, 2, 3, 5)}
SOLVERS_OF = {"diffmic-v1": SOLVERS[1:], "diffmic-v2": ("ddim",)}
#: What a folder of results holds.
CURVE_CSV, CURVE_JSON, CURVE_PNG = "curve.csv", "curve.json", "curve.png"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured.

    runtime: what computed.  sampling: of the published chain.  pictures: how many, and ``pictures_sha256`` which; skipped: a reason a file.
    temperature: None without labels, or where none fits them, and then ``no_temperature`` says why.
    """

    model: str
    model_sha256: str
    runtime: dict[str, str]
    sampling: Sampling
    pictures: int
    pictures_sha256: str
    skipped: list[str]
    curve: Curve
    temperature: Temperature | None
    no_temperature: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        s = self.sampling
        return {
            "model": self.model,
            "model_sha256": self.model_sha256,
            "fusedx": fusedx.__version__,
            **self.runtime,
            "draws": s.draws,
            "seed": s.seed,
            "start": s.start,
            "pictures": self.pictures,
            "pictures_sha256": self.pictures_sha256,
            "interval": "95 %, Wilson",
            "skipped": self.skipped,
            "rows": [point.row() for point in self.points],
            "temperature": self.temperature and asdict(self.temperature),
            "no_temperature": self.no_temperature,
        }

    @property
    def points(self) -> list[Point]:
        """The published chain, the floor, the solvers."""
        return [self.curve.published, self.curve.floor, *self.curve.points]


def settings(
    model: Model, solvers: Sequence[str], steps: Sequence[int], *, draws: int | None, seed: int | None, start: str | None
) -> list[Sampling]:
    """The published chain, the same with another seed, and every solver with every number of steps.  ConfigError for an impossible one."""
    family, own = model.manifest.family, model.manifest.schedule.steps
    published = model.sampling(draws=draws, seed=seed, start=start)
    if isinstance(published.draws, str):
        raise ConfigError(f"a calibration compares equal numbers of draws, and draws={published.draws!r} gives others to each picture")
    solvers = list(dict.fromkeys(solvers)) or SOLVERS_OF[family]
    steps = sorted(set(steps)) or [count for count in STEPS[family] if count < own] or [max(1, own - 1)]
    few = [
        model.sampling(draws=draws, seed=seed, start=start, solver=solver, solver_steps=count) for solver in solvers for count in steps
    ]
    return [published, answers.another_seed(published), *few]


def calibrate(
    model: Model,
    chosen: list[Sampling],
    listed: pictures.Listed,
    *,
    batch_size: int = 16,
    advance: Advance = lambda done: None,
) -> Calibration:
    """Run the pictures through the settings, and say what follows; a temperature where they have labels that one fits.

    ConfigError where labels are too few, or pictures, or a picture has two labels.
    """
    labelled = sum(label is not None for label in listed.labels)
    if labelled and model.manifest.task == "multilabel":
        raise ConfigError("labels calibrate a model with one label a picture; this one is multi-label: leave --labels out")
    if labelled:
        temperature.require(labelled)  # before any work; again when it is known how many of them are different and can be read
    found = answers.collect(model, listed, chosen, batch_size, advance)
    fitted, why_not = None, None
    if labelled:
        try:
            fitted = temperature.measure(found, 0, chosen[0])
        except ConfigError as error:  # the curve needs no labels
            why_not = str(error)
    return Calibration(
        model=model.manifest_path.parent.name,
        model_sha256=model.digest,
        runtime=model.runtime,
        sampling=chosen[0],
        pictures=len(found),
        pictures_sha256=found.sha256,
        skipped=found.skipped,
        curve=curve.measure(found, model.manifest.schedule.steps, model.manifest.task),
        temperature=fitted,
        no_temperature=why_not,
    )


def check_folder(target: Path, overwrite: bool) -> None:
    """OutputError where the results cannot be written: before minutes of work, and again before they are."""
    if os.path.lexists(target):
        if not target.is_dir() or target.is_symlink():
            raise OutputError(f"{target} exists and is not a folder")
        names = sorted(path.name for path in target.iterdir())
        if further := [name for name in names if name not in (CURVE_CSV, CURVE_JSON, CURVE_PNG)]:
            raise OutputError(f"{target} exists and holds {further[0]!r}, which is none of a calibration's files; choose another name")
        if names and not overwrite:
            raise OutputError(f"{target} exists; choose another name or pass --overwrite")
    try:
        folder_beside(target).rmdir()
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from None


def write(report: Calibration, target: Path, overwrite: bool) -> None:
    """The curve as a table, as JSON and as a picture, in a folder that appears whole or not at all."""
    from fusedx.calibrate import chart

    check_folder(target, overwrite)
    scratch = folder_beside(target)
    try:
        (scratch / CURVE_CSV).write_text(_csv(report), "utf-8", newline="")
        (scratch / CURVE_JSON).write_text(json.dumps(report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
        s = report.sampling
        draws = "1 draw" if s.draws == 1 else f"mean of {s.draws} draws"
        text = f"{report.model} · {report.curve.published.steps} published steps · {report.pictures} pictures · {draws} · seed {s.seed}"
        chart.draw(report.curve, text + ("" if s.start == "published" else f" · {s.start} start")).save(scratch / CURVE_PNG)
        if target.is_dir():
            aside = folder_beside(target)
            aside.rmdir()
            target.rename(aside)
            try:
                scratch.rename(target)
            except BaseException:
                aside.rename(target)
                raise
            shutil.rmtree(aside, ignore_errors=True)
        else:
            scratch.rename(target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _csv(report: Calibration) -> str:
    text = io.StringIO()
    rows = [point.row() for point in report.points]
    table = csv.DictWriter(text, list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def check_store(model: Model) -> None:
    """ConfigError where the answers are not those of the weights that the manifest speaks for."""
    own, here = model.manifest.precision, model.runtime["precision"]
    if own != here:
        raise ConfigError(
            f"{model.manifest_path.parent} is compiled in {own} and was loaded in {here}, whose scores have a temperature of their own: "
            f"store that of {own}, or compile in {here}"
        )


def store(model: Model, fitted: Temperature) -> str:
    """Write the temperature into the model's manifest, in one rename; -> the model's new digest, the old one's being that of its results.

    ConfigError as of :func:`check_store`; ModelFormatError where the manifest has changed since the model was opened, or cannot be written.
    """
    check_store(model)
    path = model.manifest_path
    try:
        if compiled.sha256_file(path) != model.digest:
            raise ModelFormatError(f"{path} has changed since the model was opened; it was left alone")
        scratch = file_beside(path)
        try:
            scratch.chmod(path.stat().st_mode & 0o777)
            with scratch.open("wb") as file:
                file.write(replace(model.manifest, temperature=fitted).to_json().encode())
                file.flush()
                os.fsync(file.fileno())
            compiled.open_model(path.parent, verify=False)  # the folder is still a model of ours
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
        return compiled.sha256_file(path)
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be written: {error.strerror or error}; it is as it was") from None
