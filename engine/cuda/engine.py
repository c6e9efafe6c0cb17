"""The engine of one model on one GPU: encoder, chains and input on one context, and the choice of each by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import torch

from fusedx.engine.chain_runner import ChainRunner
from fusedx.engine.choice import require_usable
from fusedx.engine.compiled import CompiledModel
from fusedx.engine.cuda.chains import CudaChains
from fusedx.engine.cuda.context import Context
from fusedx.engine.cuda.device import GPU
from fusedx.engine.cuda.encoder import DeviceEncoder
from fusedx.engine.cuda.input import CudaInput
from fusedx.engine.cuda.network import open_network
from fusedx.engine.cuda.parallel import SWEEP_ROWS
from fusedx.engine.cuda.precision import ENCODER_PRECISION, PRECISIONS
from fusedx.engine.encoder import tensorrt
from fusedx.engine.engine import Engine
from fusedx.engine.errors import ConfigError, UnavailableError
from fusedx.engine.sampler import SEQUENTIAL, Plan
from fusedx.engine.sampling import SEQUENTIALLY, Sampler

log = logging.getLogger("fusedx")


class _Warmable(ChainRunner, Protocol):
    def warm_up(self, rows: int, plan: Plan = SEQUENTIAL) -> None: ...

    def captured(self) -> list[int]: ...


class CudaEngine(Engine):
    """See :class:`fusedx.engine.engine.Engine`; its images are device tensors that ``input`` makes."""

    encoder: DeviceEncoder
    chains: _Warmable

    def __init__(self, compiled: CompiledModel, gpu: GPU, context: Context, encoder: DeviceEncoder, chains: _Warmable) -> None:
        m = compiled.manifest
        super().__init__(m.network, m.schedule, m.task, encoder, chains)
        self.gpu, self.context = gpu, context
        self.input = CudaInput(context)

    def warm_up(
        self,
        batch_sizes: Sequence[int],
        draws: int | str,
        progress: Callable[[int, int, str], None],
        sampler: Sampler = SEQUENTIALLY,
    ) -> None:
        """Compile and capture all that these batches will run; ``progress(done, total, what)`` before each part and at the end."""
        sizes = sorted(set(batch_sizes))  # not their buckets: the chain's rows follow from the size itself
        self.input.warm_up()
        for done, size in enumerate(sizes):
            progress(2 * done, 2 * len(sizes), f"encoder, batch {size}")
            self.encoder.warm_up(size)
            progress(2 * done + 1, 2 * len(sizes), f"chain, batch {size}")
            for rows in sorted(self.chain_rows(size, draws)):
                self.chains.warm_up(rows, self.plan(sampler, rows // self.rows_per_chain))
        progress(2 * len(sizes), 2 * len(sizes), "ready")

    def plan(self, sampler: Sampler, chains: int) -> Plan:
        """See :class:`fusedx.engine.engine.Engine`.  ``auto`` is sequential until a GPU has measured what is faster."""
        if sampler.kind != "parallel":
            return SEQUENTIAL
        if sampler.variant not in (None, "picard"):
            raise ConfigError(f"sampler variant {sampler.variant!r} does not run on a GPU; there it is picard, or leave it out")
        if self.chains.name != "triton":
            raise ConfigError(
                f"sampler 'parallel' does not run on backend {self.chains.name!r}; load with backend='triton', or use 'sequential'"
            )
        return Plan(max(2, sampler.rows or SWEEP_ROWS))

    @property
    def ready(self) -> bool:
        """Whether some batch can run without compiling or capturing first."""
        return bool(self.encoder.captured() and self.chains.captured())

    def _checked_images(self, images: Any) -> Any:
        """Tensors are already on the device, checked for type and shape by whoever made them of a foreign array."""
        if not isinstance(images, torch.Tensor):
            return super()._checked_images(images)
        with self.context.working():
            if not bool(torch.isfinite(images).all()):
                raise ConfigError("x has NaN or infinite values")
        return images

    def _on_host(self, images: Any) -> np.ndarray:
        if not isinstance(images, torch.Tensor):
            return images
        with self.context.working():
            return images.cpu().numpy()


def backends(gpu: GPU) -> dict[str, str | None]:
    """Who can run the chain on this GPU -> None, or the reason why not."""
    triton = None if find_spec("triton") else "triton is not installed (pip install 'fusedx[cuda]')"
    return {"triton": triton, "persistent": None}


def encoders() -> dict[str, str | None]:
    """Who can run the encoder on a GPU -> None, or the reason why not."""
    return {"tensorrt": tensorrt.why_not(), "torch": None, "torch-eager": None}


def open_engine(
    compiled: CompiledModel,
    gpu: GPU,
    *,
    precision: str,
    backend: str,
    encoder: str,
    graphs: bool = True,
    batch_invariant: bool = True,
) -> CudaEngine:
    """Everything on the GPU, chosen by name; ``auto`` takes the first that is usable, and says so."""
    require_usable("precision", precision, dict.fromkeys(PRECISIONS))
    if not torch.cuda.is_available():
        raise UnavailableError(f"torch {torch.__version__} cannot use {gpu}: it is built without CUDA, or for a newer driver")
    context = Context(torch.device("cuda", gpu.index), capture=graphs)
    encoder = _chosen("encoder", encoder, encoders())
    backend = _chosen("backend", backend, backends(gpu))
    with context.working():
        chains = _open_chains(backend, compiled, gpu, context, precision, batch_invariant)
        opened = _open_encoder(encoder, compiled, gpu, context, ENCODER_PRECISION[precision], batch_invariant)
    return CudaEngine(compiled, gpu, context, opened, chains)


def _chosen(kind: str, name: str, choices: dict[str, str | None]) -> str:
    if name == "auto":
        name = next((n for n, reason in choices.items() if reason is None), next(iter(choices)))
        for other, reason in choices.items():
            if other == name:
                break
            log.info("%s %s is not used: %s", kind, other, reason)
    require_usable(kind, name, choices, also=("auto",))
    return name


def _open_chains(
    backend: str, compiled: CompiledModel, gpu: GPU, context: Context, precision: str, batch_invariant: bool
) -> _Warmable:
    m, tables = compiled.manifest, compiled.denoiser()
    try:
        if backend == "persistent":
            from fusedx.engine.cuda.memory_torch import TorchMemory
            from fusedx.engine.cuda.persistent import PersistentChains

            memory = TorchMemory(gpu.index, context.torch_stream, context.working)
            return PersistentChains(m.network, m.schedule, tables, gpu, memory, precision)
        return CudaChains(m.network, m.schedule, tables, context, gpu.target.cc, precision, batch_invariant=batch_invariant)
    except ValueError as error:  # a weight format that cannot hold these weights, a network that no plan fits
        raise ConfigError(f"{compiled.path} cannot run with precision {precision} on {gpu.name}: {error}") from error


def _open_encoder(
    name: str, compiled: CompiledModel, gpu: GPU, context: Context, precision: str, batch_invariant: bool
) -> DeviceEncoder:
    if name == "tensorrt":
        from fusedx.engine.cuda.tensorrt_network import open_tensorrt

        network, outputs = open_tensorrt(compiled, gpu, context, precision, batch_invariant=batch_invariant)
    else:
        network, outputs = open_network(compiled.encoder, context.device, precision, compiler=None if name == "torch-eager" else "inductor")
    return DeviceEncoder(name, network, outputs, context, precision, batch_invariant=batch_invariant)
