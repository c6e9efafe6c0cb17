"""The precisions that a model could be compiled in, cheapest first.

What one picture costs a processor is mostly reading weights, so the cost of a candidate is the bytes it reads:

    steps x (the two large matrices of the denoiser in the candidate's format)  +  ENCODER_READS x (the encoder's constants)

At one row a step's time follows its bytes, int4 < int8 < fp16 = bf16 < fp32 (`python benchmarks/bench_cpu.py`).  fp16 stands before
bf16, which has the same bytes and three bits of fraction less.  A convolution uses each weight at many places of the picture, so an
encoder takes longer than reading it once.  With few steps (DiffMIC-v2) an encoder in int8 can save more than the next smaller weights,
with many it never does.  A model of cost, not a measurement, so that the same pictures choose the same model on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusedx.engine.denoiser import LARGE
from fusedx.engine.encoder.graph import Graph
from fusedx.engine.manifest import Network
from fusedx.kernels.conditional_layer import packed

#: Weights from the cheapest; what costs the same is ordered by how near it is to fp32.
CHEAPEST_FIRST = ("int4", "int8", "fp16", "bf16", "fp32")
#: The full-width fp32 encoder took the time of reading its weights so often: 65 ms for 245 MB (`python benchmarks/bench_encoder_int8.py`),
#: where a step reads 302 MB in 9.6 ms (`python benchmarks/bench_cpu.py`).
ENCODER_READS = 8
_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1}


@dataclass(frozen=True, slots=True)
class Candidate:
    """Precision of the denoiser's weights and of the encoder; cost_bytes: as this file defines it."""

    precision: str
    encoder_precision: str
    cost_bytes: int

    def __str__(self) -> str:
        return f"weights in {self.precision}, encoder in {self.encoder_precision}"


def candidates(network: Network, steps: int, encoders: dict[str, Graph]) -> list[Candidate]:
    """Every pair but fp32 with fp32, which judges them, from the cheapest.  encoders: by precision, those that there are."""
    found = []
    for precision in CHEAPEST_FIRST:
        try:
            chain = steps * large_bytes(network, precision)
        except ValueError:  # too wide a matrix for it
            continue
        for name, graph in encoders.items():
            if (precision, name) != ("fp32", "fp32"):
                found.append(Candidate(precision, name, chain + ENCODER_READS * sum(a.nbytes for a in graph.constants.values())))
    return sorted(found, key=lambda c: c.cost_bytes)  # stable: what costs the same keeps its order


def large_bytes(network: Network, precision: str) -> int:
    """Bytes of the two large matrices, which every step reads.  ValueError where the format cannot hold them."""
    parts = packed.shapes(precision, network.feature_dim, network.feature_dim).values()
    return len(LARGE) * sum(int(np.prod(shape)) * _BYTES[dtype] for shape, dtype in parts)
