"""``fusedx calibrate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusedx.cli import exits, progress
from fusedx.cli.options import device_options, json_option, open_model, picture_options
from fusedx.cli.text import printable, table
from fusedx.engine.errors import ConfigError
from fusedx.engine.limits import MAX_DRAWS, MAX_SEED, MAX_SOLVER_STEPS, SOLVERS, STARTS

if TYPE_CHECKING:
    from fusedx.calibrate.curve import Share
    from fusedx.calibrate.report import Calibration

_MANY = 5


def _steps(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[int]:
    """5,10,20 -> [5, 10, 20]."""
    kind: click.ParamType = click.IntRange(1, MAX_SOLVER_STEPS)
    return [kind.convert(part.strip(), parameter, ctx) for part in value.split(",")] if value else []


def _solvers(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    return [click.Choice(SOLVERS[1:]).convert(part.strip(), parameter, ctx) for part in value.split(",")] if value else []


@click.command("calibrate", short_help="Measure how well fewer steps agree, and fit a temperature.")
@click.argument("model")
@click.option("--images", metavar="DIR", required=True, help="Pictures like those to come, in folders of any depth.")
@click.option(
    "--labels", metavar="FILE.csv", help="Columns path (relative to FILE, or to DIR) and label (a class's name, or its number from 0)."
)
@click.option("--solvers", callback=_solvers, metavar="A,B", help=f"Of {', '.join(SOLVERS[1:])}.  [default: all that the model can run]")
@click.option("--steps", callback=_steps, metavar="N,N", help="Numbers of steps.  [default: 5,10,20,50; diffmic-v2: 1,2,3,5]")
@click.option("--draws", type=click.IntRange(1, MAX_DRAWS), metavar="N", help="Chains to average, of all alike.  [default: the model's]")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), metavar="N", help="Seed of the noise.  [default: the model's]")
@click.option("--start", type=click.Choice(STARTS), help="Where all chains start.  [default: published]")
@click.option("-o", "--output", metavar="DIR", help="Folder to make: curve.csv, curve.json, curve.png.")
@click.option("--overwrite", is_flag=True, help="Replace the folder's results when it exists.")
@click.option("--store", is_flag=True, help="Write the temperature into the model's manifest; needs --labels.")
@click.option(
    "--batch-size", type=click.IntRange(1), default=16, show_default=True, metavar="N", help="Pictures in memory; changes no result."
)
@picture_options
@device_options
@json_option
@click.pass_context
def command(
    ctx: click.Context, model: str, images: str, labels: str | None, output: str | None, overwrite: bool, store: bool, as_json: bool,
    solvers: list[str], steps: list[int], draws: int | None, seed: int | None, start: str | None, batch_size: int, **loading: Any,
) -> None:  # fmt: skip
    """Measure on your own pictures how well fewer steps agree with the published chain, and fit a temperature to labels.

    Every solver starts from the same noise as the published chain. The second line, the published chain with another seed,
    is what the noise alone changes: a solver that agrees as often as that is no worse than another draw. Intervals are 95 %.

    With --labels, half of the pictures fit a temperature and the other half judges it. --store writes it into the model,
    whose digest changes, since the manifest does; --calibrated applies it, and nothing does unless asked.

    Exit status: 0 all done, 1 some files could not be used, 2 could not run, or no temperature fits the labels.

    \b
    fusedx calibrate aptos.fusedx --images validation/ -o curve
    fusedx calibrate aptos.fusedx --images validation/ --labels labels.csv --draws 8 --store
    """
    if store and labels is None:
        raise click.UsageError("--store writes a temperature, which needs --labels FILE.csv.")
    if overwrite and output is None:
        raise click.UsageError("--overwrite needs -o DIR.")
    opened = open_model(model, **loading)
    from fusedx.calibrate import pictures, report

    if store:
        report.check_store(opened)
    target = Path(output) if output else None
    if target:
        report.check_folder(target, overwrite)
    chosen = report.settings(opened, solvers, steps, draws=draws, seed=seed, start=start)
    listed = pictures.find(images, labels, opened.classes)
    with progress.images(len(listed.paths)) as advance:
        found = report.calibrate(opened, chosen, listed, batch_size=batch_size, advance=advance)
    with exits.held():
        if target:
            report.write(found, target, overwrite)
        digest = report.store(opened, found.temperature) if store and found.temperature else None
    for reason in found.skipped[:_MANY]:
        click.echo(f"skipped {printable(reason)}", err=True)
    if len(found.skipped) > _MANY:
        click.echo(f"skipped {len(found.skipped) - _MANY} more" + (f"; {report.CURVE_JSON} names them" if target else ""), err=True)
    click.echo(json.dumps(found.to_dict(), indent=1) if as_json else describe(found))
    if target:
        click.echo(f"{printable(str(target))}: {report.CURVE_CSV}, {report.CURVE_JSON}, {report.CURVE_PNG}", err=True)
    if digest:
        click.echo(f"stored in {printable(model)}, whose digest is now {digest}; its other files are unchanged", err=True)
    if found.no_temperature:
        raise ConfigError(found.no_temperature)
    ctx.exit(exits.SOME_FAILED if found.skipped else exits.DONE)


def describe(found: Calibration) -> str:
    """The curve for people."""
    labelled = found.curve.published.right is not None
    header = ["solver", "steps", "same label", "95 %", "shift mean", "95th pct.", *(["right", "95 %"] if labelled else [])]
    rows = []
    for i, point in enumerate(found.points):
        same = _share(point.agree) if i else ["-", ""]
        shift = [f"{point.mean_shift:.4f}", f"{point.shift_95:.4f}"] if i else ["-", "-"]
        rows.append([point.solver, f"{point.steps}", *same, *shift, *(_share(point.right) if point.right else [])])
    draws = "1 draw" if found.sampling.draws == 1 else f"{found.sampling.draws} draws"
    start = "" if found.sampling.start == "published" else f", {found.sampling.start} start"
    lines = [
        f"{printable(found.model)}: {found.pictures} pictures, {draws}, seed {found.sampling.seed}{start}",
        "against the published chain from the same noise; shift: the largest change of a class's probability",
        "",
        table(header, rows, right=(1, 2, 4, 5, 6)),
    ]
    if found.temperature:
        t = found.temperature
        lines += [
            "",
            f"temperature {t.value:.4g}, fitted on {t.images} pictures, judged on {t.held_out} others",
            table(
                ("", "before", "after"),
                [
                    ("expected calibration error", f"{t.ece_before:.4f}", f"{t.ece_after:.4f}"),
                    ("negative log likelihood", f"{t.nll_before:.4f}", f"{t.nll_after:.4f}"),
                ],
                right=(1, 2),
            ),
        ]
    return "\n".join(lines)


def _share(share: Share) -> list[str]:
    return [f"{share.value:.1%}", f"{share.low:.1%} to {share.high:.1%}"]
