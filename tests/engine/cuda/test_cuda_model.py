"""The GPU engine without a GPU: as a whole under Triton's interpreter, and the parts that need neither."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton")

from fusedx.engine.cuda.context import Context  # noqa: E402
from fusedx.engine.errors import DeviceError  # noqa: E402

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def test_whole_engine_under_the_interpreter():
    """In a process of its own: Triton decides at import whether kernels are compiled or interpreted."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "interpreted_model.py")]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT / "python")}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout) and "skipped" not in done.stdout


@pytest.fixture
def context() -> Context:
    return Context(torch.device("cpu"), capture=True)


def test_out_of_memory_says_what_to_do_and_leaves_the_model_usable(context):
    with pytest.raises(DeviceError, match="smaller batch.*remains usable"), context.working():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")
    with context.working():
        pass


def test_a_failed_kernel_says_that_the_process_is_done(context):
    with pytest.raises(DeviceError, match="illegal memory access.*load the model in a new one"), context.working():
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ...")


def test_other_errors_pass_unchanged(context):
    with pytest.raises(RuntimeError, match="^shapes differ$"), context.working():
        raise RuntimeError("shapes differ")


def test_without_a_gpu_recording_is_the_work_itself(context):
    ran = []
    replay = context.record(lambda: ran.append(1))
    assert not context.capture and ran == []
    replay()
    replay()
    assert ran == [1, 1]
