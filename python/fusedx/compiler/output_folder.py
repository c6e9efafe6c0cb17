"""Where a compiled model goes: whole or not at all, and in place of nothing but a compiled model."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from fusedx.engine import compiled
from fusedx.engine.errors import ModelFormatError
from fusedx.engine.manifest import FORMAT


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse early, before minutes of work; writing checks again."""
    try:
        if _present(target):
            if not overwrite:
                raise ModelFormatError(f"{target} exists; choose another name or pass --overwrite")
            if (reason := _not_ours(target)) is not None:
                raise ModelFormatError(f"{target} exists and is not a compiled model ({reason}); it will not be replaced")
        parent = target.parent
        while not _present(parent) and parent != parent.parent:
            parent = parent.parent
        if not (parent.is_dir() and os.access(parent, os.W_OK)):
            raise ModelFormatError(f"{parent} is not a folder that can be written to")
    except (OSError, ValueError) as error:
        if isinstance(error, ModelFormatError):
            raise
        shown = str(target)[:200].encode("utf-8", "backslashreplace").decode()
        raise ModelFormatError(f"{shown!r} cannot be written: {getattr(error, 'strerror', None) or error}") from None


def make_parents(target: Path) -> list[Path]:
    """Make the folders above ``target`` that are missing; which they were, outermost first."""
    missing: list[Path] = []
    for folder in target.parents:
        if _present(folder):
            break
        missing.insert(0, folder)
    for folder in missing:
        folder.mkdir(exist_ok=True)
    return missing


def publish(scratch: Path, target: Path, overwrite: bool) -> None:
    """Move into place.  With ``overwrite`` the two folders change places in one step, and ``scratch`` is then the old model."""
    check_target(target, overwrite)  # again: compiling takes a while, and others write too
    if not (overwrite and _present(target)):
        scratch.rename(target)
        return
    if _exchange(scratch, target):
        return
    aside = scratch.with_name(f"{scratch.name}.old")  # no such call here: for a moment there is no model under the name
    target.rename(aside)
    try:
        scratch.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    aside.rename(scratch)


def cannot_write(target: Path, error: OSError) -> ModelFormatError:
    """What to raise where writing failed."""
    return ModelFormatError(f"{str(target)[:1000]} cannot be written: {error.strerror or error}; nothing was left there")


def _present(path: Path) -> bool:
    """Like os.path.lexists, but an impossible name is an error and not an absence."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _not_ours(target: Path) -> str | None:
    """None for a folder that holds a compiled model, damaged or of any version, and nothing else; otherwise what it is.

    ``--overwrite`` deletes what it replaces, and many a folder holds a file named manifest.json.
    """
    if target.is_symlink() or not target.is_dir():
        return "it is a link" if target.is_symlink() else "it is not a folder"
    names = sorted(path.name for path in target.iterdir())
    if not names:
        return None
    if further := [n for n in names if n not in (compiled.MANIFEST, *compiled.FILES)]:
        return f"it holds {further[0]!r}"
    manifest = target / compiled.MANIFEST
    if not manifest.is_file() or f'"{FORMAT}"'.encode() not in manifest.read_bytes()[:4096]:
        return f"its {compiled.MANIFEST} is missing or not fusedx's"
    return None


def _exchange(a: Path, b: Path) -> bool:
    """renameat2(..., RENAME_EXCHANGE); False where the system or file system has no such call."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2
    return call(here, os.fsencode(a), here, os.fsencode(b), ctypes.c_uint(exchange)) == 0
