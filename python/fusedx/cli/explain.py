"""``fusedx explain``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from fusedx.cli import progress
from fusedx.cli.options import SAMPLING, device_options, noise_options, open_model, picture_options
from fusedx.cli.text import printable


@click.command("explain", short_help="Draw how one image was classified.")
@click.argument("model")
@click.argument("image")
@click.option("-o", "--output", metavar="FILE.png", required=True, help="Picture to make.")
@click.option("--overwrite", is_flag=True, help="Replace FILE.png when it exists.")
@noise_options
@picture_options
@device_options
def command(model: str, image: str, output: str, overwrite: bool, **options: Any) -> None:
    """Draw how one image was classified.

    The picture shows the image with the model's six regions and saliency, the class scores along the chain, and the final
    probabilities.

    \b
    fusedx explain aptos.fusedx fundus.png -o why.png
    fusedx explain aptos.fusedx scan.dcm -o why.png --frame 3 --draws auto
    """
    target = Path(output)
    check(target, overwrite)
    sampling = {name: options.pop(name) for name in SAMPLING}
    with progress.stages("explain") as stage:
        stage("loading the model")
        opened = open_model(model, **options)
        from fusedx.explain import explain
        from fusedx.results.png import save_png

        stage("computing and drawing")
        picture = explain(opened, image, **sampling)
        save_png(picture, target)
    click.echo(f"{printable(str(target))}: {picture.width} x {picture.height}")


def check(target: Path, overwrite: bool) -> None:
    """OutputError where the picture cannot be written; changes nothing."""
    from fusedx.results import OutputError

    if target.suffix.lower() != ".png":
        raise OutputError(f"{target}: the name must end in .png")
    if target.exists() and not target.is_file():
        raise OutputError(f"{target} exists and is not a file")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; choose another name or pass --overwrite")
    try:
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from None
