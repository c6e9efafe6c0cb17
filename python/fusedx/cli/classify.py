"""``fusedx classify``."""

from __future__ import annotations

import os
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusedx.cli.options import SAMPLING, device_options, noise_options, picture_options
from fusedx.cli.text import is_terminal, printable

if TYPE_CHECKING:
    from fusedx.model import Settings


@click.command("classify", short_help="Classify images: one row an image.")
@click.argument("model")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", help="Write a table: .csv, .jsonl or .parquet.  [default: standard output]")
@click.option("--overwrite", is_flag=True, help="Replace FILE when it exists.")
@click.option("--resume", is_flag=True, help="Continue FILE (.csv, .jsonl) of an interrupted run with the same settings.")
@click.option("--recursive", is_flag=True, help="Look into the folders of a folder, too.")
@click.option("--topk", type=click.IntRange(1), metavar="K", help="Add columns with the K likeliest classes, in order.")
@noise_options
@click.option(
    "--batch-size", type=click.IntRange(1), default=16, show_default=True, metavar="N", help="Images in memory; changes no result."
)
@picture_options
@device_options
@click.pass_context
def command(
    ctx: click.Context, model: str, inputs: tuple[str, ...], output: str | None, overwrite: bool, resume: bool, **options: Any
) -> None:
    """Classify images with a compiled model: one row an image.

    INPUT is an image (PNG, JPEG, TIFF, BMP, GIF, WebP, DICOM), a folder, a pattern such as 'scans/*.png', or a .csv or
    .parquet manifest with a column "path", relative to the manifest's folder.

    An image that cannot be used becomes a row with status "failed" and a stable reason code; it stops nothing. CSV and
    JSON lines are written row by row, and stay valid when the run is interrupted; Parquet appears when the run ends.
    Cells are never altered, not even those that a spreadsheet program would run as a formula.

    \b
    fusedx classify aptos.fusedx fundus.png
    fusedx classify aptos.fusedx scans/ --recursive -o results.csv
    fusedx classify aptos.fusedx list.csv -o results.jsonl --draws 8 --resume
    fusedx classify aptos.fusedx scans/ -o results.csv --draws auto
    """
    from fusedx.cli import batch, sources
    from fusedx.results import Destination, OutputError

    destination = Destination(Path(output), overwrite, resume) if output else None
    if destination is None and (overwrite or resume):
        raise click.UsageError(f"--{'overwrite' if overwrite else 'resume'} needs -o FILE.")
    if destination:
        if any(os.path.exists(path) and destination.path.exists() and os.path.samefile(path, destination.path) for path in inputs):
            raise OutputError(f"{destination.path} is one of the inputs")
        destination.check()
    recursive = options.pop("recursive")
    sampling: Settings = {name: options.pop(name) for name in SAMPLING}  # type: ignore[assignment]
    sources.check(inputs)
    found = sources.expand(inputs, recursive, _warn)
    first = next(found, None)
    if first is None:
        raise OutputError("nothing to classify")
    total = sum(1 for _ in sources.expand(inputs, recursive)) if is_terminal(sys.stderr) else None
    ctx.exit(batch.run(model, chain([first], found), total, destination, sampling=sampling, **options))


def _warn(text: str) -> None:
    click.echo(f"{click.style('warning:', fg='yellow')} {printable(text)}", err=True)
