"""Runs a plan on raw device addresses and stream handles: beside torch, PyCUDA or anything else that can allocate."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusedx.engine.encoder.tensorrt.build import IMAGE, INPUT
from fusedx.engine.encoder.tensorrt.libraries import collector, said, start
from fusedx.engine.errors import ConfigError, UnavailableError

#: TensorRT's alignment of scratch memory, in bytes.
ALIGNMENT = 256


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output at a fixed batch: C-contiguous on the device."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes that its address must hold."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class Plan:
    """A deserialised plan.  ``buckets``: the batch sizes that it runs, ascending."""

    def __init__(self, trt: Any, plan: bytes) -> None:
        """trt: the full or the lean module.  Raises UnavailableError when the plan is not for this GPU and version, or damaged."""
        self._trt = trt
        self._logger = collector(trt)
        self._runtime = start(trt.Runtime, self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise UnavailableError(f"TensorRT {trt.__version__} cannot load the plan: {said(self._logger)}")
        self._dtypes: dict[Any, np.dtype[Any]] = {trt.DataType.FLOAT: np.dtype(np.float32), trt.DataType.INT64: np.dtype(np.int64)}
        self.outputs = self._names()
        self._profiles = self._read_profiles()
        self.buckets = tuple(sorted(self._profiles))

    def scratch_bytes(self, bucket: int) -> int:
        """Device memory that one run at ``bucket`` needs besides inputs and outputs; runs on one stream may share it."""
        return int(self._engine.get_device_memory_size_for_profile_v2(self._profile(bucket)))

    def execution(self, bucket: int, stream: int) -> Execution:
        """What runs one batch size.  The choice of profile is enqueued on ``stream``: use it there, or synchronise it first."""
        _require_stream(stream)
        trt = self._trt
        context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise UnavailableError(f"TensorRT cannot make an execution context: {said(self._logger)}")
        self._require(context.set_optimization_profile_async(self._profile(bucket), stream), f"choose the profile of {bucket} images")
        self._require(context.set_input_shape(INPUT, (bucket, *IMAGE)), f"take {bucket} images")
        tensors = [self._tensor(context, name) for name in (INPUT, *self.outputs)]
        return Execution(self, context, bucket, tensors, self.scratch_bytes(bucket))

    def _require(self, done: bool, what: str) -> None:
        if not done:
            raise UnavailableError(f"TensorRT cannot {what}: {said(self._logger)}")

    def _profile(self, bucket: int) -> int:
        if bucket not in self._profiles:
            raise ConfigError(f"the plan has no bucket of {bucket} images; it has {', '.join(map(str, self.buckets))}")
        return self._profiles[bucket]

    def _names(self) -> tuple[str, ...]:
        """Names of the outputs, in the plan's order; the one input must be the image."""
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT]
        if inputs != [INPUT]:
            raise UnavailableError(f"the plan is not of a fusedx encoder: its inputs are {', '.join(inputs) or 'none'}")
        for name in names:
            if engine.get_tensor_dtype(name) not in self._dtypes or engine.get_tensor_location(name) != self._trt.TensorLocation.DEVICE:
                raise UnavailableError(f"the plan is not of a fusedx encoder: {name} is {engine.get_tensor_dtype(name)}")
        return tuple(name for name in names if name != INPUT)

    def _read_profiles(self) -> dict[int, int]:
        """Bucket -> profile, from the plan itself: one shape a profile."""
        profiles = {}
        for index in range(self._engine.num_optimization_profiles):
            low, _, high = (tuple(dims) for dims in self._engine.get_tensor_profile_shape(INPUT, index))
            if low != high or low[1:] != IMAGE:
                raise UnavailableError(f"the plan is not of a fusedx encoder: profile {index} takes images from {low} to {high}")
            profiles[low[0]] = index
        return profiles

    def _tensor(self, context: Any, name: str) -> Tensor:
        shape = tuple(context.get_tensor_shape(name))
        if any(n < 0 for n in shape):
            raise UnavailableError(f"TensorRT does not know the shape of {name} before it runs: {shape}")
        return Tensor(name, shape, self._dtypes[self._engine.get_tensor_dtype(name)])


class Execution:
    """One batch size on fixed addresses.

    The first run prepares kernels and must not be captured in a CUDA graph; capture a later one (``prepared``).  A captured graph
    keeps using this object's addresses and TensorRT's context: keep both alive, and do not bind again.  Not to be used by two
    threads at once: the lock only makes a mistake wait.
    """

    def __init__(self, plan: Plan, context: Any, bucket: int, tensors: list[Tensor], scratch_bytes: int) -> None:
        self.plan = plan  # keeps the engine, its runtime and their logger alive
        self.bucket = bucket
        self.tensors = {tensor.name: tensor for tensor in tensors}
        self.scratch_bytes = scratch_bytes
        self.prepared = False
        self._context = context
        self._bound = False
        self._lock = threading.Lock()

    def bind(self, addresses: Mapping[str, int], scratch: int) -> None:
        """addresses: device address of each of ``tensors``; scratch: of ``scratch_bytes`` bytes, aligned to 256.

        All must stay allocated while runs are in flight.  Raises ConfigError for a missing, unknown or null address.
        """
        if set(addresses) != set(self.tensors):
            expected, got = ", ".join(sorted(self.tensors)), ", ".join(sorted(addresses))
            raise ConfigError(f"addresses are needed for {expected}; got {got or 'none'}")
        if null := [name for name, address in addresses.items() if address <= 0]:
            raise ConfigError(f"the address of {null[0]} is null")
        if self.scratch_bytes and (scratch <= 0 or scratch % ALIGNMENT):
            raise ConfigError(f"scratch memory must be an address aligned to {ALIGNMENT} bytes, got {scratch:#x}")
        with self._lock:
            for name, address in addresses.items():
                self.plan._require(self._context.set_tensor_address(name, address), f"use the address of {name}")
            if self.scratch_bytes:
                self._context.set_device_memory(scratch, self.scratch_bytes)
            self._bound, self.prepared = True, False

    def enqueue(self, stream: int) -> None:
        """Start one run on a stream (its handle, not the default stream's, which cannot be captured).  Returns at once."""
        _require_stream(stream)
        with self._lock:
            if not self._bound:
                raise ConfigError("bind addresses before running the encoder")
            self.plan._require(self._context.execute_async_v3(stream), f"run {self.bucket} images")
            self.prepared = True


def _require_stream(stream: int) -> None:
    if stream <= 2:  # 0 default, 1 legacy default, 2 per-thread default
        raise ConfigError(f"the encoder needs a stream of its own, got the default stream ({stream})")
