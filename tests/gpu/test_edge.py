"""The torch-free runner on a GPU: PyCUDA's memory under the chain and the resize, and all of it where TensorRT is installed."""

from __future__ import annotations

import golden_chains as on_gpu
import numpy as np
import pytest

import fusedx
from fusedx.engine import preprocess
from fusedx.engine.cuda.arrays.foreign_array import ForeignArray
from fusedx.engine.edge import EdgeModel, why_not
from fusedx.engine.edge.frames import FrameResizer
from fusedx.engine.errors import DeviceError
from tolerances import GPU_CHAIN


@pytest.fixture
def memory(gpu):
    try:
        from fusedx.engine.cuda.memory_pycuda import PyCUDAMemory
    except ImportError as error:
        pytest.skip(f"the edge runner needs pycuda ({error})")

    made = PyCUDAMemory(gpu.index)
    with made.exclusive():
        yield made


@pytest.mark.parametrize("precision", on_gpu.PRECISIONS)
@pytest.mark.parametrize("name", ["v1-small", "v2-small"])
def test_golden_cases_on_pycudas_memory(golden_model, golden_case, gpu, memory, name: str, precision: str) -> None:
    case = golden_case(name)
    chains = on_gpu.open_chains(golden_model(name), gpu, memory, precision)
    scores = chains.run(on_gpu.encoded(case), case.noise[:, None], keep=False).scores[0]
    assert on_gpu.relative_error(scores, on_gpu.final(case)) <= GPU_CHAIN[precision]


def test_both_memories_give_the_same_bits(golden_model, golden_case, gpu, memory) -> None:
    pytest.importorskip("torch")
    case, path = golden_case("v1-small"), golden_model("v1-small")
    runs = [on_gpu.open_chains(path, gpu, m, "fp8").run(on_gpu.encoded(case), case.noise[:, None], keep=True)
            for m in (memory, on_gpu.torch_memory(gpu))]  # fmt: skip
    assert np.array_equal(runs[0].states, runs[1].states)


@pytest.mark.parametrize("shape", [(2, 2), (3, 5), (223, 230), (224, 224), (512, 300), (1411, 1411)])
@pytest.mark.parametrize("on_device", [False, True])
def test_frames_are_resized_to_the_bit(gpu, memory, shape: tuple[int, int], on_device: bool) -> None:
    pixels = np.random.default_rng(shape[1]).integers(0, 256, (*shape, 3), np.uint8)
    resizer, out = FrameResizer(memory, gpu), memory.empty(3 * 224 * 224 * 4)
    frame = pixels
    if on_device:
        there = memory.upload(pixels)
        frame = ForeignArray(there.pointer, gpu.index, pixels.shape, pixels.strides, pixels.dtype, memory.stream, there)
    resizer.run(frame, out.pointer)
    expected = preprocess.normalize(preprocess.to_square_uint8(pixels))
    assert np.array_equal(memory.read(out, np.float32, (3, 224, 224)), expected)
    assert resizer.digest(frame) == resizer.digest(pixels)


def test_memory_that_is_full(gpu, memory) -> None:
    with pytest.raises(DeviceError, match="GPU's memory is full: use a smaller batch"):
        memory.empty(2 * gpu.memory)
    assert memory.empty(100).nbytes == 100


@pytest.mark.parametrize("name", ["v1-small", "v2-small"])
def test_whole_frames(golden_model, name: str) -> None:
    if reason := why_not():
        pytest.skip(reason)
    frame = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    got = EdgeModel.open(golden_model(name), precision="fp32").classify(frame, draws=3)
    expected = fusedx.load(golden_model(name), device="cpu", encoder="reference").classify(frame, draws=3)
    assert got.label == expected.label and got.image_sha256 == expected.image_sha256
    assert on_gpu.relative_error(got.result.scores, expected.scores) <= 1e-3
