"""The torch-free runner end to end without a GPU: its own code and the real kernels' sources on fakes of everything below."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fake_edge
import numpy as np
import pytest

import fusedx
from fusedx.engine import preprocess
from fusedx.engine.cuda import device, driver
from fusedx.engine.cuda.arrays.foreign_array import ForeignArray
from fusedx.engine.edge import EdgeModel, requirements, why_not
from fusedx.engine.edge.frames import FrameResizer
from fusedx.engine.encoder.tensorrt import WrongPlanError
from fusedx.engine.errors import ConfigError, DeviceError, InputError, UnavailableError

HERE = Path(__file__).parent
pytest.importorskip("onnxruntime")


@pytest.fixture
def machine(pycuda, chain_library, resize_library, monkeypatch: pytest.MonkeyPatch) -> fake_edge.Kernels:
    """Driver, PyCUDA, kernels and a TensorRT plan."""
    pycuda.set(sms=1)
    return fake_edge.install(pycuda, chain_library, resize_library, monkeypatch.setattr)


@pytest.fixture(scope="module")
def short_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow DiffMIC of three steps."""
    folder = tmp_path_factory.mktemp("edge")
    fusedx.compile_checkpoint(tiny().write_v1(folder / "checkpoint", test_timesteps=3), folder / "tiny.fusedx")
    return folder / "tiny.fusedx"


def tiny():
    """tests/compiler/tiny.py."""
    sys.path.insert(0, str(HERE.parents[1] / "compiler"))
    try:
        return pytest.importorskip("tiny", reason="needs torch")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def host(short_model: Path) -> fusedx.Model:
    """The same model on the processor."""
    return fusedx.load(short_model, encoder="onnxruntime")


def frame(seed: int = 0, height: int = 250, width: int = 301) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 10 + 1, width // 10 + 1, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(10, axis=0).repeat(10, axis=1)[:height, :width])


def on_device(fake, pixels: np.ndarray, *, stream: int | None = None) -> ForeignArray:
    """Host memory is the fake device's memory."""
    low, high = np.lib.array_utils.byte_bounds(pixels)
    fake.adopt(low, high - low)
    return ForeignArray(pixels.ctypes.data, 0, pixels.shape, pixels.strides, pixels.dtype, stream, pixels)


@pytest.mark.parametrize("pixels", [frame(), frame(1, 224, 224), frame(2, 37, 90), frame(3, 500, 499)[::2, 1:, ::-1]])
def test_agrees_with_the_processor(machine, short_model: Path, host, pixels: np.ndarray) -> None:
    got = EdgeModel.open(short_model, precision="fp32").classify(pixels, draws=2, seed=7)
    expected = host.classify(pixels, draws=2, seed=7)
    np.testing.assert_allclose(got.result.scores, expected.scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.result.probabilities, expected.probabilities, rtol=1e-5)
    assert np.array_equal(got.result.prior, expected.prior)  # the resize is exact and the encoder is the same
    assert (got.label, got.index, got.stability) == (expected.label, expected.index, expected.stability)
    assert got.image_sha256 == expected.image_sha256 and set(got.timing) == {"encoder", "chain"}


class Interface:
    """An array of another library, that speaks the CUDA array interface alone."""

    def __init__(self, pixels: np.ndarray) -> None:
        facts = {"shape": pixels.shape, "strides": pixels.strides, "typestr": pixels.dtype.str, "data": (pixels.ctypes.data, False)}
        self.__cuda_array_interface__ = {**facts, "version": 3, "stream": None}
        self.pixels = pixels


def test_an_array_of_another_library_is_read_where_it_lies(machine, short_model: Path, pycuda) -> None:
    model, pixels = EdgeModel.open(short_model, precision="fp32"), frame(4)
    on_device(pycuda, pixels)
    other = model.classify(Interface(pixels))
    assert other.result.scores.tobytes() == model.classify(pixels).result.scores.tobytes()
    with pytest.raises(InputError, match="not an address that the CUDA driver knows"):
        model.classify(Interface(frame(5)))
    with pytest.raises(InputError, match="got str"):
        model.classify("frame.png")


