"""Builds of the C++ tests: one folder a kind, made once a session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_ENVIRONMENT = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def missing_tool() -> str | None:
    """Why nothing can be built here, or None."""
    for tool in ("cmake", "ninja", os.environ.get("CXX", "c++")):
        if shutil.which(tool, path=_ENVIRONMENT["PATH"]) is None:
            return f"{tool} is not installed"
    return None


def build(folder: Path, sanitize: str, *targets: str) -> Path:
    """Folder of the built programs.  Debug with -O1: what sanitizers recommend, and half the time of an optimised build."""
    flags = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS=-O1", f"-DFUSEDX_SANITIZE={sanitize}"]
    flags += ["-DFUSEDX_PYTHON=OFF", "-DFUSEDX_TESTS=ON"]
    for command in (["cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, *flags], ["ninja", "-C", folder, *targets]):
        done = subprocess.run(command, env=_ENVIRONMENT, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return folder / "tests"


def run(*command: object, lines: list[str] | None = None) -> str:
    """Standard output of a program that must succeed; ``lines`` go to its standard input."""
    text = None if lines is None else "".join(f"{line}\n" for line in lines)
    environment = _ENVIRONMENT | {"UBSAN_OPTIONS": "print_stacktrace=1", "ASAN_OPTIONS": "allocator_may_return_null=0"}
    done = subprocess.run([str(c) for c in command], env=environment, input=text, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout
