"""A tiny compiled encoder and a smaller toy, the TensorRT bindings with fakes made of them, and what runs a plan in host memory."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "compiler")]

STREAM = 0x5EED


@pytest.fixture(scope="session")
def encoders(tmp_path_factory) -> dict[str, Path]:
    """encoder.onnx of a narrow model, by family."""
    tiny = pytest.importorskip("tiny", reason="needs torch")
    from fusedx.compiler import checkpoint
    from fusedx.engine.encoder import network, onnx_file

    out = {}
    for name, source in (("v1", tiny.write_v1), ("v2", lambda folder: tiny.write_v2(folder / "last.ckpt"))):
        folder = tmp_path_factory.mktemp(name)
        ckpt = checkpoint.read(source(folder))
        out[name] = folder / "encoder.onnx"
        onnx_file.write(network.build(ckpt.network, ckpt.prior, ckpt.model), out[name], network.output_shapes(ckpt.network), 224)
    return out


@pytest.fixture(scope="session")
def toy_encoder(tmp_path_factory) -> Path:
    """encoder.onnx of a dozen operators, for what does not depend on the network."""
    pytest.importorskip("torch", reason="the fake TensorRT computes with torch")
    from toy_encoder import write

    return write(tmp_path_factory.mktemp("toy") / "encoder.onnx")


@pytest.fixture(scope="session")
def full(tmp_path_factory):
    """The binding module of full TensorRT."""
    import tensorrt_stubs

    return tensorrt_stubs.require("tensorrt_bindings", tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def lean(tmp_path_factory):
    """The binding module of the lean runtime."""
    import tensorrt_stubs

    return tensorrt_stubs.require("tensorrt_lean_bindings", tmp_path_factory.getbasetemp())


@pytest.fixture
def fakes(full, lean, monkeypatch) -> SimpleNamespace:
    """machine, full, lean: fake TensorRT, installed; ``remove(name)`` uninstalls one."""
    import fake_tensorrt

    from fusedx.engine.encoder.tensorrt import libraries

    machine = fake_tensorrt.Machine()
    installed = {
        libraries.FULL: fake_tensorrt.module(full, machine),
        libraries.LEAN: fake_tensorrt.module(lean, machine),
    }

    def load(names):
        return (installed[names], "") if names in installed else (None, f"{names[0]} is not installed")

    monkeypatch.setattr(libraries, "load", load)
    return SimpleNamespace(
        machine=machine, full=installed[libraries.FULL], lean=installed[libraries.LEAN], remove=installed.pop, libraries=libraries
    )


@pytest.fixture(scope="session")
def make_run():
    """plan -> run(images): allocates in host memory, which the fakes take for the device's; outputs are NaN before each run."""

    def make(plan):
        executions = {}

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            batch = len(images)
            if batch not in executions:
                execution = plan.execution(batch, STREAM)
                arrays = {name: np.empty(tensor.shape, tensor.dtype) for name, tensor in execution.tensors.items()}
                scratch = np.empty(execution.scratch_bytes + 256, np.uint8)
                aligned = -(-scratch.ctypes.data // 256) * 256
                execution.bind({name: array.ctypes.data for name, array in arrays.items()}, aligned)
                executions[batch] = execution, arrays, scratch
            execution, arrays, _ = executions[batch]
            for name, array in arrays.items():
                array[...] = images if name == "image" else np.nan if array.dtype.kind == "f" else -1
            execution.enqueue(STREAM)
            return {name: array.copy() for name, array in arrays.items() if name != "image"}

        return run

    return make
