"""From nothing open to the first prediction, in fresh processes, and what they hold in memory then."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cpu_bench.results import Results, Row

PART = "opening"
LIBRARY, PYTHON = "libfusedx from C", "Python package"
SOURCE = Path(__file__).with_name("open_and_classify.c")

PROGRAM = """
import json, re, sys, time
import numpy as np
import fusedx
started = time.perf_counter()
model = fusedx.load(sys.argv[1])
model.classify(np.zeros((224, 224, 3), np.uint8))
seconds = time.perf_counter() - started
status = open("/proc/self/status").read()
found = {name: int(re.search(rf"{name}:\\s+(\\d+)", status).group(1)) * 1024 for name in ("VmRSS", "VmHWM")}
print(json.dumps({"seconds": seconds} | found))
"""


def build(prefix: Path, folder: Path) -> Path:
    """Compile the C program against an installed libfusedx (``cmake --install --prefix``, or an unpacked archive)."""
    compiler = next((found for found in map(shutil.which, ("cc", "gcc", "clang")) if found), None)
    if compiler is None:
        raise RuntimeError("there is no C compiler")
    library = next(prefix.glob("lib*/libfusedx.so*"), None)
    if library is None:
        raise FileNotFoundError(f"{prefix} holds no lib/libfusedx.so: install the library there (cmake --install BUILD --prefix DIR)")
    program, place = folder / "open_and_classify", str(library.parent)
    command = [compiler, "-std=c99", "-O2", "-I", prefix / "include", SOURCE, library, f"-Wl,-rpath,{place}", "-o", program]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return program


def measure(results: Results, name: str, command: list[str | Path], model: Path, environment: dict[str, str], rounds: int) -> None:
    """``command`` with the model's folder appended, which prints seconds, VmRSS and VmHWM (bytes) as JSON.

    The files are in the page cache from the second process on, and the first is not counted.
    """
    found = []
    for _ in range(rounds + 1):
        done = subprocess.run([*command, model], env=os.environ | environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
        found.append(json.loads(done.stdout))
    found = found[1:]
    manifest = json.loads((model / "manifest.json").read_text())
    weights = sum(entry["bytes"] for entry in manifest["files"].values())
    resident, peak = (max(f[key] for f in found) for key in ("VmRSS", "VmHWM"))
    row = Row(
        part=PART,
        name=name,
        library="fusedx",
        precision=manifest.get("precision", "fp32"),
        rows=1,
        milliseconds=[f["seconds"] * 1e3 for f in found],
        resident=resident,
        peak=peak,
        weights=weights,
    )
    results.add(row)


def python_command() -> list[str | Path]:
    """For :func:`measure`."""
    return [sys.executable, "-c", PROGRAM]
