"""The persistent runner end to end without a GPU: the real kernel's source emulated, a driver and PyCUDA that are fakes.

What the kernel computes is proved in tests/kernels/chain; here it is what surrounds it: rows, draws, conditions, programs, memory,
errors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import small_chain as small

import fusedx
from fusedx import golden
from fusedx.engine import compiled
from fusedx.engine.cuda import binaries, device
from fusedx.engine.cuda.memory import DeviceArray, DeviceOutputs
from fusedx.engine.errors import DeviceError, UnavailableError
from fusedx.kernels.conditional_layer.formats import FORMATS, store, value

GOLDEN = Path(__file__).parents[2] / "golden"
#: float32 sums of 100 terms, through three layers and a few steps.
FP32 = 2e-6
#: The same with weights as the format holds them, so that only the rounding of activations is left: 8 and 11 bits.
HALF = {"bf16": 2e-2, "fp16": 2e-3, "fp8": 2e-3}


@pytest.fixture
def emulator(pycuda, chain_library, monkeypatch: pytest.MonkeyPatch) -> small.Emulator:
    """A GPU of three multiprocessors."""
    monkeypatch.setattr(binaries, "load", lambda source, target: b"cubin")
    pycuda.set(sms=3)
    return small.Emulator(pycuda, chain_library)


@pytest.fixture
def open_chains(emulator) -> Callable:
    def opened(network, steps: int, tables=None, precision: str = "fp32", **more):
        from fusedx.engine.cuda.memory_pycuda import PyCUDAMemory
        from fusedx.engine.cuda.persistent import PersistentChains

        tables = small.tables(network, steps) if tables is None else tables
        return PersistentChains(network, small.schedule(steps), tables, device.find(0), PyCUDAMemory(0), precision, **more)

    return opened


def close(got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert got.shape == expected.shape and got.dtype == np.float64
    assert np.linalg.norm(got - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("noise_prior", [False, True])
@pytest.mark.parametrize(("draws", "images"), [(1, 1), (3, 4)])
def test_diffmic(open_chains, emulator, steps: int, noise_prior: bool, draws: int, images: int) -> None:
    network = small.network(noise_prior=noise_prior)
    tables, encoded, noise = small.tables(network, steps), small.encoded(network, images), small.noise(network, steps, draws, images)
    expected = small.reference(network, steps, tables).run(encoded, noise, keep=True)
    chains = open_chains(network, steps, tables)
    kept = chains.run(encoded, noise, keep=True)
    close(kept.states, expected.states, FP32)
    assert np.array_equal(kept.scores, kept.states[-1])
    ends = chains.run(encoded, noise, keep=False)
    assert np.array_equal(ends.states, kept.states[[0, -1]]) and np.array_equal(ends.scores, kept.scores)
    assert emulator.rows == ([1] if draws == 1 else [8, 4]) * 2


@pytest.mark.parametrize(("draws", "images"), [(1, 1), (2, 3)])
def test_diffmic_v2(open_chains, emulator, draws: int, images: int) -> None:
    network, steps = small.network("diffmic-v2", classes=4), 3
    tables, encoded, noise = small.tables(network, steps), small.encoded(network, images), small.noise(network, steps, draws, images)
    expected = small.reference(network, steps, tables).run(encoded, noise, keep=True)
    got = open_chains(network, steps, tables).run(encoded, noise, keep=True)
    close(got.states, expected.states, FP32)
    close(got.scores, expected.scores, FP32)
    assert sum(emulator.rows) == 6 * draws * images


@pytest.mark.parametrize("family", ["diffmic-v1", "diffmic-v2"])
def test_eps(open_chains, family: str) -> None:
    network, steps, images = small.network(family), 4, 3
    tables, encoded, y = small.tables(network, steps), small.encoded(network, images), small.states(network, images)
    reference, chains = small.reference(network, steps, tables), open_chains(network, steps, tables)
    for step in (0, 3, 1):
        close(chains.eps(encoded, y, step), reference.eps(encoded, y, step), FP32)


def test_a_golden_case(open_chains, small_checkpoint, tmp_path: Path) -> None:
    """What the original authors' code computed, from its prior and feature on: 20 steps, 3 images, every state."""
    fusedx.compile_checkpoint(small_checkpoint, tmp_path / "small.fusedx")
    model, case = compiled.open_model(tmp_path / "small.fusedx"), golden.load(GOLDEN / "v1-small.json")
    encoded = {"prior": case.expected["prior"], "feature": case.expected["feature"].astype(np.float32)}
    chains = open_chains(model.manifest.network, model.manifest.schedule.steps, model.denoiser())
    states = chains.run(encoded, case.noise[:, None], keep=True).states[:, 0]
    close(states[:: int(case.expected.get("trajectory_stride", 1))], case.expected["trajectory"], 1e-7)


