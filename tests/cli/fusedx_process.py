"""Starting the real command line in its own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "tests" / "golden" / "preprocess"
PICTURE = PICTURES / "rgb_301x223.png"


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "python"), "PYTHONIOENCODING": "utf-8"} | more


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fusedx", *(str(a) if not isinstance(a, bytes) else os.fsdecode(a) for a in arguments)]


def start(*arguments: object, **options: object) -> subprocess.Popen:
    """A running fusedx that Ctrl-C reaches, even where the tests themselves run with SIGINT ignored."""
    return subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options,
    )  # fmt: skip


def many(path: Path, count: int) -> Path:
    """A manifest that names one picture ``count`` times."""
    path.write_text("path\n" + f"{PICTURE}\n" * count)
    return path
