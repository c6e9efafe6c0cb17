"""Who runs the chain of diffusion steps: one interface, so that the engine does not know on which device it happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from fusedx.engine import sampler
from fusedx.engine.backends import Denoiser
from fusedx.engine.manifest import MAP_POINTS, Network
from fusedx.engine.schedule import DDIMCoefficients, PosteriorCoefficients, Schedule, chain_program, ddim_coefficients

#: The encoder's outputs by name.  A runner on a device may be given ones that have never left it.
Encoded = Mapping[str, np.ndarray]


class ChainRunner(Protocol):
    """The encoder's outputs and noise in, final states out.

    ``name`` and ``precision`` (of the weights) are what a prediction's provenance reports.
    """

    name: str
    precision: str

    def run(self, encoded: Encoded, noise: np.ndarray, *, keep: bool) -> sampler.Chains:
        """noise float64 [T,D,B,C] (v1) or [2,D,B,C] = (u_global, u_local) (v2); ``keep`` every state of the chain."""

    def eps(self, encoded: Encoded, y: np.ndarray, step: int) -> np.ndarray:
        """The denoiser alone at row ``step`` of the timestep tables; y float64 [B,C] (v1) or [B,6,C] (v2) -> the same shape."""


class HostChains:
    """The sampler's loops on a :class:`Denoiser`: the chain as it is written for reading; safe to call from several threads."""

    def __init__(
        self, network: Network, schedule: Schedule, denoiser: Denoiser, precision: str = "fp32", coefficients: np.ndarray | None = None
    ) -> None:
        """coefficients float64 [T, columns] of a compiled model, ordered as by ``chain_program``; None derives them from the schedule."""
        self.name = denoiser.name
        self.precision = precision
        self.denoiser = denoiser
        self._noise_prior = network.noise_prior
        v2 = network.family == "diffmic-v2"
        columns = (chain_program(schedule, v2=v2).coefficients if coefficients is None else coefficients).T
        self._ddim = DDIMCoefficients(ddim_coefficients(schedule).timesteps, *columns) if v2 else None
        self._posterior = None if v2 else PosteriorCoefficients(*columns)

    def run(self, encoded: Encoded, noise: np.ndarray, *, keep: bool) -> sampler.Chains:
        """See :class:`ChainRunner`."""
        if self._ddim is not None:
            return sampler.ddim_chain(self.denoiser, self._ddim, *logits(encoded), encoded["fused_feature"], noise, keep=keep)
        assert self._posterior is not None
        prior = encoded["prior"].astype(np.float64)
        return sampler.posterior_chain(
            self.denoiser, self._posterior, prior, encoded["feature"], noise, noise_prior=self._noise_prior, keep=keep
        )

    def eps(self, encoded: Encoded, y: np.ndarray, step: int) -> np.ndarray:
        """See :class:`ChainRunner`."""
        prior, feature = entries(encoded, v2=self._ddim is not None)
        condition = self.denoiser.condition(prior, feature)
        rows = y.reshape(-1, y.shape[-1])
        entry = np.arange(len(rows), dtype=np.int32)
        return self.denoiser.eps(rows, np.full(len(rows), step, np.int32), condition, entry).reshape(y.shape)


def logits(encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """(y_global, y_local), float64 [B,C] each: the two ends of DiffMIC-v2's prior map."""
    return encoded["y_global"].astype(np.float64), encoded["y_local"].astype(np.float64)


def entries(encoded: Encoded, *, v2: bool) -> tuple[np.ndarray, np.ndarray]:
    """(prior float64 [M,C], feature [M,F]): one entry an image, for v2 one an (image, map point)."""
    feature = np.repeat(encoded["fused_feature"], MAP_POINTS, axis=0) if v2 else encoded["feature"]
    return priors(encoded, v2=v2), feature


def priors(encoded: Encoded, *, v2: bool) -> np.ndarray:
    """float64 [M,C]: the prior of each entry."""
    if not v2:
        return encoded["prior"].astype(np.float64)
    dense = sampler.dense_points(*logits(encoded))
    return dense.reshape(-1, dense.shape[-1])
