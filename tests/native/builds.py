"""Builds of the C++ tests: one folder for each choice of sanitizers, made once a session, whichever of its workers asks first."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_ENVIRONMENT = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def missing_tool() -> str | None:
    """Why nothing can be built here, or None."""
    for tool in ("cmake", "ninja", os.environ.get("CXX", "c++")):
        if shutil.which(tool, path=_ENVIRONMENT["PATH"]) is None:
            return f"{tool} is not installed"
    return None


def build(temporary: pytest.TempPathFactory, sanitize: str, *targets: str) -> Path:
    """Folder of the built programs.  Debug with -O1: what sanitizers recommend, and half the time of an optimised build."""
    flags = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS=-O1", f"-DFUSEDX_SANITIZE={sanitize}"]
    flags += ["-DFUSEDX_PYTHON=OFF", "-DFUSEDX_TESTS=ON"]
    session = temporary.getbasetemp()
    session = session.parent if "PYTEST_XDIST_WORKER" in os.environ else session  # each worker has a folder of its own in it
    folder = session / f"build-{sanitize}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "build.ninja").exists():
            _command("cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, *flags)
        _command("ninja", "-C", folder, *targets)
    return folder / "tests"


def _command(*command: object) -> None:
    done = subprocess.run([str(c) for c in command], env=_ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]


def run(*command: object, lines: list[str] | None = None) -> str:
    """Standard output of a program that must succeed; ``lines`` go to its standard input."""
    text = None if lines is None else "".join(f"{line}\n" for line in lines)
    environment = _ENVIRONMENT | {"UBSAN_OPTIONS": "print_stacktrace=1", "ASAN_OPTIONS": "allocator_may_return_null=0"}
    done = subprocess.run([str(c) for c in command], env=environment, input=text, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout
