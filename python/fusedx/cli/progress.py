"""What is shown on standard error while something runs.  rich is imported only where somebody looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from fusedx.cli.text import is_terminal, printable

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def stages(what: str) -> Iterator[Callable[[str], None]]:
    """A function that takes a line at the beginning of each stage: a spinner on a terminal, plain lines elsewhere."""
    started = time.perf_counter()
    if not is_terminal(sys.stderr):
        yield lambda stage: click.echo(f"{what}: {printable(stage)}", err=True)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    with console.status(Text(what)) as status:

        def show(stage: str) -> None:
            status.update(Text(f"{what}: {printable(stage)}"))
            console.print(Text(f"{time.perf_counter() - started:6.1f} s  {printable(stage)}", style="dim"))

        yield show


@contextmanager
def images(total: int | None, console: Console | None = None) -> Iterator[Callable[[int], None]]:
    """A function that takes the number of images just done: a bar with the rate on a terminal, nothing elsewhere.

    console: where the bar is drawn if not on standard error, so that lines printed there appear above it.
    """
    if not is_terminal(sys.stderr):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.finished_speed or task.speed or 0:.1f} images/s")

    parts = (TextColumn("classifying"), BarColumn(24), MofNCompleteColumn(), Rate(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*parts, console=console or Console(stderr=True), transient=True, speed_estimate_period=60) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.advance(task, done)
