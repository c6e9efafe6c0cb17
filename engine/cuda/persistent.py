"""The whole chain in one launch of the persistent kernel, up to eight rows at once: for few images, where weights are the limit.

No framework: memory comes from a :class:`DeviceMemory`, launches go through the driver.  A row's bits depend neither on the rows
beside it nor on their number, so a batch is cut into launches wherever it is convenient.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from fusedx.engine.backends import constant_half
from fusedx.engine.chain_runner import Encoded, priors
from fusedx.engine.cuda import driver
from fusedx.engine.cuda.buckets import pieces
from fusedx.engine.cuda.chain_kernel import ChainKernel, Conditions, DeviceRows
from fusedx.engine.cuda.device import GPU
from fusedx.engine.cuda.memory import DeviceMemory
from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.errors import UnavailableError
from fusedx.engine.manifest import MAP_POINTS, Network
from fusedx.engine.sampler import SEQUENTIAL, Chains, Plan, dense_points, map_mean
from fusedx.engine.schedule import Schedule, chain_program

log = logging.getLogger("fusedx")

#: A DDIM step whose result is eps itself: 0 * clamp((y - 0 eps) / 1) + 1 * eps.
_EPS_STEP = (1.0, 0.0, 0.0, 1.0)


class PersistentChains:
    """See :class:`fusedx.engine.chain_runner.ChainRunner`.  Safe to call from several threads: they take turns on the memory.

    ``encoded`` may keep its feature on the device: see ``_feature_rows``.
    """

    name = "persistent"

    def __init__(
        self,
        network: Network,
        schedule: Schedule,
        tables: DenoiserTables,
        gpu: GPU,
        memory: DeviceMemory,
        precision: str,
        *,
        watchdog_s: float = 2.0,
    ) -> None:
        """watchdog_s: how long a block may wait for the others before the chain is given up.

        Raises ValueError for a network or format that the kernel does not run, UnavailableError for a GPU that cannot, DeviceError.
        """
        reason = why_not(gpu)
        if reason is not None:
            raise UnavailableError(reason)
        self.precision = precision
        self._memory, self._steps = memory, schedule.steps
        self._v2, self._noise_prior = network.family == "diffmic-v2", network.noise_prior
        self._weight_p = tables.weight_p
        with memory.exclusive():
            self._kernel = ChainKernel(tables, gpu, memory, precision, schedule.steps, watchdog_s)
            chain = chain_program(schedule, v2=self._v2)
            self._chain = self._kernel.program(chain.family, chain.order, chain.coefficients)
            self._eps = self._kernel.program("ddim", np.zeros(1), np.tile(_EPS_STEP, (schedule.steps, 1)))
            memory.synchronize()
        log.info("%s", self._kernel.describe())

    def run(self, encoded: Encoded, noise: np.ndarray, *, keep: bool, plan: Plan = SEQUENTIAL) -> Chains:
        """See :class:`ChainRunner`."""
        with self._memory.exclusive():
            prior, mean, start = self._start(encoded, noise)  # start [D,B,C] or [D,B,6,C]
            conditions = self._conditions(encoded, prior, mean)
            draws, classes = start.shape[0], start.shape[-1]
            # Rows in order of their condition, so that a launch has few of them: [D, M, C] -> [M D, C].
            rows = start.reshape(draws, -1, classes).swapaxes(0, 1).reshape(-1, classes)
            entry = np.repeat(np.arange(len(rows) // draws), draws)
            z = None if self._v2 else noise.swapaxes(1, 2).reshape(self._steps, -1, classes)
            states = self._rows(rows, z, conditions, entry, keep=keep)
        kept = states.reshape(len(states), -1, draws, classes).swapaxes(1, 2).reshape(len(states), *start.shape)
        return Chains(scores=map_mean(kept[-1]) if self._v2 else kept[-1], states=kept)

    def eps(self, encoded: Encoded, y: np.ndarray, step: int) -> np.ndarray:
        """See :class:`ChainRunner`.  A chain of one step, whose update returns eps."""
        rows = y.reshape(-1, y.shape[-1])
        with self._memory.exclusive():
            prior = priors(encoded, v2=self._v2)
            conditions = self._conditions(encoded, prior, None)
            self._memory.write(self._eps.table_row, np.array([step], np.int32))
            pieces_of_eps = []
            for piece in pieces(len(rows), self._kernel.rows):
                self._kernel.run(self._eps, rows[piece], None, conditions, np.arange(len(rows))[piece])
                pieces_of_eps.append(self._kernel.states(len(rows[piece]), 1, keep=False)[0])
        return np.concatenate(pieces_of_eps).reshape(y.shape)

    def warm_up(self, rows: int, plan: Plan = SEQUENTIAL) -> None:
        """Nothing is compiled or captured for a number of rows: one kernel serves all."""

    def captured(self) -> list[int]:
        """Rows of the launches that are ready: all."""
        return list(range(1, self._kernel.rows + 1))

    def _rows(
        self, rows: np.ndarray, noise: np.ndarray | None, conditions: Conditions, entry: np.ndarray, *, keep: bool
    ) -> np.ndarray:
        """rows [R,C], noise [T,R,C], entry [R] -> states [S,R,C]: all of them, or the start and the end."""
        ends = []
        for piece in pieces(len(rows), self._kernel.rows):
            z = None if noise is None else noise[:, piece]
            self._kernel.run(self._chain, rows[piece], z, conditions, entry[piece])
            ends.append(self._kernel.states(len(rows[piece]), self._steps, keep=keep))
        states = np.concatenate(ends, axis=1)
        return states if keep else np.concatenate([rows[None], states])

    def _start(self, encoded: Encoded, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """(prior [M,C], mean of the posterior [M,C] or None for zero, start [D,B,C] or [D,B,6,C])."""
        prior = priors(encoded, v2=self._v2)
        if self._v2:
            return prior, None, dense_points(noise[0], noise[1])
        mean = None if self._noise_prior else prior
        return prior, mean, noise[0] if mean is None else mean + noise[0]

    def _conditions(self, encoded: Encoded, prior: np.ndarray, mean: np.ndarray | None) -> Conditions:
        constant = constant_half(self._weight_p, prior, np.dtype(np.float32))
        feature = _feature_rows(encoded, "fused_feature" if self._v2 else "feature")
        return Conditions(constant, mean, feature, MAP_POINTS if self._v2 else 1)


def why_not(gpu: GPU) -> str | None:
    """None where the persistent kernel can run on this GPU; otherwise the reason."""
    if driver.attribute(gpu.index, "COOPERATIVE_LAUNCH"):
        return None
    return f"{gpu} does not offer cooperative launches, which the persistent chain needs; use the layer-by-layer kernels (triton)"


def _feature_rows(encoded: Encoded, name: str) -> np.ndarray | DeviceRows:
    """The feature where it is: outputs with ``on_device(name)`` give an object with ``__cuda_array_interface__``, float32 [B,F]."""
    on_device = getattr(encoded, "on_device", None)
    if on_device is None:
        return np.ascontiguousarray(encoded[name], np.float32)
    facts: dict[str, Any] = on_device(name).__cuda_array_interface__
    _, width = facts["shape"]
    stride, step = facts.get("strides") or (width * 4, 4)
    if facts["typestr"] != "<f4" or step != 4:
        raise TypeError(f"{name} on the device must be float32 rows, got {facts}")
    return DeviceRows(facts["data"][0], stride)
