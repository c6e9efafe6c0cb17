"""The chains of a batch on a GPU: rows cut into pieces, padded to buckets, and run step by step or many steps at a time.

A row is one draw of one image (DiffMIC-v2: at one of six map points) and an entry is what its chain is conditioned on.  Rows are
padded to a bucket; the padding repeats entry 0 and is never read.
"""

from __future__ import annotations

import logging

import numpy as np
import torch

from fusedx.engine.chain_runner import Encoded, entries
from fusedx.engine.cuda import parallel
from fusedx.engine.cuda.buckets import ROW_BUCKETS, bucket, pieces
from fusedx.engine.cuda.context import Context
from fusedx.engine.cuda.denoiser import DeviceDenoiser, Inputs
from fusedx.engine.cuda.encoding import DeviceEncoding
from fusedx.engine.cuda.parallel import ParallelChain
from fusedx.engine.cuda.sequential import SequentialChain
from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.manifest import MAP_POINTS, Network
from fusedx.engine.sampler import SEQUENTIAL, Chains, Plan, Work, dense_points, map_mean
from fusedx.engine.schedule import Schedule

log = logging.getLogger("fusedx")

#: Bytes of noise and states that the memory of one bucket may hold; more rows than that run one piece after the other.
_STATE_BYTES = 256 << 20


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
        self._context = context
        self._v2 = network.family == "diffmic-v2"
        self._denoiser = DeviceDenoiser(network, schedule, tables, context, cc, precision, invariant=batch_invariant)
        distance = torch.arange(MAP_POINTS, dtype=torch.float32, device=context.device)[:, None] / float(MAP_POINTS - 1)
        self._near, self._far = (1 - distance).double(), distance.double()  # float32 values, as published
        self._made: dict[tuple[int, int, bool], SequentialChain | ParallelChain] = {}

    def run(self, encoded: Encoded, noise: np.ndarray, *, keep: bool, plan: Plan = SEQUENTIAL) -> Chains:
        """See :class:`fusedx.engine.chain_runner.ChainRunner`.  The plan's rows set the window; guesses are always Picard's."""
        with self._context.working():
            prior, feature = self._entries(encoded)
            z = self._starts(noise)
            rows = z.reshape(len(z), -1, z.shape[-1])
            # Rows repeat the entries in their order, once a draw.
            parts = [self._piece(rows, prior, feature, piece, keep, plan) for piece in pieces(rows.shape[1], self._most_rows(keep, plan))]
        kept = np.concatenate([states for states, _ in parts], axis=1).reshape(-1, *z.shape[1:])
        sweeps, evaluated, alone = np.concatenate([work for _, work in parts], axis=1).reshape(3, *noise.shape[1:3], -1)  # [D,B,points]
        work = Work(sweeps.max(-1), evaluated.sum(-1), alone.sum(-1))
        return Chains(map_mean(kept[-1]) if self._v2 else kept[-1], kept, work)

    def eps(self, encoded: Encoded, y: np.ndarray, step: int) -> np.ndarray:
        """See :class:`fusedx.engine.chain_runner.ChainRunner`."""
        rows, d = y.reshape(-1, y.shape[-1]), self._denoiser
        with self._context.working():
            x = self._inputs(encoded, rows[None])
            return d.eps(x, d.layers(len(rows)), x.noise[0], step, bits=0).cpu().numpy().reshape(y.shape)

    def residual(self, encoded: Encoded, noise: np.ndarray, states: np.ndarray) -> np.ndarray:
        """See :class:`fusedx.engine.chain_runner.Certified`."""
        z, d = self._starts(noise), self._denoiser
        with self._context.working():
            x = self._inputs(encoded, z.reshape(len(z), -1, z.shape[-1]))
            given = torch.from_numpy(states.reshape(len(states), -1, states.shape[-1])).to(self._context.device)
            memory, worst = d.layers(given.shape[1]), d.zeros(given.shape[1])
            for i in range(d.steps):
                torch.maximum(worst, (d.step(x, memory, given[i], i) - given[i + 1]).abs().amax(dim=1), out=worst)
            return worst.cpu().numpy().reshape(*noise.shape[1:3], -1).max(axis=-1)

    def warm_up(self, rows: int, plan: Plan = SEQUENTIAL) -> None:
        """Allocate, compile and capture what so many rows will run."""
        with self._context.working():
            for piece in pieces(rows, self._most_rows(False, plan)):
                self._ready(bucket(piece.stop - piece.start, ROW_BUCKETS), False, plan)

    def captured(self) -> list[int]:
        """Rows of the buckets that are ready."""
        return sorted({rows for rows, _, keep in self._made if not keep})

    def _starts(self, noise: np.ndarray) -> np.ndarray:
        """[T,D,B,C], or of DiffMIC-v2 [1,D,B,6,C]."""
        return dense_points(noise[0], noise[1])[None] if self._v2 else noise

    def _inputs(self, encoded: Encoded, rows: np.ndarray) -> Inputs:
        """Memory of its own for all of the rows' noise [T or 1,R,C], filled and prepared."""
        prior, feature = self._entries(encoded)
        x = self._denoiser.inputs(rows.shape[1])
        self._fill(x, rows, prior, feature, (np.arange(rows.shape[1]) % len(prior)).astype(np.int32))
        self._denoiser.prepare(x)
        return x

    def _most_rows(self, keep: bool, plan: Plan) -> int:
        arrays = (2 if keep else 1) if plan.sequential else 4  # of the size of the noise
        bytes_per_row = 8 * self._denoiser.classes * self._denoiser.steps * arrays
        most = ROW_BUCKETS[-1] if plan.sequential else parallel.MOST_CHAINS
        fitting = [rows for rows in ROW_BUCKETS if rows <= most and rows * bytes_per_row <= _STATE_BYTES]
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

    def _piece(
        self, rows: np.ndarray, prior: torch.Tensor, feature: torch.Tensor, piece: slice, keep: bool, plan: Plan
    ) -> tuple[np.ndarray, np.ndarray]:
        """Some of the rows' noise [T or 1,R,C] -> states [S,R,C], start and, if kept, all later ones, else the last; work [3,R]."""
        size = piece.stop - piece.start
        used, entry = np.unique(np.arange(piece.start, piece.stop) % len(prior), return_inverse=True)
        if len(used) < len(prior):
            prior, feature = (x[torch.from_numpy(used).to(x.device)] for x in (prior, feature))
        chain = self._ready(bucket(size, ROW_BUCKETS), keep, plan)
        self._fill(chain.inputs, rows[:, piece], prior, feature, entry.astype(np.int32))
        chain.run(size)
        return chain.states(size).cpu().numpy(), chain.work(size)

    def _ready(self, rows: int, keep: bool, plan: Plan) -> SequentialChain | ParallelChain:
        window = 1 if plan.sequential else parallel.window(rows, self._denoiser.steps, plan.rows)
        if (rows, window, keep) not in self._made:
            d = self._denoiser
            chain = SequentialChain(d, rows, keep=keep) if plan.sequential else ParallelChain(d, rows, window, keep=keep)
            log.info("%s", chain.describe())
            self._made[rows, window, keep] = chain
        return self._made[rows, window, keep]

    def _fill(self, x: Inputs, noise: np.ndarray, prior: torch.Tensor, feature: torch.Tensor, entry: np.ndarray) -> None:
        """Copy one call's inputs into static memory."""
        upload, count = self._context.upload, len(prior)
        upload(x.noise[: len(noise), : len(entry)], torch.from_numpy(np.ascontiguousarray(noise)))
        upload(x.prior[:count], prior)
        upload(x.feature[:count], feature)
        upload(x.entry[: len(entry)], torch.from_numpy(entry))
