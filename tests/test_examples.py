"""The examples run as their docstrings say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command: object) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "python")}
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quickstart() -> None:
    lines = run(ROOT / "examples" / "quickstart.py").splitlines()
    assert len(lines) == 6 and all("draws agree" in line for line in lines)


def test_screen_folder(small_model, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    (tmp_path / "good.png").write_bytes((ROOT / "tests/golden/preprocess/small_60x50.png").read_bytes())
    bad, good = map(json.loads, run(ROOT / "examples" / "screen_folder.py", small_model, tmp_path).splitlines())
    assert bad["failed"] == "unknown_format" and good["label"]
