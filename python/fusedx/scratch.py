"""Half-made results: hidden beside their target, with the permissions that anything else of this user gets, renamed when whole."""

from __future__ import annotations

import secrets
from pathlib import Path

_LONGEST = 100


def file_beside(target: Path) -> Path:
    """A new empty file in the target's folder."""
    path = _name(target)
    path.touch(exist_ok=False)
    return path


def folder_beside(target: Path) -> Path:
    """A new empty folder in the target's folder."""
    path = _name(target)
    path.mkdir()
    return path


def _name(target: Path) -> Path:
    """Hidden, unguessable, and short enough wherever the target's own name is."""
    return target.with_name(f".{target.name[:_LONGEST]}.{secrets.token_hex(8)}.part")
