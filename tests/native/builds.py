"""Builds of the C++ tests: one folder for each choice of sanitizers, made once a session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_ENVIRONMENT = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
_folders: dict[str, Path] = {}  # of each kind; what several files of tests need is compiled once


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
    if sanitize not in _folders:
        folder = temporary.mktemp(sanitize.replace(",", "-"))
        _command("cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, *flags)
        _folders[sanitize] = folder
    _command("ninja", "-C", _folders[sanitize], *targets)
    return _folders[sanitize] / "tests"


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
