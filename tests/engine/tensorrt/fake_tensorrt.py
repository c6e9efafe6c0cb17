"""A TensorRT that computes on the CPU: the binding's own enumerations, Dims and logger, and stand-ins that check every call.

A built plan is a few bytes that name the typed graph, which :class:`Emulator` evaluates; addresses are those of host memory.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import typed_file
from binding_signatures import Standin
from typed_emulator import Emulator

Outputs = dict[str, np.ndarray]
_ENUMS = (
    "BuilderFlag", "DataType", "Dims", "ExecutionContextAllocationStrategy", "ILogger", "MemoryPoolType", "NetworkDefinitionCreationFlag",
    "TensorIOMode", "TensorLocation",
)  # fmt: skip
SCRATCH = 4096
GARBAGE = b"not a timing cache"


class Machine:
    """What the fake modules of one test share.

    graphs: what plans refer to.  fault: changes a batch's outputs, given (outputs, bucket).  calls: what was asked for, in order.
    """

    def __init__(self) -> None:
        self.graphs: dict[str, Emulator] = {}
        self.fault: Callable[[Outputs, int], Outputs] | None = None
        self.calls: list[str] = []
        self.configured: list[Any] = []
        self.parse_error: str | None = None
        self.build_fails = False


def module(real: ModuleType, machine: Machine, version: str | None = None) -> SimpleNamespace:
    """The fake of one binding module; what the lean one lacks, this lacks."""
    version = version or real.__version__
    fake = SimpleNamespace(__name__=real.__name__, __version__=version)
    for name in _ENUMS:
        if hasattr(real, name):
            setattr(fake, name, getattr(real, name))
    runtime(real, fake, machine)
    if hasattr(real, "Builder"):
        builder(real, fake, machine)
    return fake


def builder(real: Any, fake: SimpleNamespace, machine: Machine) -> None:
    class Profile(Standin, real=real.IOptimizationProfile):
        def set_shape(self, input, min, opt, max):
            assert tuple(min) == tuple(opt) == tuple(max)
            self._shapes = {input: tuple(opt)}

    class TimingCache(Standin, real=real.ITimingCache):
        def __init__(self, content: bytes) -> None:
            self._content = content

        def serialize(self):
            return b"timed:" + self._content

    class Config(Standin, real=real.IBuilderConfig):
        def __init__(self) -> None:
            self._flags, self._profiles, self._limits, self._cache = {real.BuilderFlag.TF32}, [], {}, None
            machine.configured.append(self)

        def set_flag(self, flag):
            self._flags.add(flag)

        def clear_flag(self, flag):
            self._flags.discard(flag)

        def set_memory_pool_limit(self, pool, pool_size):
            self._limits[pool] = pool_size

        def add_optimization_profile(self, profile):
            self._profiles.append(profile._shapes["image"])
            return len(self._profiles) - 1

        def create_timing_cache(self, serialized_timing_cache):
            return TimingCache(bytes(serialized_timing_cache))

        def set_timing_cache(self, cache, ignore_mismatch):
            if cache._content == GARBAGE:
                return False
            self._cache = cache
            return True

    class Network(Standin, real=real.INetworkDefinition):
        pass

    class ParserError(Standin, real=real.ParserError):
        def desc(self):
            return str(machine.parse_error)

        def node_name(self):
            return "a_node"

        def node_operator(self):
            return "Conv"

    class OnnxParser(Standin, real=real.OnnxParser):
        def __init__(self, network, logger) -> None:
            self._network = network

        def parse_from_file(self, model):
            if machine.parse_error is None:
                self._network._graph = typed_file.read(Path(model))
            return machine.parse_error is None

        @property
        def num_errors(self):
            return int(machine.parse_error is not None)

        def get_error(self, index):
            return ParserError()

    class Builder(Standin, real=real.Builder):
        def __init__(self, logger) -> None:
            self._logger = logger

        def create_network(self, flags=0):
            machine.calls.append(f"create_network({flags})")
            return Network()

        def create_builder_config(self):
            return Config()

        def create_optimization_profile(self):
            return Profile()

        def build_serialized_network(self, network, config):
            machine.calls.append("build")
            if machine.build_fails:
                self._logger.log(real.ILogger.Severity.ERROR, "no tactic left")
                return None
            name = f"graph-{len(machine.graphs)}"
            machine.graphs[name] = Emulator(network._graph)
            compatible = real.BuilderFlag.VERSION_COMPATIBLE in config._flags
            plan = {"graph": name, "profiles": config._profiles, "version": fake.__version__, "compatible": compatible}
            return json.dumps(plan).encode()

    fake.Builder, fake.OnnxParser = Builder, OnnxParser


def runtime(real: Any, fake: SimpleNamespace, machine: Machine) -> None:
    lean = not hasattr(real, "Builder")

    class Context(Standin, real=real.IExecutionContext):
        def __init__(self, engine, logger) -> None:
            self._engine, self._logger = engine, logger
            self._profile = self._shape = self._scratch = None
            self._addresses: dict[str, int] = {}

        def set_optimization_profile_async(self, profile_index, stream_handle):
            self._profile = self._engine._plan["profiles"][profile_index]
            return True

        def set_input_shape(self, name, shape):
            self._shape = shape
            return name == "image" and list(shape) == list(self._profile)

        def get_tensor_shape(self, name):
            return real.Dims(self._shape if name == "image" else (self._shape[0], *self._engine._tails[name][0]))

        def set_tensor_address(self, name, memory):
            self._addresses[name] = memory
            return True

        def set_device_memory(self, memory, size):
            self._scratch = memory, size

        def execute_async_v3(self, stream_handle):
            if self._scratch is None or self._scratch[1] < SCRATCH or len(self._addresses) != 1 + len(self._engine._tails):
                self._logger.log(real.ILogger.Severity.ERROR, "an address was not set")
                return False
            machine.calls.append(f"run {self._shape[0]} on {stream_handle}")
            images = _array(self._addresses["image"], tuple(self._shape), np.float32).copy()
            out = self._engine._emulator.run(images)
            if machine.fault is not None:
                out = machine.fault({k: v.copy() for k, v in out.items()}, len(images))
            for name, (tail, dtype) in self._engine._tails.items():
                if name in out:
                    _array(self._addresses[name], (len(images), *tail), dtype)[:] = out[name]
            return True

    class Engine(Standin, real=real.ICudaEngine):
        def __init__(self, plan, logger) -> None:
            self._plan, self._logger = plan, logger
            self._emulator = machine.graphs[plan["graph"]]
            probe = self._emulator.run(np.zeros((1, 3, 224, 224), np.float32))
            self._tails = {name: (array.shape[1:], array.dtype) for name, array in probe.items()}
            self._names = ["image", *self._tails]

        @property
        def num_io_tensors(self):
            return len(self._names)

        @property
        def num_optimization_profiles(self):
            return len(self._plan["profiles"])

        def get_tensor_name(self, index):
            return self._names[index]

        def get_tensor_mode(self, name):
            return real.TensorIOMode.INPUT if name == "image" else real.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name):
            whole = name != "image" and self._tails[name][1] == np.int64
            return real.DataType.INT64 if whole else real.DataType.FLOAT

        def get_tensor_location(self, name):
            return real.TensorLocation.DEVICE

        def get_tensor_profile_shape(self, name, profile_index):
            return [real.Dims(self._plan["profiles"][profile_index])] * 3

        def get_device_memory_size_for_profile_v2(self, profile_index):
            return SCRATCH

        def create_execution_context(self, strategy):
            assert strategy == real.ExecutionContextAllocationStrategy.USER_MANAGED
            return Context(self, self._logger)

    class Runtime(Standin, real=real.Runtime):
        def __init__(self, logger) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine):
            plan = json.loads(serialized_engine)
            if not plan["compatible"] and (lean or plan["version"] != fake.__version__):
                self._logger.log(real.ILogger.Severity.ERROR, f"built by {plan['version']}, running {fake.__version__}")
                return None
            machine.calls.append(f"load into {'lean' if lean else 'full'}")
            return Engine(plan, self._logger)

    fake.Runtime = Runtime


def _array(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Host memory as an array that can be written to."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_ubyte * count).from_address(address), dtype).reshape(shape)
