"""Which engine a compiled model gets: device, precision, backend and encoder by name."""

from __future__ import annotations

from typing import Any

from fusedx.engine.backends import open_chains
from fusedx.engine.compiled import CompiledModel
from fusedx.engine.cuda import device as cuda_device
from fusedx.engine.cuda.device import GPU
from fusedx.engine.encoder import open_encoder
from fusedx.engine.engine import Engine
from fusedx.engine.errors import ConfigError, UnavailableError
from fusedx.engine.manifest import PRECISIONS
from fusedx.engine.sampler import measured
from fusedx.engine.sampler.cost import Costs
from fusedx.preparation import CudaPreparation, HostPreparation, Preparation


def find_device(device: str, precision: str | None) -> GPU | None:
    """The GPU that ``device`` means, None for the CPU.  Raises ConfigError, UnavailableError; touches no file."""
    index = cuda_device.parse(device)
    if index is None:
        if precision is not None and precision not in PRECISIONS:
            raise UnavailableError(f"precision {precision!r} is not available on a CPU; there is: {', '.join(PRECISIONS)}")
        return None
    try:
        return cuda_device.find(index)
    except UnavailableError as error:
        raise UnavailableError(f"device cuda:{index} is not available: {error}. There is: cpu") from error


def find_precision(compiled: CompiledModel, gpu: GPU | None, precision: str | None) -> str:
    """The weights' precision: as compiled unless asked for by name, which only a model compiled in fp32 leaves open."""
    own = compiled.manifest.precision
    if gpu is not None:
        return "fp32" if precision is None else precision  # the GPU's engine refuses what is not compiled in fp32
    if precision in (None, own):
        return own
    if own != "fp32":
        raise UnavailableError(
            f"precision {precision!r} is not available: {compiled.path} is compiled in {own}. There is: {own}; "
            "a checkpoint compiled in fp32 can be loaded in any precision"
        )
    assert precision is not None
    return precision


def open_engine(
    compiled: CompiledModel,
    gpu: GPU | None,
    *,
    precision: str | None,
    backend: str,
    encoder: str,
    encoder_threads: int | None = None,
    graphs: bool = True,
    batch_invariant: bool = True,
) -> tuple[Engine, Preparation]:
    """The engine and what prepares its images; arguments as of :func:`fusedx.load`."""
    precision = find_precision(compiled, gpu, precision)
    if gpu is not None:
        if encoder_threads is not None:
            raise ConfigError("encoder_threads is for encoders on a CPU; leave it out on a GPU")
        engine = _cuda_opener()(
            compiled, gpu, precision=precision, backend=backend, encoder=encoder, graphs=graphs, batch_invariant=batch_invariant
        )
        return engine, CudaPreparation(engine)
    m = compiled.manifest
    # The encoder first: it needs the most memory while it loads, and gives half of it back.
    opened = open_encoder(encoder, compiled.encoder, encoder_threads)
    chains = open_chains(backend, compiled.stored_denoiser().in_precision(precision), m.schedule)
    # In numpy a row is a read of the weights, so that rows cost what steps cost.
    costs = measured.costs(precision, m.network.feature_dim) if chains.name == "native" else Costs((1,), (1.0,))
    return Engine(m.network, m.schedule, m.task, opened, chains, costs), HostPreparation()


def _cuda_opener() -> Any:
    """The function that opens a model on a GPU; it needs torch."""
    try:
        from fusedx.engine.cuda.engine import open_engine
    except ImportError as error:
        raise UnavailableError(
            f"device cuda needs torch and triton, and one does not import ({error}): pip install 'fusedx[cuda]'; "
            "without torch there is fusedx.engine.edge"
        ) from error
    return open_engine
