"""The float64 reference straight from a published checkpoint: nothing rounded to float32 on the way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fusedx.compiler import checkpoint as checkpoints
from fusedx.compiler.compile import timesteps
from fusedx.engine.backends.python import PythonDenoiser
from fusedx.engine.chain_runner import HostChains
from fusedx.engine.denoiser import fold
from fusedx.engine.encoder import network as encoder_network
from fusedx.engine.encoder.reference import ReferenceEncoder
from fusedx.engine.engine import Engine
from fusedx.engine.weights import check


def checkpoint_reference(source: str | os.PathLike[str], *, steps: int | None = None, task: str = "multiclass") -> Engine:
    """Build the reference of ``source`` (as ``compile_checkpoint`` takes it); needs torch to read it.

    Its ``trace`` agrees with the golden cases to 1e-9 and better.  Raises CheckpointError as compiling does.
    """
    ckpt = checkpoints.read(Path(source), steps=steps)
    graph = encoder_network.build(ckpt.network, ckpt.prior, ckpt.model, np.float64)
    rows = timesteps(ckpt.network, ckpt.schedule)
    tables = fold(ckpt.network, ckpt.model, rows, ckpt.schedule.train_timesteps, np.float64)
    check(ckpt.prior, ckpt.model)
    chains = HostChains(ckpt.network, ckpt.schedule, PythonDenoiser(tables))
    return Engine(ckpt.network, ckpt.schedule, task, ReferenceEncoder(graph), chains)
