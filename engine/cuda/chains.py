"""The chain on a GPU: three launches a step, all steps of a chain in one CUDA graph.

    start   layer 1 from the start state                                                     kernels/step
    step    layer 2                                                                          kernels/conditional_layer
            layer 3, with layer 4's partial dot products in its epilogue                     kernels/conditional_layer
            partials summed in fixed order, update of the state, layer 1 of the next step    kernels/step

A row is one draw of one image (DiffMIC-v2: at one of six map points) and an entry is what its chain is conditioned on.  Rows are
padded to a bucket; the padding repeats entry 0 and is never read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fusedx.engine.chain_runner import Encoded, entries
from fusedx.engine.cuda.buckets import ROW_BUCKETS, bucket, pieces
from fusedx.engine.cuda.context import Context
from fusedx.engine.cuda.encoding import DeviceEncoding
from fusedx.engine.cuda.tables import DeviceTables
from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.manifest import MAP_POINTS, Network
from fusedx.engine.sampler import SEQUENTIAL, Chains, Plan, dense_points, map_mean
from fusedx.engine.schedule import Schedule, chain_program
from fusedx.kernels.conditional_layer import variants
from fusedx.kernels.conditional_layer.triton import conditional_layer, projected_layer
from fusedx.kernels.step import triton as step_kernel

log = logging.getLogger("fusedx")

#: Bytes of noise and states that one captured chain may hold; more rows than that run one piece after the other.
_STATE_BYTES = 256 << 20


@dataclass(slots=True)
class _Buffers:
    """Static memory of one bucket of R rows: what the graph reads and writes.  S states, T steps."""

    noise: torch.Tensor  # [T,R,C] float64: the starting draw, then the draw used at each step; DiffMIC-v2 [1,R,C], the start alone
    start: torch.Tensor  # [R,C] float64
    states: torch.Tensor  # [S,R,C] float64
    prior: torch.Tensor  # [R,C] float64, of each entry; also the mean of the chain, unless that is zero
    feature: torch.Tensor  # [R,F] float32, of each entry
    constant: torch.Tensor  # [R,F] float32: W1_p p of each entry
    entry: torch.Tensor  # [R] int32
    timestep: torch.Tensor  # [T,R] int32: row t is all t, and no memory but its first element
    u1: torch.Tensor  # [R,F]
    u2: torch.Tensor  # [R,F]
    partial: torch.Tensor  # [R,tiles,C] float32
    run: Callable[[], None] | None = None


class CudaChains:
    """See :class:`fusedx.engine.chain_runner.ChainRunner`."""

    name = "triton"

    def __init__(
        self,
        network: Network,
        schedule: Schedule,
        tables: DenoiserTables,
        context: Context,
        cc: int,
        precision: str,
        *,
        batch_invariant: bool = True,
    ) -> None:
        self.precision = precision
        self._network, self._context, self._cc = network, context, cc
        self._invariant = batch_invariant
        self._v2 = network.family == "diffmic-v2"
        self._steps = schedule.steps
        self._tables = DeviceTables.upload(tables, precision, context.device)
        program = chain_program(schedule, v2=self._v2)
        self._family, self._order = program.family, program.order.tolist()
        self._coefficients = torch.from_numpy(program.coefficients).to(context.device)
        distance = torch.arange(MAP_POINTS, dtype=torch.float32, device=context.device)[:, None] / float(MAP_POINTS - 1)
        self._near, self._far = (1 - distance).double(), distance.double()  # float32 values, as published
        self._buffers: dict[tuple[int, bool], _Buffers] = {}

    def run(self, encoded: Encoded, noise: np.ndarray, *, keep: bool, plan: Plan = SEQUENTIAL) -> Chains:
        """See :class:`fusedx.engine.chain_runner.ChainRunner`."""
        with self._context.working():
            prior, feature = self._entries(encoded)
            z = dense_points(noise[0], noise[1])[None] if self._v2 else noise
            rows = z.reshape(len(z), -1, z.shape[-1])
            # Rows repeat the entries in their order, once a draw.
            states = [self._piece(rows, prior, feature, piece, keep) for piece in pieces(rows.shape[1], self._most_rows(keep))]
        kept = np.concatenate(states, axis=1).reshape(-1, *z.shape[1:])
        return Chains(scores=map_mean(kept[-1]) if self._v2 else kept[-1], states=kept)

    def eps(self, encoded: Encoded, y: np.ndarray, step: int) -> np.ndarray:
        """See :class:`fusedx.engine.chain_runner.ChainRunner`."""
        rows = y.reshape(-1, y.shape[-1])
        with self._context.working():
            prior, feature = self._entries(encoded)
            b = self._allocate(len(rows), keep=False)
            self._fill(b, rows[None], prior, feature, np.arange(len(rows), dtype=np.int32))
            self._prepare(b)
            b.states[0].copy_(b.noise[0])
            step_kernel.start(b.states[0], t_next=b.timestep[step], image=b.entry, first=self._first_layer(b))
            self._layers(b, step)
            total = b.partial.double().sum(dim=1) + self._tables.bias4
            return total.cpu().numpy().reshape(y.shape)

    def warm_up(self, rows: int) -> None:
        """Allocate, compile and capture what so many rows will run."""
        with self._context.working():
            for piece in pieces(rows, self._most_rows(keep=False)):
                self._ready(bucket(piece.stop - piece.start, ROW_BUCKETS), keep=False)

    def captured(self) -> list[int]:
        """Rows of the buckets that are ready."""
        return sorted(rows for (rows, keep), b in self._buffers.items() if b.run and not keep)

    def _variant(self, rows: int) -> variants.Variant:
        return variants.choose(self._cc, self.precision, rows, invariant=self._invariant, classes=self._network.num_classes)

    def _most_rows(self, keep: bool) -> int:
        bytes_per_row = 8 * self._network.num_classes * self._steps * (2 if keep else 1)
        fitting = [rows for rows in ROW_BUCKETS if rows * bytes_per_row <= _STATE_BYTES]
        return fitting[-1] if fitting else 1

    def _entries(self, encoded: Encoded) -> tuple[torch.Tensor, torch.Tensor]:
        """(prior float64 [M,C], feature float32 [M,F]), left on the device where they are there."""
        if not isinstance(encoded, DeviceEncoding):
            prior, feature = entries(encoded, v2=self._v2)
            return torch.from_numpy(prior), torch.from_numpy(np.ascontiguousarray(feature, np.float32))
        if not self._v2:
            return encoded.on_device("prior").double(), encoded.on_device("feature")
        points = [encoded.on_device(name).double()[:, None] for name in ("y_global", "y_local")]
        dense = self._near * points[0] + self._far * points[1]  # [B,6,C]; dense_points, operation by operation
        return dense.flatten(0, 1), encoded.on_device("fused_feature").repeat_interleave(MAP_POINTS, dim=0)

    def _piece(self, rows: np.ndarray, prior: torch.Tensor, feature: torch.Tensor, piece: slice, keep: bool) -> np.ndarray:
        """Some of the rows' noise [T or 1,R,C] -> [S,R,C]: the start and, if kept, every later state, otherwise the last."""
        size = piece.stop - piece.start
        used, entry = np.unique(np.arange(piece.start, piece.stop) % len(prior), return_inverse=True)
        if len(used) < len(prior):
            prior, feature = (x[torch.from_numpy(used).to(x.device)] for x in (prior, feature))
        b = self._ready(bucket(size, ROW_BUCKETS), keep)
        self._fill(b, rows[:, piece], prior, feature, entry.astype(np.int32))
        assert b.run is not None
        b.run()
        ends = b.states if keep else torch.stack([b.start, b.states[self._steps % 2]])
        return ends[:, :size].cpu().numpy()

    def _ready(self, rows: int, keep: bool) -> _Buffers:
        if (rows, keep) not in self._buffers:
            classes = self._network.num_classes
            log.info("%s", variants.describe("layer", self._cc, self.precision, rows, invariant=self._invariant, classes=classes))
            b = self._allocate(rows, keep)
            b.run = self._context.record(lambda: self._chain(b))
            self._buffers[rows, keep] = b
        return self._buffers[rows, keep]

    def _allocate(self, rows: int, keep: bool) -> _Buffers:
        c, f, device, t = self._network.num_classes, self._network.feature_dim, self._context.device, self._tables
        tiles = self._variant(rows).partial_tiles(f)

        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return _Buffers(
            noise=zeros(1 if self._v2 else self._steps, rows, c),
            start=zeros(rows, c),
            states=zeros(self._steps + 1 if keep else 2, rows, c),
            prior=zeros(rows, c),
            feature=zeros(rows, f, dtype=torch.float32),
            constant=zeros(rows, f, dtype=torch.float32),
            entry=zeros(rows, dtype=torch.int32),
            timestep=torch.arange(self._steps, dtype=torch.int32, device=device)[:, None].expand(-1, rows),
            u1=zeros(rows, f, dtype=t.activations),
            u2=zeros(rows, f, dtype=t.activations),
            partial=zeros(rows, tiles, c, dtype=torch.float32),
        )

    def _fill(self, b: _Buffers, noise: np.ndarray, prior: torch.Tensor, feature: torch.Tensor, entry: np.ndarray) -> None:
        """Copy one call's inputs into the static buffers."""
        upload, count = self._context.upload, len(prior)
        upload(b.noise[: len(noise), : len(entry)], torch.from_numpy(np.ascontiguousarray(noise)))
        upload(b.prior[:count], prior)
        upload(b.feature[:count], feature)
        upload(b.entry[: len(entry)], torch.from_numpy(entry))

    def _prepare(self, b: _Buffers) -> None:
        """The start state, and W1_p p of each entry: summed class by class in float64, as on the host, whatever the other entries."""
        total = b.prior[:, :1] * self._tables.weight_p[0]
        for c in range(1, self._network.num_classes):
            total = total + b.prior[:, c : c + 1] * self._tables.weight_p[c]
        b.constant.copy_(total)
        from_zero = self._v2 or self._network.noise_prior
        torch.add(b.noise[0], 0.0 if from_zero else b.prior[b.entry], out=b.start)
        b.states[0].copy_(b.start)

    def _chain(self, b: _Buffers) -> None:
        """The whole chain, launch by launch; this is what a graph records."""
        self._prepare(b)
        update, first = self._update(b), self._first_layer(b)
        step_kernel.start(b.states[0], t_next=b.timestep[self._order[0]], image=b.entry, first=first)
        for i, t in enumerate(self._order):
            self._layers(b, t)
            before, after = b.states[i % len(b.states)], b.states[(i + 1) % len(b.states)]
            if i + 1 == self._steps:
                step_kernel.last(before, t=b.timestep[t], image=b.entry, update=update, y_out=after)
                break
            rows, t_next = b.timestep[t], b.timestep[self._order[i + 1]]
            z = None if self._v2 else b.noise[i + 1]
            step_kernel.middle(before, t=rows, t_next=t_next, image=b.entry, update=update, first=first, y_out=after, z=z)

    def _layers(self, b: _Buffers, t: int) -> None:
        """Layers 2 and 3 at row ``t`` of the tables, from layer 1's output to layer 4's partial sums."""
        w, variant, rows = self._tables, self._variant(len(b.entry)), b.timestep[t]
        conditional_layer(b.u1, w.weight2, w.scale2, w.shift2, rows, out=b.u2, variant=variant)
        projected_layer(b.u2, w.weight3, w.scale3, w.shift3, rows, w.weight4, partial=b.partial, variant=variant)

    def _update(self, b: _Buffers) -> step_kernel.Update:
        mean = None if self._v2 or self._network.noise_prior else b.prior
        return step_kernel.Update(self._family, self._coefficients, self._tables.bias4, b.partial, mean)

    def _first_layer(self, b: _Buffers) -> step_kernel.FirstLayer:
        w = self._tables
        return step_kernel.FirstLayer(w.weight_y, w.scale1, w.shift1, b.constant, b.feature, b.u1)
