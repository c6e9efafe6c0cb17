"""The GPU engine without a GPU: as a whole under Triton's interpreter, and the parts that need neither."""

from __future__ import annotations

import collections
import gc
import itertools
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton")

from fusedx.engine.cuda import driver, streams  # noqa: E402
from fusedx.engine.cuda.context import Context  # noqa: E402
from fusedx.engine.cuda.engine import CudaEngine  # noqa: E402
from fusedx.engine.cuda.input import CudaInput  # noqa: E402
from fusedx.engine.cuda.libraries import exact_libraries  # noqa: E402
from fusedx.engine.cuda.memory import StagedMemory  # noqa: E402
from fusedx.engine.cuda.memory_torch import TorchMemory  # noqa: E402
from fusedx.engine.cuda.network import EncoderModule, compiled  # noqa: E402
from fusedx.engine.encoder.graph import Graph, Node  # noqa: E402
from fusedx.engine.errors import DeviceError, UnavailableError  # noqa: E402


@pytest.mark.parametrize("interpreted_file", [Path(__file__).with_name("interpreted_model.py")], ids=lambda file: file.name)
def test_whole_engine_under_the_interpreter(interpreted_file, beside):
    beside.check(interpreted_file)


@pytest.fixture
def context() -> Context:
    return Context(torch.device("cpu"), capture=True)


def test_out_of_memory_says_what_to_do_and_leaves_the_model_usable(context):
    with pytest.raises(DeviceError, match="smaller batch.*remains usable"), context.working():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")
    with context.working():
        pass


@pytest.mark.parametrize("by", ["CUDA error", "Triton Error [CUDA]"])
def test_a_failed_kernel_says_that_the_process_is_done(context, by):
    with pytest.raises(DeviceError, match="illegal memory access.*load the model in a new one"), context.working():
        raise RuntimeError(f"{by}: an illegal memory access was encountered\nCUDA kernel errors might be ...")


@pytest.mark.parametrize("by", ["CUDA error", "Triton Error [CUDA]"])
def test_memory_that_the_driver_lacks_is_no_failed_kernel(context, by):
    """Page-locked memory, graphs and kernels do not come from torch's allocator."""
    with pytest.raises(DeviceError, match="out of memory.*smaller batch.*remains usable"), context.working():
        raise RuntimeError(f"{by}: out of memory\nmore lines")


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


def test_a_compiled_network_takes_any_number_of_batch_sizes():
    """torch gives up after eight forms of one code object; there are nine buckets, and any number of models."""
    bias = np.ones(3, np.float32)
    graph = Graph(["x"], ["y", "z"], [Node("Add", ("x", "bias"), ("y",), {}), Node("Relu", ("y",), ("z",), {})], {"bias": bias})
    with torch.inference_mode():
        run = compiled(EncoderModule(graph, torch.device("cpu")), "eager")
        for batch in range(1, 12):
            y, z = run(torch.full((batch, 3), float(-batch)))
            assert y.shape == (batch, 3) and float(y[0, 0]) == 1 - batch and float(z.max()) == 0


class _HostMemory(TorchMemory):
    """On torch's host memory, which is enough to see in which mode its tensors are made and written."""

    def __init__(self, context: Context) -> None:
        StagedMemory.__init__(self)
        self._index, self._device, self._stream, self._turn = 0, torch.device("cpu"), None, context.working

    def _page_locked(self, nbytes: int) -> np.ndarray:
        return np.empty(nbytes, np.uint8)

    def _wait(self) -> None:
        pass


def test_memory_made_while_a_model_loads_is_written_later(context, monkeypatch):
    monkeypatch.setattr(driver, "current", lambda index: nullcontext())
    memory, x = _HostMemory(context), np.arange(5, dtype=np.float64)
    with context.working(), memory.exclusive():
        buffer = memory.empty(x.nbytes)
    with memory.exclusive():
        memory.zero(buffer)
        memory.write(buffer, x[2:], 16)
        assert memory.read(buffer, x.dtype, x.shape).tolist() == [0, 0, 2, 3, 4]


MATMUL, CUDNN = torch.backends.cuda.matmul, torch.backends.cudnn


@pytest.fixture
def tf32_as_it_was():
    yield
    torch.backends.fp32_precision = CUDNN.fp32_precision = "none"
    CUDNN.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    MATMUL.fp32_precision = "none"


@pytest.mark.skipif(not hasattr(MATMUL, "fp32_precision"), reason="this torch has one generation of names for TF32")
@pytest.mark.parametrize("chosen", [
    lambda: None,
    lambda: (setattr(MATMUL, "allow_tf32", True), setattr(CUDNN, "allow_tf32", False)),
    lambda: torch.set_float32_matmul_precision("medium"),
    lambda: setattr(MATMUL, "fp32_precision", "tf32"),
    lambda: setattr(CUDNN.conv, "fp32_precision", "ieee"),
    lambda: setattr(torch.backends, "fp32_precision", "tf32"),
], ids=["nothing", "old", "medium", "matmul", "conv", "all"])  # fmt: skip
def test_tf32_is_off_inside_and_as_the_program_chose_it_outside(tf32_as_it_was, chosen):
    """torch has two generations of names for this, and lets a program that has used the second not read the first."""

    def readable(read) -> object:
        try:
            return read()
        except RuntimeError as error:
            return str(error)[:60]

    def state() -> list[object]:
        reads = [lambda o=o: o.fp32_precision for o in (MATMUL, CUDNN.conv, CUDNN.rnn, CUDNN)]
        reads += [lambda: MATMUL.allow_tf32, lambda: CUDNN.allow_tf32, torch.get_float32_matmul_precision, lambda: CUDNN.deterministic]
        return [readable(read) for read in reads]

    chosen()
    before = state()
    with exact_libraries(), exact_libraries():
        assert state()[:3] == ["ieee"] * 3 and state()[4:6] == [False, False] and CUDNN.deterministic
    assert state() == before


def test_streams_are_shared_by_nobody_and_used_again(monkeypatch):
    handles = itertools.count(0x1000, 16)
    monkeypatch.setattr(driver, "current", lambda index: nullcontext())
    monkeypatch.setattr(driver, "new_stream", lambda: next(handles))
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle, device: handle)
    monkeypatch.setattr(streams, "_free", collections.defaultdict(list))

    class Owner:
        pass

    device, owners = torch.device("cuda", 1), [Owner() for _ in range(40)]
    given = [streams.own_stream(device, owner) for owner in owners]
    assert len(set(given)) == 40
    owners.pop()
    gc.collect()
    assert streams.own_stream(device, owners[0]) == given[-1]
    assert streams.own_stream(torch.device("cuda", 0), owners[0]) not in given
    owners.clear()
    gc.collect()


def test_a_torch_without_cuda_is_named(monkeypatch):
    from fusedx.engine.cuda.engine import open_engine

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnavailableError, match=f"torch {re.escape(torch.__version__)} cannot use a gpu"):
        open_engine(None, "a gpu", precision="bf16", backend="auto", encoder="auto")


@pytest.mark.parametrize("rows_per_chain", [1, 6])
def test_what_is_warmed_up_is_what_runs(monkeypatch, rows_per_chain):
    """The chain's rows follow from the batch itself, not from the bucket that the encoder pads it to."""
    monkeypatch.setattr(CudaInput, "warm_up", lambda self: None)
    network = SimpleNamespace(family="diffmic-v2" if rows_per_chain == 6 else "diffmic-v1")
    manifest = SimpleNamespace(network=network, schedule=None, task="multiclass")
    for images, draws in itertools.product((1, 3, 5, 9, 17, 40, 300), (1, 2, 3, 8, 500)):
        warmed: list[int] = []
        encoder = SimpleNamespace(warm_up=lambda size, images=images: size == images or pytest.fail("another batch"))
        chains = SimpleNamespace(warm_up=lambda rows, plan, warmed=warmed: warmed.append(rows))
        context = Context(torch.device("cpu"), capture=True)
        engine = CudaEngine(SimpleNamespace(manifest=manifest), None, context, encoder, chains)
        engine.warm_up([images], draws, lambda *step: None)
        assert set(warmed) == {images * count * rows_per_chain for count in engine.draw_blocks(images, draws)}
        assert sum(engine.draw_blocks(images, draws)) == draws
    warmed = []
    encoder = SimpleNamespace(warm_up=lambda size: None)
    chains = SimpleNamespace(warm_up=lambda rows, plan: warmed.append(rows))
    engine = CudaEngine(SimpleNamespace(manifest=manifest), None, Context(torch.device("cpu"), capture=True), encoder, chains)
    engine.warm_up([3], "auto", lambda *step: None)
    left, added = (1, 2, 3), (8, 8, 16, 32)  # any of the three may be undecided after 8, 16 or 32 draws
    assert set(warmed) == {images * draws * rows_per_chain for images in left for draws in added}
