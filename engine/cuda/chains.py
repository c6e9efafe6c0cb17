"""The chains of a batch on a GPU: rows cut into pieces, padded to buckets, and run step by step or many steps at a time.

A row is one draw of one image (DiffMIC-v2: at one of six map points) and an entry is what its chain is conditioned on.  Rows are
padded to a bucket; the padding repeats entry 0 and is never read.
"""

from __future__ import annotations

import logging

import numpy as np
import torch

from fusedx.engine import sampler
from fusedx.engine.chain_runner import Encoded, entries
from fusedx.engine.cuda import parallel
from fusedx.engine.cuda.buckets import ROW_BUCKETS, bucket, pieces
from fusedx.engine.cuda.context import Context
from fusedx.engine.cuda.denoiser import Chains, DeviceDenoiser
from fusedx.engine.cuda.encoding import DeviceEncoding
from fusedx.engine.cuda.parallel import ParallelChain
from fusedx.engine.cuda.sequential import SequentialChain
from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.manifest import MAP_POINTS, Network
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
        self._ready_chains: dict[tuple[str, int, bool], SequentialChain | ParallelChain] = {}

    def run(self, encoded: Encoded, noise: np.ndarray, *, keep: bool, kind: str = "sequential") -> sampler.Chains:
        """See :class:`fusedx.engine.chain_runner.ChainRunner`."""
        with self._context.working():
            prior, feature = self._entries(encoded)
            z = sampler.dense_points(noise[0], noise[1])[None] if self._v2 else noise
            rows = z.reshape(len(z), -1, z.shape[-1])
            # Rows repeat the entries in their order, once a draw.
            done = [self._piece(rows, prior, feature, piece, keep, kind) for piece in pieces(rows.shape[1], self._most_rows(keep, kind))]
        kept = np.concatenate([states for states, _ in done], axis=1).reshape(-1, *z.shape[1:])
        sweeps, evaluated = (sum(effort[i] for _, effort in done) for i in (0, 1))
        return sampler.Chains(scores=sampler.map_mean(kept[-1]) if self._v2 else kept[-1], states=kept)  # sweeps, evaluated

    def eps(self, encoded: Encoded, y: np.ndarray, step: int) -> np.ndarray:
        """See :class:`fusedx.engine.chain_runner.ChainRunner`."""
        rows = y.reshape(-1, y.shape[-1])
        with self._context.working():
            prior, feature = self._entries(encoded)
            x = self._denoiser.chains(len(rows))
            self._fill(x, rows[None], prior, feature, np.arange(len(rows), dtype=np.int32))
            return self._denoiser.eps(x, x.noise[0], step).cpu().numpy().reshape(y.shape)

    def warm_up(self, rows: int, kind: str = "sequential") -> None:
        """Allocate, compile and capture what so many rows will run."""
        with self._context.working():
            for piece in pieces(rows, self._most_rows(keep=False, kind=kind)):
                self._ready(kind, bucket(piece.stop - piece.start, ROW_BUCKETS), keep=False)

    def captured(self) -> list[int]:
        """Rows of the buckets that are ready."""
        return sorted({rows for _, rows, keep in self._ready_chains if not keep})

    def _most_rows(self, keep: bool, kind: str) -> int:
        arrays = 4 if kind == "parallel" else 2 if keep else 1  # of the size of the noise
        bytes_per_row = 8 * self._denoiser.classes * self._denoiser.steps * arrays
        most = parallel.MOST_CHAINS if kind == "parallel" else ROW_BUCKETS[-1]
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
        dense = self._near * points[0] + self._far * points[1]  # [B,6,C]; sampler.dense_points, operation by operation
        return dense.flatten(0, 1), encoded.on_device("fused_feature").repeat_interleave(MAP_POINTS, dim=0)

    def _piece(
        self, rows: np.ndarray, prior: torch.Tensor, feature: torch.Tensor, piece: slice, keep: bool, kind: str
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """Some of the rows' noise [T or 1,R,C] -> [S,R,C], the start and, if kept, every later state, otherwise the last; and the effort."""
        size = piece.stop - piece.start
        used, entry = np.unique(np.arange(piece.start, piece.stop) % len(prior), return_inverse=True)
        if len(used) < len(prior):
            prior, feature = (x[torch.from_numpy(used).to(x.device)] for x in (prior, feature))
        chain = self._ready(kind, bucket(size, ROW_BUCKETS), keep)
        self._fill(chain.inputs, rows[:, piece], prior, feature, entry.astype(np.int32))
        chain.run(size)
        return chain.states(size).cpu().numpy(), chain.effort(size)

    def _ready(self, kind: str, rows: int, keep: bool) -> SequentialChain | ParallelChain:
        key = kind, rows, keep
        if key not in self._ready_chains:
            make = ParallelChain if kind == "parallel" else SequentialChain
            chain = make(self._denoiser, rows, keep=keep)
            log.info("%s", chain.describe())
            self._ready_chains[key] = chain
        return self._ready_chains[key]

    def _fill(self, x: Chains, noise: np.ndarray, prior: torch.Tensor, feature: torch.Tensor, entry: np.ndarray) -> None:
        """Copy one call's inputs into static memory."""
        upload, count = self._context.upload, len(prior)
        upload(x.noise[: len(noise), : len(entry)], torch.from_numpy(np.ascontiguousarray(noise)))
        upload(x.prior[:count], prior)
        upload(x.feature[:count], feature)
        upload(x.entry[: len(entry)], torch.from_numpy(entry))
