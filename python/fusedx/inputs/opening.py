"""Opening a path without being fooled by folders, pipes or devices."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from fusedx.engine.errors import InputError

_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_NO_SUCH = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """Yield the regular, non-empty file ``name``, opened for reading.

    Raises InputError "not_found", "not_a_file", "unreadable" or "empty".  A pipe never blocks: the kind is checked before
    opening, and again on the open descriptor, which is opened without blocking.
    """
    try:
        _require_regular(os.stat(name), name)
        descriptor = os.open(name, _FLAGS)
    except InputError:  # is a ValueError
        raise
    except ValueError:  # a NUL byte in the path
        raise InputError("not_found", f"{name!r}: not a possible path") from None
    except OSError as error:
        raise _refusal(error, name) from None
    with open(descriptor, "rb") as file:
        state = os.fstat(file.fileno())
        _require_regular(state, name)
        if state.st_size == 0:
            raise InputError("empty", f"{name}: zero bytes")
        yield file


def _require_regular(state: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(state.st_mode):
        kind = "a folder" if stat.S_ISDIR(state.st_mode) else "a pipe, socket or device"
        raise InputError("not_a_file", f"{name}: {kind}, not a file")


def _refusal(error: OSError, name: str) -> InputError:
    if error.errno in _NO_SUCH:
        if os.path.islink(name):
            return InputError("not_found", f"{name}: a symbolic link to a file that does not exist")
        return InputError("not_found", f"{name}: no such file")
    return InputError("unreadable", f"{name}: cannot be opened ({error.strerror or type(error).__name__})")