def test_diffmic_v2(machine, tmp_path: Path) -> None:
    fusedx.compile_checkpoint(tiny().write_v2(tmp_path / "last.ckpt"), tmp_path / "v2.fusedx", steps=3)
    got = EdgeModel.open(tmp_path / "v2.fusedx", precision="fp32").classify(frame(), draws=2)
    expected = fusedx.load(tmp_path / "v2.fusedx", encoder="onnxruntime").classify(frame(), draws=2)
    np.testing.assert_allclose(got.result.scores, expected.scores, rtol=1e-4, atol=1e-5)
    assert (got.label, got.stability) == (expected.label, expected.stability)


def test_a_precision_of_the_encoder_that_is_not_there(machine, short_model: Path) -> None:
    for precision in ("fp8", ""):
        with pytest.raises(UnavailableError, match="unknown encoder_precision '.*'; there are: fp32, fp16, bf16"):
            EdgeModel.open(short_model, encoder_precision=precision)


def test_on_the_runner_of_real_plans(machine, short_model: Path, pycuda, host, monkeypatch, tmp_path_factory) -> None:
    """With fusedx.engine.encoder.tensorrt as it is, on the TensorRT bindings' own classes made to compute on the processor."""
    monkeypatch.syspath_prepend(str(HERE.parent / "tensorrt"))
    import fake_tensorrt
    import tensorrt_stubs

    from fusedx.engine.encoder.tensorrt import libraries, open_plan, runner

    made = fake_tensorrt.Machine()
    names = {libraries.LEAN: "tensorrt_lean_bindings", libraries.FULL: "tensorrt_bindings"}
    folder = tmp_path_factory.getbasetemp()
    modules = {kind: fake_tensorrt.module(tensorrt_stubs.require(name, folder), made) for kind, name in names.items()}
    monkeypatch.setattr(libraries, "load", lambda names: (modules[names], ""))
    monkeypatch.setattr(fake_edge.edge_encoder, "open_plan", open_plan)
    monkeypatch.setenv("FUSEDX_CACHE", str(tmp_path_factory.mktemp("cache")))
    enqueue = runner.Execution.enqueue
    monkeypatch.setattr(runner.Execution, "enqueue", lambda self, stream: pycuda.enqueue(stream, lambda: enqueue(self, stream)))
    for _ in range(2):  # built, then from the cache
        got = EdgeModel.open(short_model, precision="fp32").classify([frame(), frame(1)])
        for one, expected in zip(got, host.classify([frame(), frame(1)]), strict=True):
            np.testing.assert_allclose(one.result.scores, expected.scores, rtol=1e-4, atol=1e-5)
    assert made.calls.count("build") == 1


def test_a_frame_on_the_device_is_the_same_frame(machine, short_model: Path, pycuda) -> None:
    model = EdgeModel.open(short_model)
    pixels = frame()
    padded = np.zeros((300, 320, 4), np.uint8)
    padded[20:270, 5:306, :3] = pixels
    expected = model.classify(pixels)
    for array in (pixels, padded[20:270, 5:306, :3]):
        got = model.classify(on_device(pycuda, array))
        assert np.array_equal(got.result.draw_scores, expected.result.draw_scores) and got.image_sha256 == expected.image_sha256


def test_a_frame_that_is_still_being_written(machine, short_model: Path, pycuda) -> None:
    model, pixels, buffer = EdgeModel.open(short_model), frame(), np.zeros_like(frame())
    expected = model.classify(pixels)
    pycuda.enqueue(0xC0DE0, lambda: np.copyto(buffer, pixels))
    got = model.classify(on_device(pycuda, buffer, stream=0xC0DE0))
    assert np.array_equal(got.result.scores, expected.result.scores)
    assert got.image_sha256 == hashlib.sha256(pixels).hexdigest()


