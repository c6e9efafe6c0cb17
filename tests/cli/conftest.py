"""Running the real command line, as a user does."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fusedx_process import PICTURE, PICTURES, command, environment

Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def run() -> Run:
    """run(arguments...) -> the finished process, text captured; asserts that nothing ended in a traceback."""

    def finished(*arguments: object, env: dict[str, str] | None = None, **options: object) -> subprocess.CompletedProcess:
        done = subprocess.run(command(*arguments), env=environment(**(env or {})), capture_output=True, text=True, timeout=120, **options)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return finished


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good pictures, one torn, one empty, and things that are no pictures."""
    made = tmp_path / "scans"
    (made / "deeper").mkdir(parents=True)
    shutil.copy(PICTURE, made / "a.png")
    shutil.copy(PICTURES / "photo_450x600.jpg", made / "b.jpg")
    shutil.copy(PICTURES / "small_60x50.png", made / "deeper" / "c.png")
    (made / "torn.png").write_bytes(PICTURE.read_bytes()[:2000])
    (made / "void.png").touch()
    (made / "notes.txt").write_text("not a picture")
    (made / ".hidden.png").write_bytes(b"junk")
    return made
