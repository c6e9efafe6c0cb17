"""Exit statuses, and how errors and signals become one."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

DONE, SOME_FAILED, COULD_NOT_RUN = 0, 1, 2
INTERRUPTED = 130
#: What a shell reports for a program that SIGPIPE ended: `fusedx ... | head` behaves as other programs do.
BROKEN_PIPE = 141

_signalled = False
_holds = 0


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, with what to tell the user."""


def catch_signals() -> None:
    """SIGINT and SIGTERM raise KeyboardInterrupt, but never inside :func:`held`.  A signal that is ignored stays ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _signalled
    _signalled = True
    if not _holds:
        raise KeyboardInterrupt


@contextmanager
def held() -> Iterator[None]:
    """Nothing in here is interrupted; a signal that came meanwhile takes effect at the end."""
    global _holds
    before = _signalled
    _holds += 1
    try:
        yield
    finally:
        _holds -= 1
    if _signalled and not before and not _holds:
        raise KeyboardInterrupt


@contextmanager
def translated(ctx: click.Context) -> Iterator[None]:
    """FusedxError -> `error: ...` and 2; interruption -> 130; a reader that went away -> silence.

    The rest is a bug: its traceback, and 2.
    """
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        _say_stopped(stop)
        ctx.exit(INTERRUPTED)
    except BrokenPipeError:
        _forget_output()
        ctx.exit(BROKEN_PIPE)
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise  # click's own way out
    except Exception as error:
        if _signalled:  # an interrupted import surfaces as whatever the half-loaded package makes of it
            _say_stopped(error)
            ctx.exit(INTERRUPTED)
        if (text := _deliberate(error)) is None:
            traceback.print_exc()  # a bug; its status must not look like "some images failed"
            ctx.exit(COULD_NOT_RUN)
        from fusedx.cli.text import printable

        click.echo(f"{click.style('error:', fg='red')} {printable(text, newlines=True)}", err=True)
        if isinstance(error, OSError):
            _forget_output()  # what could not be written would fail again at exit
        ctx.exit(COULD_NOT_RUN)


def _deliberate(error: Exception) -> str | None:
    """The text for the user; None for what nobody planned."""
    from fusedx.engine.errors import FusedxError

    if isinstance(error, FusedxError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return f"{where}{error.strerror}"
    return None


#: Causes outside the program: no space, no permission, a read-only medium, a device that fails.
_ENVIRONMENT = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EFBIG, errno.ENAMETOOLONG}


def _say_stopped(stop: Any) -> None:
    detail = str(stop) if isinstance(stop, Stopped) else ""
    click.echo(f"interrupted{': ' if detail else ''}{detail}", err=True)


def _forget_output() -> None:
    """Point standard output at nothing, so that closing it at exit cannot complain."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # caught in a test
        pass
