"""Memory that runs out, captures that fail, a GPU that is lost: an error that says what to do, and a model that is usable if it can be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gpu_models import BACKENDS, bits, fresh, pictures

import fusedx
from fusedx.engine.errors import DeviceError, UnavailableError

ROOT = Path(__file__).resolve().parents[2]

LOST = """
import sys, numpy as np, torch, fusedx
from fusedx.engine.errors import DeviceError
model = fusedx.load(sys.argv[1], "cuda", backend=sys.argv[2], encoder="torch-eager", graphs=sys.argv[3] == "graphs")
picture = np.zeros((40, 50, 3), np.uint8)
model.classify(picture)
torch.zeros(4, device="cuda")[torch.tensor([9], device="cuda")]  # an assertion fails on the device, and with it the context
for _ in range(2):
    try:
        model.classify(picture)
    except DeviceError as error:
        print("DeviceError:", error)
"""


@contextmanager
def memory_left(nbytes: int) -> Iterator[None]:
    """This process may allocate so many bytes more."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + nbytes) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_out_of_memory_leaves_the_model_usable(small_model):
    """The images of a batch of 256 alone are 154 MB."""
    model, images = fresh(small_model, "bf16"), pictures(3)
    before = [bits(p) for p in model.classify(images)]
    with memory_left(32 << 20):
        with pytest.raises(DeviceError, match="out of memory.*smaller batch"):
            model.classify(images * 80)
        assert [bits(p) for p in model.classify(images)] == before
    assert [bits(p) for p in model.classify(images * 80)] == before * 80


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_that_does_not_fit(golden_model, backend):
    """While it loads; the next one, with room, loads."""
    path = golden_model("v1-aptos")
    with memory_left(100 << 20), pytest.raises(DeviceError, match="memory"):
        fresh(path, "fp32", backend)
    assert fresh(path, "fp8", backend, graphs=False).classify(pictures(1)[0]).index >= 0


def test_a_capture_that_fails_half_way_can_be_tried_again():
    import torch

    from fusedx.engine.cuda.context import Context

    context, runs = Context(torch.device("cuda", 0), capture=True), []
    with context.working():
        x = torch.zeros(5, device=context.device)

    def work() -> None:
        runs.append(1)
        x.add_(1)
        if len(runs) == 2:  # the first run is the one before the capture
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(DeviceError, match="remains usable"), context.working():
        context.record(work)
    with context.working():
        before = float(x[0])
        replay = context.record(work)
        replay()
        replay()
        assert float(x[0]) == before + 3  # the run before the capture, and two replays


@pytest.mark.parametrize("graphs", ["graphs", "eager"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_lost_gpu_says_to_start_again(small_model, backend, graphs):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "python")}
    command = [sys.executable, "-c", LOST, str(small_model), backend, graphs]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    said = [text for text in done.stdout.splitlines() if text.startswith("DeviceError:")]
    assert len(said) == 2, done.stdout + done.stderr
    assert all("load the model in a new" in text for text in said)


def test_a_gpu_that_is_not_there():
    with pytest.raises(UnavailableError, match="there is no cuda:99; GPUs that this process may see: cuda:0"):
        fusedx.load("anything.fusedx", "cuda:99")


def test_a_precision_that_is_not_there(small_model):
    with pytest.raises(UnavailableError, match="fp32, bf16, fp16, fp8"):
        fusedx.load(small_model, "cuda", "int4")
