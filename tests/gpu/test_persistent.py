"""The persistent chain kernel on a GPU: golden cases, invariance, errors, and compute-sanitizer's opinion of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import golden_chains as on_gpu
import numpy as np
import pytest
from golden_chains import FULL, SMALL

from fusedx.engine.backends.python import PythonDenoiser
from fusedx.engine.chain_runner import HostChains
from fusedx.engine.compiled import open_model
from fusedx.engine.cuda.memory import DeviceArray, DeviceOutputs
from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.errors import DeviceError
from tolerances import GPU_CHAIN

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SANITIZER = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")


@pytest.fixture(scope="module")
def open_chains(golden_model, gpu):
    """(case, precision) -> chains on torch's memory, one at a time on the device."""
    pytest.importorskip("torch")
    held = {}

    def opened(name: str, precision: str):
        if (name, precision) not in held:
            held.clear()
            held[name, precision] = on_gpu.open_chains(golden_model(name), gpu, on_gpu.torch_memory(gpu), precision)
        return held[name, precision]

    return opened


@pytest.mark.parametrize("precision", on_gpu.PRECISIONS)
@pytest.mark.parametrize("name", SMALL + FULL)
def test_golden_final_states(open_chains, golden_case, name: str, precision: str) -> None:
    case = golden_case(name)
    scores = open_chains(name, precision).run(on_gpu.encoded(case), case.noise[:, None], keep=False).scores[0]
    expected = on_gpu.final(case)
    if name in SMALL or precision == "fp32":
        assert on_gpu.relative_error(scores, expected) <= GPU_CHAIN[precision]
    assert np.array_equal(scores.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize("name", SMALL + FULL[:1])
def test_every_state(open_chains, golden_case, name: str) -> None:
    case = golden_case(name)
    states = open_chains(name, "fp32").run(on_gpu.encoded(case), case.noise[:, None], keep=True).states[:, 0]
    if case.family == "diffmic-v2":
        expected = np.moveaxis(case.expected["trajectory"][:, :, :, 0, :], -1, -2)  # row 0 of the map: distances 0 .. 5
    else:
        expected, states = case.expected["trajectory"], states[:: int(case.expected.get("trajectory_stride", 1))]
    for i, (got, right) in enumerate(zip(states, expected, strict=False)):
        assert on_gpu.relative_error(got, right) <= GPU_CHAIN["fp32"], f"state {i}"


@pytest.mark.parametrize("name", ["v1-small", "v2-small"])
def test_eps(open_chains, golden_case, golden_model, name: str) -> None:
    case, model = golden_case(name), open_model(golden_model(name), verify=False)
    tables = DenoiserTables(**{n: a.astype(np.float64) for n, a in model.denoiser().arrays().items()})
    m = model.manifest
    reference = HostChains(m.network, m.schedule, PythonDenoiser(tables))
    points = (6,) if case.family == "diffmic-v2" else ()
    y = np.random.default_rng(0).normal(size=(len(case.x), *points, m.network.num_classes))
    encoded, chains = on_gpu.encoded(case), open_chains(name, "fp32")
    for step in (0, m.schedule.steps - 1):
        assert on_gpu.relative_error(chains.eps(encoded, y, step), reference.eps(encoded, y, step)) <= 1e-5


@pytest.mark.parametrize("precision", on_gpu.PRECISIONS)
def test_a_needle_in_random_batches(open_chains, golden_case, precision: str) -> None:
    """One image at random places in batches of random size and company: always the same bits.  The control: another image has others."""
    case, rng = golden_case("v1-small"), np.random.default_rng(7)
    encoded, chains = on_gpu.encoded(case), open_chains("v1-small", precision)
    alone = chains.run({n: x[:1] for n, x in encoded.items()}, case.noise[:, None, :1], keep=True).states
    other = chains.run({n: x[1:2] for n, x in encoded.items()}, case.noise[:, None, 1:2], keep=True).states
    assert not np.array_equal(alone, other)
    for _ in range(12):
        batch, draws = int(rng.integers(1, 18)), int(rng.integers(1, 4))
        place, draw = int(rng.integers(batch)), int(rng.integers(draws))
        images = rng.integers(1, len(case.x), batch)
        images[place] = 0
        noise = rng.normal(size=(len(case.noise), draws, batch, case.noise.shape[-1]))
        noise[:, draw, place] = case.noise[:, 0]
        states = chains.run({n: x[images] for n, x in encoded.items()}, noise, keep=True).states
        assert np.array_equal(states[:, draw, place], alone[:, 0, 0]), (batch, draws, place, draw)


def test_a_feature_that_stays_on_the_device(open_chains, golden_case) -> None:
    case, chains = golden_case("v1-small"), open_chains("v1-small", "bf16")
    encoded, noise = on_gpu.encoded(case), case.noise[:, None]
    with chains._memory.exclusive():
        there = {n: DeviceArray(chains._memory.upload(x), x.dtype, x.shape) for n, x in encoded.items()}
    outputs = DeviceOutputs(chains._memory, there)
    assert np.array_equal(chains.run(outputs, noise, keep=True).states, chains.run(encoded, noise, keep=True).states)


def test_memory_there_and_back(gpu) -> None:
    pytest.importorskip("torch")
    memory = on_gpu.torch_memory(gpu)
    with memory.exclusive():
        for size in (0, 1, 5, 1 << 23):
            x = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
            buffer = memory.upload(x)
            assert np.array_equal(memory.read(buffer, np.uint8, x.shape), x)
        memory.zero(buffer)
        source = memory.upload(np.arange(9, dtype=np.uint8))
        memory.copy(buffer, source.pointer + 2, 4, 100)
        assert memory.read(buffer, np.uint8, (6,), offset=99).tolist() == [0, 2, 3, 4, 5, 0]


def test_memory_that_is_full(gpu) -> None:
    pytest.importorskip("torch")
    memory = on_gpu.torch_memory(gpu)
    with memory.exclusive():
        with pytest.raises(DeviceError, match="GPU's memory is full: use a smaller batch"):
            memory.empty(2 * gpu.memory)
        assert memory.empty(100).nbytes == 100


def program(*arguments: object, prefix: tuple[object, ...] = ()) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (ROOT / "python", HERE, HERE.parent)))
    command = [*map(str, prefix), sys.executable, str(HERE / "small_launch.py"), *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300)


def test_a_lost_device_says_to_start_again(golden_model) -> None:
    pytest.importorskip("torch")
    done = program(golden_model("v1-small"), "--break")
    assert done.returncode == 1 and "DeviceError" in done.stderr and "load the model in a new process" in done.stderr, done.stderr


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_compute_sanitizer(golden_model, tool: str) -> None:
    pytest.importorskip("torch")
    if SANITIZER is None:
        pytest.skip("compute-sanitizer is not installed")
    # Calls that the driver refuses are torch's probes, or raise an error by themselves; kernels are what is watched.
    options = ("--report-api-errors", "no") if tool == "memcheck" else ()
    done = program(golden_model("v1-small"), prefix=(SANITIZER, "--tool", tool, *options, "--error-exitcode", 9))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    launched = [line for line in done.stdout.splitlines() if line.endswith("done")]
    assert launched == [*(f"{name} done" for name in on_gpu.PRECISIONS), "resize done"]
