"""How the chain kernel cuts its weights, in numbers that ``params.cuh`` shares.

A layer's [F, F] weights are padded to [16 tiles, K] and cut into chunks of 512 bytes, 16 outputs by as many inputs as fit.
Four chunks in a row of K are a stage, what one warp copies at a time; eight warps share K, so K is a multiple of eight stages.
"""

from __future__ import annotations

from dataclasses import dataclass

WARPS = 8
THREADS = 32 * WARPS
TILE = 16
CHUNK_BYTES = 512
STAGE_CHUNKS = 4
STAGE_BYTES = STAGE_CHUNKS * CHUNK_BYTES
TILES_A_FLUSH = 4
STEP_TERMS_BYTES = 4464  # StepTerms in workspace.cuh
MAX_ROWS = 8
MAX_CLASSES = 15
MAX_FEATURE_DIM = 1 << 17


@dataclass(frozen=True, slots=True)
class Format:
    """A weight format.  Sizes in bytes; ``code``: its number in C interfaces."""

    name: str
    code: int
    weight_bytes: int
    activation_bytes: int

    @property
    def chunk_inputs(self) -> int:
        """Inputs of one chunk: 8, 16 or 32."""
        return CHUNK_BYTES // TILE // self.weight_bytes

    @property
    def quantum(self) -> int:
        """What K is a multiple of: one stage for each warp."""
        return WARPS * STAGE_CHUNKS * self.chunk_inputs

    @property
    def unit(self) -> int:
        """Activations of one row that lie together: 32 bytes."""
        return 32 // self.activation_bytes


FORMATS = {f.name: f for f in (Format("fp32", 0, 4, 4), Format("bf16", 1, 2, 2), Format("fp16", 2, 2, 2), Format("fp8", 3, 1, 2))}


def weight_format(name: str) -> Format:
    """Format by name; ValueError that lists the names."""
    if name not in FORMATS:
        raise ValueError(f"weight format {name!r} is not known to the chain kernel; known: {', '.join(FORMATS)}")
    return FORMATS[name]


@dataclass(frozen=True, slots=True)
class Shape:
    """A layer's padded size: ``k`` inputs, ``tiles`` of 16 outputs, ``stages_a_tile`` of each warp."""

    feature_dim: int
    k: int
    tiles: int
    stages_a_tile: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of one layer's packed weights."""
        return WARPS * self.tiles * self.stages_a_tile * STAGE_BYTES


def shape(form: Format, feature_dim: int) -> Shape:
    """Padded size of an F x F layer; ValueError for an F outside 1..131072."""
    if not 1 <= feature_dim <= MAX_FEATURE_DIM:
        raise ValueError(f"feature_dim must be from 1 to {MAX_FEATURE_DIM}, got {feature_dim}")
    k = -(-feature_dim // form.quantum) * form.quantum
    return Shape(feature_dim, k, -(-feature_dim // TILE), k // form.quantum)
