"""``fusedx demo``."""

from __future__ import annotations

from pathlib import Path

import click

from fusedx.engine.limits import MAX_DRAWS


@click.command("demo", short_help="Classify the shipped images.")
@click.option("-o", "--output", metavar="DIR", default="demo-output", show_default=True, help="Folder for the explanation pictures.")
@click.option(
    "--draws", type=click.IntRange(1, MAX_DRAWS), default=8, show_default=True, metavar="N", help="Independent chains to average."
)
def command(output: str, draws: int) -> None:
    """Classify the shipped images with the shipped model.  Not for clinical use.

    \b
    fusedx demo
    fusedx demo -o pictures --draws 16
    """
    from fusedx import demo

    for line in demo.run(Path(output), draws):
        click.echo(line)
