"""The command line.  One file a command, imported when it is named; heavy modules are imported inside the commands."""

from __future__ import annotations

import sys
from importlib import import_module

import click

import fusedx
from fusedx.cli import exits

COMMANDS = ("compile", "info", "doctor", "classify", "explain", "calibrate", "verify", "demo")


class Commands(click.Group):
    """Finds a command by its file, and turns every deliberate error into one line and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return import_module(f"fusedx.cli.{cmd_name}").command if cmd_name in COMMANDS else None

    def invoke(self, ctx: click.Context) -> object:
        with exits.translated(ctx):
            return super().invoke(ctx)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 all done, 1 some images failed (verify: out of tolerance), 2 could not run, 130 interrupted.",
)
@click.version_option(fusedx.__version__, prog_name="fusedx")
def commands() -> None:
    """Run diffusion-based medical image classifiers: fast, exact, reproducible.  For research; not a medical device.

    \b
    fusedx compile checkpoint/ -o aptos.fusedx
    fusedx classify aptos.fusedx images/ -o results.csv
    """


def main() -> None:
    """Entry point of ``fusedx`` and of ``python -m fusedx``."""
    exits.catch_signals()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a narrow locale must not turn a class name into a traceback
    commands(prog_name="fusedx")
