"""What the torch-free runner finds on a machine, all of it fake but its own code: driver, PyCUDA, TensorRT plan, compiled kernels.

The kernels are the real sources, run on the CPU; the plan evaluates encoder.onnx.  Imports neither torch nor pytest.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fake_driver import FakeDriver
from small_chain import Emulator

from fusedx.engine.cuda import binaries
from fusedx.engine.edge import encoder as edge_encoder
from fusedx.engine.edge import requirements
from fusedx.engine.encoder import Encoder, open_encoder
from fusedx.engine.encoder.tensorrt.check import References, check_plan, make_references
from fusedx.engine.encoder.tensorrt.platform import Platform
from fusedx.engine.encoder.tensorrt.runner import ALIGNMENT, INPUT, Tensor

RESIZE = ("fusedx_resize_across", "fusedx_resize_down")
PLATFORM = Platform("Fake GPU 0", "9.0", "580.0", "13.0")


class Kernels(Emulator):
    """Runs launches of the chain and of the resize."""

    def __init__(self, fake: FakeDriver, chain: ctypes.CDLL, resize: ctypes.CDLL) -> None:
        self._resize = resize
        super().__init__(fake, chain)
        for symbol in RESIZE:
            sizes = (ctypes.c_int * 16)()
            count = getattr(resize, f"sizes_{symbol}")(sizes)
            fake.arguments(symbol, sizes[:count])

    def launch(self, symbol, grid, block, shared, arguments, cooperative) -> int:  # noqa: ANN001
        """See fake_driver.Launcher."""
        if symbol not in RESIZE:
            return super().launch(symbol, grid, block, shared, arguments, cooperative)
        index = ctypes.c_uint * 3
        getattr(self._resize, f"run_{symbol}")(index(*grid), index(*block), (ctypes.c_void_p * len(arguments))(*arguments))
        return 0


@cache
def host_encoder(path: Path) -> Encoder:
    """Evaluates encoder.onnx for plans and for their check."""
    return open_encoder("onnxruntime", path)


@cache
def references(path: Path, precision: str) -> References:
    """What plans are checked with."""
    return make_references(host_encoder(path).run, precision)


class Plan:
    """What fusedx.engine.encoder.tensorrt.Plan is to the edge runner.  ``fault`` changes what it computes."""

    buckets = (1,)

    def __init__(self, fake: FakeDriver, path: Path) -> None:
        self._fake, self._encoder = fake, host_encoder(path)
        self.fault: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda outputs: outputs
        probe = self._encoder.run(np.zeros((1, 3, 224, 224), np.float32))
        tensors = [Tensor(INPUT, (1, 3, 224, 224), np.dtype(np.float32))]
        tensors += [Tensor(name, array.shape, array.dtype) for name, array in probe.items()]
        self.tensors = {tensor.name: tensor for tensor in tensors}
        self.scratch_bytes = 1000

    def execution(self, bucket: int, stream: int) -> Plan:
        assert bucket == 1 and stream > 2
        return self

    def bind(self, addresses: dict[str, int], scratch: int) -> None:
        assert set(addresses) == set(self.tensors) and scratch and scratch % ALIGNMENT == 0
        self._addresses = addresses

    def enqueue(self, stream: int) -> None:
        self._fake.enqueue(stream, self._run)

    def _run(self) -> None:
        out = self.fault(self._encoder.run(self._array(INPUT).copy()))
        for name, array in out.items():
            self._array(name)[...] = array

    def _array(self, name: str) -> np.ndarray:
        tensor = self.tensors[name]
        memory = (ctypes.c_uint8 * tensor.nbytes).from_address(self._addresses[name])
        return np.frombuffer(memory, tensor.dtype).reshape(tensor.shape)


def install(fake: FakeDriver, chain: ctypes.CDLL, resize: ctypes.CDLL, setattr: Callable[[Any, str, Any], None]) -> Kernels:
    """Everything is there.  ``setattr``: as pytest's monkeypatch has it."""

    def open_plan(encoder, model, platform, make_run, reference, *, precision, buckets, version_compatible):  # noqa: ANN001, ANN202
        assert buckets == (1,) and len(model) == 128 and platform == PLATFORM and not version_compatible
        plan = kernels.plan = Plan(fake, encoder)
        plan.fault = kernels.fault
        assert callable(reference)
        check_plan(make_run(plan), references(encoder, precision), buckets, precision)
        return plan

    setattr(binaries, "load", lambda source, target: b"cubin")
    setattr(requirements.tensorrt, "why_not", lambda: None)
    setattr(edge_encoder, "open_plan", open_plan)
    setattr(edge_encoder, "open_encoder", lambda name, path: host_encoder(path))
    setattr(edge_encoder.Platform, "of", staticmethod(lambda gpu: PLATFORM))
    kernels = Kernels(fake, chain, resize)
    kernels.plan = None
    kernels.fault = lambda outputs: outputs
    return kernels
