"""The float64 reference: the same graph and chain as the engine, every operation in plain numpy and double precision."""

from __future__ import annotations

import numpy as np

from fusedx.engine.backends.python import PythonDenoiser
from fusedx.engine.chain_runner import HostChains
from fusedx.engine.compiled import CompiledModel
from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.encoder import reference as reference_encoder
from fusedx.engine.engine import Engine


def reference_engine(compiled: CompiledModel) -> Engine:
    """What a compiled model's float32 weights imply, computed in float64."""
    tables = DenoiserTables(**{name: array.astype(np.float64) for name, array in compiled.stored_denoiser().tables().arrays().items()})
    m = compiled.manifest
    chains = HostChains(m.network, m.schedule, PythonDenoiser(tables))
    return Engine(m.network, m.schedule, m.task, reference_encoder.open_file(compiled.encoder), chains)