@pytest.mark.parametrize("use", ["resize", "digest"])
def test_each_reader_waits_for_the_producer(machine, pycuda, use: str) -> None:
    from fusedx.engine.cuda.memory_pycuda import PyCUDAMemory

    pixels, buffer, memory = frame(), np.zeros_like(frame()), PyCUDAMemory(0)
    with memory.exclusive():
        resizer, out = FrameResizer(memory, device.find(0)), memory.empty(3 * 224 * 224 * 4)
        resizer.run(pixels, out.pointer)  # buffers have their size now: growing one would wait for the whole device
        resizer.digest(on_device(pycuda, pixels))
        pycuda.enqueue(0xC0DE0, lambda: np.copyto(buffer, pixels))
        late = on_device(pycuda, buffer, stream=0xC0DE0)
        if use == "digest":
            assert resizer.digest(late) == hashlib.sha256(pixels).hexdigest()
            return
        resizer.run(late, out.pointer)
        expected = preprocess.normalize(preprocess.to_square_uint8(pixels))
        assert np.array_equal(memory.read(out, np.float32, expected.shape), expected)


def test_lists_and_single_frames_give_the_same_bits(machine, short_model: Path, pycuda) -> None:
    model = EdgeModel.open(short_model)
    frames = [frame(i, 230 + 40 * i, 260) for i in range(3)]
    together = model.classify([frames[0], on_device(pycuda, frames[1]), frames[2]], draws=3)
    for pixels, got in zip(frames, together, strict=True):
        alone = model.classify(pixels, draws=3)
        assert np.array_equal(alone.result.draw_scores, got.result.draw_scores) and alone.label == got.label
    assert len({one.image_sha256 for one in together}) == 3