def test_without_guidance(open_chains) -> None:
    network = small.network(include_guidance=False)
    tables = dataclasses.replace(small.tables(network, 2), weight_p=np.zeros((100, 5), np.float32))
    encoded, noise = small.encoded(network, 1), small.noise(network, 2, 1, 1)
    expected = small.reference(network, 2, tables).run(encoded, noise, keep=True)
    close(open_chains(network, 2, tables).run(encoded, noise, keep=True).states, expected.states, FP32)


@pytest.mark.parametrize("precision", [name for name in FORMATS if name != "fp32"])
def test_half_formats(open_chains, precision: str) -> None:
    network, steps = small.network(width=257), 3
    tables, encoded, noise = small.tables(network, steps), small.encoded(network, 2), small.noise(network, steps, 1, 2)
    held = {name: value(store(getattr(tables, name), precision), precision) for name in ("weight2", "weight3")}
    expected = small.reference(network, steps, dataclasses.replace(tables, **held)).run(encoded, noise, keep=True)
    chains = open_chains(network, steps, tables, precision)
    assert (chains.name, chains.precision) == ("persistent", precision)
    close(chains.run(encoded, noise, keep=True).states, expected.states, HALF[precision])


def test_bits_do_not_depend_on_company(open_chains) -> None:
    """One image among others, at another place, in launches of 8 and 3 rows; its third draw alone, and all of them."""
    network, steps = small.network(), 2
    chains = open_chains(network, steps)
    encoded, noise = small.encoded(network, 4), small.noise(network, steps, 3, 4)
    together = chains.run(encoded, noise, keep=True).states
    order = [2, 0, 3]
    shuffled = chains.run({n: x[order] for n, x in encoded.items()}, noise[:, :, order], keep=True).states
    assert np.array_equal(shuffled, together[:, :, order])
    alone = chains.run({n: x[3:] for n, x in encoded.items()}, noise[:, 2:, 3:], keep=True).states
    assert np.array_equal(alone, together[:, 2:, 3:])
    assert not np.array_equal(together[-1, 0, 0], together[-1, 1, 0])  # the control: draws do differ


@pytest.mark.parametrize("family", ["diffmic-v1", "diffmic-v2"])
def test_a_feature_that_stays_on_the_device(open_chains, pycuda, family: str) -> None:
    network, steps, images = small.network(family), 2, 2
    chains = open_chains(network, steps)
    encoded, noise = small.encoded(network, images), small.noise(network, steps, 1, images)
    name = "fused_feature" if family == "diffmic-v2" else "feature"
    memory = chains._memory
    with memory.exclusive():
        outputs = DeviceOutputs(memory, {n: DeviceArray(memory.upload(x), x.dtype, x.shape) for n, x in encoded.items()})
    assert np.array_equal(chains.run(outputs, noise, keep=True).states, chains.run(encoded, noise, keep=True).states)
    assert name not in outputs._host and len(outputs._host) == len(encoded) - 1


def test_a_feature_of_another_type_is_refused(open_chains) -> None:
    network = small.network()
    chains = open_chains(network, 1)
    encoded = small.encoded(network, 1)
    with chains._memory.exclusive():
        wide = encoded["feature"].astype(np.float64)
        feature = DeviceArray(chains._memory.upload(wide), wide.dtype, wide.shape)
    outputs = DeviceOutputs(chains._memory, {"feature": feature})
    outputs._arrays["prior"], outputs._host["prior"] = feature, encoded["prior"]
    with pytest.raises(TypeError, match="feature on the device must be float32 rows"):
        chains.run(outputs, small.noise(network, 1, 1, 1), keep=False)


def test_a_run_allocates_nothing(open_chains, pycuda) -> None:
    network = small.network()
    chains = open_chains(network, 2)
    encoded, noise = small.encoded(network, 3), small.noise(network, 2, 4, 3)
    chains.run(encoded, noise, keep=True)
    before = pycuda.calls("cuMemAlloc"), pycuda.calls("cuMemHostAlloc")
    chains.run(encoded, noise, keep=False)
    chains.eps(encoded, small.states(network, 3), 1)
    assert (pycuda.calls("cuMemAlloc"), pycuda.calls("cuMemHostAlloc")) == before


def test_two_threads(open_chains) -> None:
    network, steps = small.network(), 2
    chains = open_chains(network, steps)
    inputs = [(small.encoded(network, 1 + i % 2, seed=i), small.noise(network, steps, 1 + i % 3, 1 + i % 2, seed=i)) for i in range(6)]
    expected = [chains.run(*x, keep=True).states for x in inputs]
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda x: chains.run(*x, keep=True).states, inputs))
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def run(chains) -> np.ndarray:
    network = small.network()
    return chains.run(small.encoded(network, 1), small.noise(network, 2, 1, 1), keep=False).scores


