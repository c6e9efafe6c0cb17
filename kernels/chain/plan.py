"""What one launch of the chain kernel looks like on a GPU: a pure host function that prints itself.

Shared memory holds, in this order of need, the activations of all rows, the ring through which weights stream, and with what is
left the first weights of each layer, which then cost no traffic at all.  Of the weights that stream, as many as the L2 cache
takes are asked to stay in it; asking for more would evict each line just before its next use, once a step.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusedx.kernels.chain.layout import (
    MAX_CLASSES,
    MAX_ROWS,
    STAGE_BYTES,
    STEP_TERMS_BYTES,
    THREADS,
    TILE,
    TILES_A_FLUSH,
    WARPS,
    Format,
    Shape,
    shape,
    weight_format,
)
from fusedx.kernels.target import Target

#: Stages a warp in flight.  Bandwidth times latency needs about 32 KB an SM on the widest part (3.4 TB/s x 1 us / 132), two
#: stages; the ring also fills while a block waits at a grid barrier, several microseconds, which six stages (96 KB) cover.
RING_STAGES = 6
#: Fewer rows a launch are taken before the ring gets shorter than this.
MIN_RING_STAGES = 3
#: Share of the L2 cache for weights that are asked to stay.  The rest serves what streams through, tables and activations.
L2_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class ChainPlan:
    """One launch.  ``rows``: at most so many a launch.  Stages are of one warp; ``resident`` and ``kept``: (layer 2, layer 3)."""

    target: Target
    format: Format
    shape: Shape
    classes: int
    rows: int
    blocks: int
    ring_stages: int
    resident: tuple[int, int]
    kept: tuple[int, int]

    threads = THREADS

    @property
    def entry_point(self) -> str:
        """Symbol of the kernel in ``chain.cu``."""
        return f"fusedx_chain_{self.format.name}"

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a launch of ``rows`` rows; fewer rows fit too."""
        return WARPS * STAGE_BYTES * (self.ring_stages + sum(self.resident)) + fixed_bytes(self.format, self.shape, self.rows)

    @property
    def hidden_bytes(self) -> int:
        """Scratch for u2."""
        return self.rows * self.shape.k * self.format.activation_bytes

    @property
    def partial_bytes(self) -> int:
        """Scratch for the partial sums of layer 4."""
        return self.rows * self.classes * self.shape.tiles * 4

    def stages(self, block: int) -> int:
        """Stages a warp of one layer in ``block``."""
        tiles = self.shape.tiles
        return ((block + 1) * tiles // self.blocks - block * tiles // self.blocks) * self.shape.stages_a_tile

    @property
    def traffic(self) -> tuple[int, int, int]:
        """Bytes of weights a step: that stay in shared memory, that the L2 cache is asked to keep, that come from memory."""
        resident = kept = 0
        for block in range(self.blocks):
            for layer in (0, 1):
                stays = min(self.resident[layer], self.stages(block))
                resident += stays
                kept += min(self.kept[layer], self.stages(block) - stays)
        stage = WARPS * STAGE_BYTES
        return resident * stage, kept * stage, 2 * self.shape.weight_bytes - (resident + kept) * stage

    def describe(self) -> str:
        """One line for the log."""
        resident, kept, memory = (f"{n / 1e6:.1f}" for n in self.traffic)
        shared, limit = self.shared_bytes / 1024, self.target.shared_per_block // 1024
        return (
            f"chain {self.format.name} F={self.shape.feature_dim} C={self.classes} on {self.target.arch}:"
            f" {self.blocks} blocks x {THREADS} threads, <= {self.rows} rows a launch, {shared:.1f} KB shared memory of {limit},"
            f" ring {self.ring_stages} stages; MB of weights a step: {resident} in shared memory, {kept} in L2, {memory} from memory"
        )


def fixed_bytes(form: Format, size: Shape, rows: int) -> int:
    """Shared memory besides weights, as ``workspace.cuh`` lays it out: activations, sums, u3, a step's few numbers."""
    sums = TILES_A_FLUSH * rows * TILE * 4
    return rows * size.k * form.activation_bytes + (WARPS + 1) * sums + STEP_TERMS_BYTES


def plan(target: Target, dtype: str, feature_dim: int, classes: int, rows: int, *, ring_stages: int = RING_STAGES) -> ChainPlan:
    """The launch for ``rows`` chains at once, or for an equal share of them where not all fit into one launch.

    Raises ValueError, saying what to use instead, where the kernel cannot run: more than 15 classes, or a feature_dim whose
    activations leave no room for weights in shared memory.
    """
    form = weight_format(dtype)
    size = shape(form, feature_dim)
    if not 1 <= classes <= MAX_CLASSES:
        raise ValueError(f"the chain kernel takes 1 to {MAX_CLASSES} classes, got {classes}; the layer-by-layer kernels take more")
    if rows < 1:
        raise ValueError(f"rows must be 1 or more, got {rows}")
    if not 2 <= ring_stages <= 8:
        raise ValueError(f"ring_stages must be from 2 to 8, got {ring_stages}")
    most = _rows_that_fit(target, form, size, min(ring_stages, MIN_RING_STAGES))
    launches = -(-rows // most)
    each = -(-rows // launches)
    room = (target.shared_per_block - fixed_bytes(form, size, each)) // (WARPS * STAGE_BYTES)
    ring = min(ring_stages, room)
    blocks = min(target.sms, size.tiles)
    resident, kept = _placement(target, size, blocks, room - ring)
    return ChainPlan(target, form, size, classes, each, blocks, ring, resident, kept)


def _rows_that_fit(target: Target, form: Format, size: Shape, ring_stages: int) -> int:
    ring = WARPS * STAGE_BYTES * ring_stages
    fits = [rows for rows in range(1, MAX_ROWS + 1) if fixed_bytes(form, size, rows) + ring <= target.shared_per_block]
    if not fits:
        need = fixed_bytes(form, size, 1) + ring
        raise ValueError(
            f"feature_dim {size.feature_dim} in {form.name} needs {need} bytes of shared memory for one row, {target.arch} has"
            f" {target.shared_per_block}; use the layer-by-layer kernels, or a narrower weight format"
        )
    return max(fits)


def _placement(target: Target, size: Shape, blocks: int, room: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(resident, kept) stages of layers 2 and 3: half of the room each, layer 3 the odd one."""
    longest = -(-size.tiles // blocks) * size.stages_a_tile
    resident = min(room // 2, longest), min(room - room // 2, longest)
    budget = int(L2_SHARE * target.l2) // (blocks * WARPS * STAGE_BYTES)
    kept = min(budget // 2, longest - resident[0]), min(budget - budget // 2, longest - resident[1])
    return resident, kept