def test_frames_that_are_settled_wait_for_the_others(machine, short_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With draws="auto" the later draws take their features from the host, for some of the frames, with the same bits."""
    answers = iter([True, False, True])
    monkeypatch.setattr("fusedx.engine.draws.looks", lambda most: [1, 2])
    monkeypatch.setattr("fusedx.engine.draws.settled", lambda scores, risk: next(answers))
    model = EdgeModel.open(short_model)
    frames = [frame(i) for i in range(2)]
    got = model.classify(frames, draws="auto")
    assert [len(one.result.draw_scores) for one in got] == [1, 2]
    assert np.array_equal(model.classify(frames[1], draws=2).result.draw_scores, got[1].result.draw_scores)


def test_trace(machine, short_model: Path, host) -> None:
    x = np.stack([host.preprocess(host.read(frame(i))) for i in range(2)])
    got, expected = EdgeModel.open(short_model, precision="fp32").trace(x, seed=3), host.trace(x, seed=3)
    assert set(got) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def test_threads_take_turns(machine, short_model: Path) -> None:
    model = EdgeModel.open(short_model)
    frames = [frame(i) for i in range(4)]
    expected = [model.classify(one).result.scores for one in frames]
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda one: model.classify(one).result.scores, frames))
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_many_frame_sizes_do_not_fill_the_device(machine, short_model: Path, pycuda) -> None:
    model = EdgeModel.open(short_model)
    model.classify(frame(0, 300, 300))
    before = pycuda.used()
    for side in range(60, 60 + 2 * 25, 2):
        model.classify(frame(0, side, side))
    assert pycuda.used() - before < 100_000


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.zeros((4, 4), np.uint8), "bad_array"),
        (np.zeros((4, 4, 4), np.uint8), "bad_array"),
        (np.zeros((4, 4, 3), np.float32), "bad_array"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        ("frame.png", "bad_array"),
        (None, "bad_array"),
    ],
)
def test_frames_that_cannot_be_used(machine, short_model: Path, bad: object, reason: str) -> None:
    model = EdgeModel.open(short_model)
    with pytest.raises(InputError) as error:
        model.classify([frame(), bad])  # type: ignore[list-item]
    assert error.value.reason == reason


def test_a_frame_on_another_gpu(machine, short_model: Path, pycuda) -> None:
    with pytest.raises(InputError, match="it is on cuda:1, this model on cuda:0; copy it there"):
        EdgeModel.open(short_model).classify(replace(on_device(pycuda, frame()), device=1))


@pytest.mark.parametrize("setting", [{"draws": 0}, {"draws": True}, {"draws": "some"}, {"seed": -1}, {"seed": 1 << 64}])
def test_settings_that_cannot_be(machine, short_model: Path, setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        EdgeModel.open(short_model).classify(frame(), **setting)


def test_an_empty_list(machine, short_model: Path) -> None:
    with pytest.raises(ConfigError, match="empty list"):
        EdgeModel.open(short_model).classify([])


def test_a_wrong_plan_is_refused(machine, short_model: Path) -> None:
    machine.fault = lambda outputs: outputs | {"feature": outputs["feature"] * 1.5}
    with pytest.raises(WrongPlanError, match="feature: relative error"):
        EdgeModel.open(short_model)


def test_a_plan_that_writes_nothing_is_refused(machine, short_model: Path) -> None:
    machine.fault = lambda outputs: {}
    with pytest.raises(WrongPlanError, match="NaN"):
        EdgeModel.open(short_model)


def test_weights_that_overflow(machine, short_model: Path) -> None:
    model = EdgeModel.open(short_model)
    machine.plan.fault = lambda outputs: outputs | {"feature": outputs["feature"] * np.float32(np.inf)}
    with pytest.raises(InputError, match="overflow") as error, np.errstate(invalid="ignore"):
        model.classify(frame())
    assert error.value.reason == "not_finite"


def test_a_lost_device(machine, short_model: Path, pycuda) -> None:
    model = EdgeModel.open(short_model)
    pycuda.set(sticky=700)
    with pytest.raises(DeviceError, match="load the model in a new process"):
        model.classify(frame())


def test_memory_that_is_full(machine, short_model: Path, pycuda) -> None:
    model = EdgeModel.open(short_model)
    pycuda.set(memory=pycuda.used() + 1000)
    with pytest.raises(DeviceError, match="out of memory"):
        model.classify(frame(0, 2000, 2000))
    pycuda.set(memory=1 << 33)
    assert model.classify(frame()).label in model.classes


@pytest.mark.parametrize(("name", "says"), [("cpu", "for the cpu use fusedx.load"), ("gpu", "must be cpu, cuda or cuda:N")])
def test_devices_that_are_none(machine, short_model: Path, name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        EdgeModel.open(short_model, name)


def test_a_device_that_is_not_there(machine, short_model: Path) -> None:
    with pytest.raises(UnavailableError, match="there is no cuda:3"):
        EdgeModel.open(short_model, "cuda:3")


def test_an_unknown_precision(machine, short_model: Path) -> None:
    with pytest.raises(UnavailableError, match="unknown precision 'int8'; there are: fp32, bf16, fp16, fp8"):
        EdgeModel.open(short_model, precision="int8")


def test_everything_that_is_missing_is_listed(short_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LIBRARY", "libcuda-absent.so.1")
    driver.library.cache_clear()
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    monkeypatch.setattr(requirements.tensorrt, "why_not", lambda: "tensorrt is not installed")
    says = r"pycuda is not installed; tensorrt is not installed; no NVIDIA driver .*pip install 'fusedx\[edge-cuda\]'"
    with pytest.raises(UnavailableError, match=says):
        EdgeModel.open(short_model)
    driver.library.cache_clear()


def test_pycuda_that_does_not_import(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not() is None
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    assert str(why_not()).startswith("pycuda does not import (")


def test_without_torch(fake_library: Path, chain_library, resize_library, short_model: Path, machine) -> None:
    """The same bits where torch, triton and onnx cannot be imported."""
    root = HERE.parents[2]
    path = os.pathsep.join(map(str, (root / "python", HERE)))
    arguments = [short_model, fake_library, chain_library._name, resize_library._name]
    command = [sys.executable, HERE / "edge_without_torch.py", *arguments]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pixels = np.random.default_rng(3).integers(0, 256, (250, 301, 3), np.uint8)
    here = EdgeModel.open(short_model, precision="fp32").classify(pixels, draws=1, seed=5)
    assert done.stdout.split() == [here.image_sha256, *(float(x).hex() for x in here.result.scores)]