def test_the_watchdog_and_after_it(open_chains, emulator) -> None:
    chains = open_chains(small.network(), 2)
    right = run(chains)
    emulator.status = 1 << 56 | 1 << 48 | 2 << 32 | 1
    with pytest.raises(DeviceError, match="gave up at step 1: block 2 waited too long .* after layer 3.*remains usable"):
        run(chains)
    emulator.status = 0
    assert np.array_equal(run(chains), right)


def test_the_watchdogs_time_is_handed_over(open_chains, emulator) -> None:
    seen = []
    launch = emulator.launch
    emulator.launch = lambda *a: (seen.append(small.chain.ChainParams.from_address(a[4][0]).watchdog_ns), launch(*a))[1]
    emulator.__post_init__()
    run(open_chains(small.network(), 2, watchdog_s=0.25))
    assert seen == [250_000_000]
    with pytest.raises(ValueError, match="watchdog_s must be above 0"):
        run(open_chains(small.network(), 2, watchdog_s=0))


@pytest.mark.parametrize(("result", "says"), [(700, "outside its memory"), (719, "a kernel failed"), (999, "Xid")])
def test_a_kernel_that_fails(open_chains, emulator, result: int, says: str) -> None:
    chains = open_chains(small.network(), 2)
    emulator.result = result
    for _ in range(2):  # and the device stays lost
        with pytest.raises(DeviceError, match=f"{says}.*load the model in a new process"):
            run(chains)


def test_a_launch_that_is_refused(open_chains, pycuda) -> None:
    chains = open_chains(small.network(), 2)
    pycuda.set(launch_error=2)
    with pytest.raises(DeviceError, match="launching fusedx_chain_fp32.*smaller batch"):
        run(chains)
    pycuda.set(launch_error=0)
    assert np.isfinite(run(chains)).all()


def test_part_of_the_gpu_is_taken(open_chains, pycuda) -> None:
    chains = open_chains(small.network(), 2)
    pycuda.set(sms=1)
    with pytest.raises(DeviceError, match="COOPERATIVE_LAUNCH_TOO_LARGE.*Other work holds part of the GPU"):
        run(chains)


def test_memory_that_is_full(open_chains, pycuda) -> None:
    before = pycuda.used()
    pycuda.set(memory=before + 200_000)
    with pytest.raises(DeviceError, match="out of memory.*smaller precision"):
        open_chains(small.network(), 2)
    assert pycuda.used() == before  # nothing of the attempt is left


def test_everything_is_given_back(open_chains, pycuda) -> None:
    before = pycuda.used()
    chains = open_chains(small.network(), 2)
    assert pycuda.used() > before
    del chains
    assert pycuda.used() == before


def test_a_gpu_without_cooperative_launches(open_chains, pycuda) -> None:
    pycuda.set(cooperative=0)
    with pytest.raises(UnavailableError, match="Fake GPU 0.*does not offer cooperative launches.*triton"):
        open_chains(small.network(), 2)


def test_a_kernel_that_is_not_there(open_chains, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "load", lambda source, target: b"bad cubin")
    with pytest.raises(DeviceError, match=r"loading chain\.cu: CUDA_ERROR_INVALID_IMAGE"):
        open_chains(small.network(), 2)


def test_more_classes_than_the_kernel_takes(open_chains) -> None:
    with pytest.raises(ValueError, match="1 to 15 classes, got 16; the layer-by-layer kernels take more"):
        open_chains(small.network(classes=16), 1)


def test_an_unknown_precision(open_chains) -> None:
    with pytest.raises(ValueError, match="'int4' is not known.*fp32, bf16, fp16, fp8"):
        open_chains(small.network(), 1, precision="int4")


def test_a_part_with_little_shared_memory_takes_fewer_rows_a_launch(open_chains, emulator, pycuda) -> None:
    pycuda.set(shared_per_block=60 << 10, major=8, minor=6)
    network = small.network(width=700)
    tables, encoded, noise = small.tables(network, 1), small.encoded(network, 8), small.noise(network, 1, 1, 8)
    expected = small.reference(network, 1, tables).run(encoded, noise, keep=True)
    chains = open_chains(network, 1, tables)
    close(chains.run(encoded, noise, keep=True).states, expected.states, FP32)
    assert max(emulator.rows) < 8 and sum(emulator.rows) == 8 and chains.captured() == list(range(1, max(emulator.rows) + 1))
