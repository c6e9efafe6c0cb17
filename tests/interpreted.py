"""Files of tests for Triton's interpreter, in processes of their own: Triton decides at import whether kernels are compiled or interpreted.

They take minutes, and one processor; so those that a session selects run one after the other beside its other tests, from its beginning
(conftest.py), and a test of one waits for its result.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class Beside:
    """The process that runs them, in the environment of this moment."""

    def __init__(self, files: list[Path]) -> None:
        self._results = Path(tempfile.mkdtemp(prefix="fusedx-interpreted-"))
        paths = [str(ROOT / "python"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, __file__, self._results, *files]
        # A session of its own: a Ctrl-C is this one's to act on.  The pipe tells it when this one is over, however it ends.
        self._process = subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True, stdin=subprocess.PIPE)

    def check(self, file: Path) -> None:
        result = self._results / file.name
        while not result.exists() and self._process.poll() is None:
            time.sleep(0.1)
        status, output, errors = json.loads(result.read_text())
        assert status == 0, output[-20000:] + errors[-2000:]
        assert re.search(r"\d+ passed", output) and "skipped" not in output

    def end(self) -> None:
        self._process.communicate()
        shutil.rmtree(self._results, ignore_errors=True)


def end_with_session() -> None:
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


def main(results: Path, files: list[str]) -> None:
    threading.Thread(target=end_with_session, daemon=True).start()
    for file in files:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        whole = results / "unfinished"
        whole.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
        whole.rename(results / Path(file).name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
