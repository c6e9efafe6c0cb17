"""The compiled chain: the whole loop in C++, in any weight format, every row of a step sharing each read of the weights.

Lanes run over outputs and each row keeps its own accumulators, so a row's bits do not depend on the rows beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedx.engine.backends import Condition, constant_half
from fusedx.engine.chain_runner import Encoded, HostChains
from fusedx.engine.denoiser import StoredDenoiser
from fusedx.engine.errors import ConfigError, UnavailableError
from fusedx.engine.memory import release_pages
from fusedx.engine.sampler import SEQUENTIAL, Chains, Plan, Work
from fusedx.engine.schedule import Schedule
from fusedx.kernels import native_module


def why_not() -> str | None:
    """None when the native module is built and loads here; otherwise the reason."""
    if native_module.native is not None:
        return None
    return f"the native module is not built or does not load ({native_module.reason})"


def check_settings() -> None:
    """Refuse an impossible FUSEDX_ISA or FUSEDX_THREADS now, not in the middle of the first prediction."""
    module = native_module.require("the native backend")
    try:
        module.isa()
        module.threads()
    except ValueError as error:
        raise ConfigError(str(error)) from None


class NativeChains:
    """See :class:`fusedx.engine.chain_runner.ChainRunner`.  Safe to call from several threads; Ctrl-C ends a run between two steps."""

    name = "native"

    def __init__(self, stored: StoredDenoiser, schedule: Schedule | None = None) -> None:
        """``stored`` may be memory-mapped: what is packed is copied, and its pages are given back; the tables stay mapped.

        schedule: of the chain, for what the C++ loop leaves to ``engine/sampler``: Newton's variants, certificates, solvers.
        """
        check_settings()
        self.precision = stored.precision
        self._v2 = stored.network.family == "diffmic-v2"
        family = "ddim" if self._v2 else "posterior"
        module = native_module.require("the native backend")

        def copied() -> None:
            for array in stored.arrays.values():
                release_pages(array)

        try:
            self._chain = module.Chain(stored.arrays, stored.precision, family, stored.network.noise_prior, copied=copied)
        except ValueError as error:
            raise UnavailableError(f"backend native cannot run a denoiser in {stored.precision}: {error}") from error
        self.denoiser = NativeDenoiser(self._chain, stored.arrays["weight_p"])
        self._host = None
        if schedule is not None:
            self._host = HostChains(stored.network, schedule, self.denoiser, stored.precision, stored.coefficients)

    @property
    def weight_bytes(self) -> int:
        """Memory of the packed weights."""
        return int(self._chain.weight_bytes)

    def run(self, encoded: Encoded, noise: np.ndarray, *, keep: bool, plan: Plan = SEQUENTIAL) -> Chains:
        """See :class:`fusedx.engine.chain_runner.ChainRunner`."""
        if not plan.sequential and plan.variant != "picard":
            return self._readable().run(encoded, noise, keep=keep, plan=plan)
        rows = 0 if plan.sequential else plan.rows
        noise = np.ascontiguousarray(noise, np.float64)
        scores, states, *counts = self._chain.run(self._inputs(encoded), noise, keep, rows, plan.least_gain)
        return Chains(scores, states, Work(*(count.astype(np.int64) for count in counts)))

    def residual(self, encoded: Encoded, noise: np.ndarray, states: np.ndarray) -> np.ndarray:
        """See :class:`fusedx.engine.chain_runner.Certified`."""
        return self._readable().residual(encoded, noise, states)

    def solve(self, encoded: Encoded, noise: np.ndarray, solver: str, steps: int, *, keep: bool) -> Chains:
        """See :class:`fusedx.engine.chain_runner.Solving`."""
        return self._readable().solve(encoded, noise, solver, steps, keep=keep)

    def workspace_bytes(self, images: int, draws: int, plan: Plan = SEQUENTIAL) -> int:
        """What a run takes beside its arguments and results, about."""
        return int(self._chain.workspace_bytes(images, draws, 0 if plan.sequential else plan.rows))

    def eps(self, encoded: Encoded, y: np.ndarray, step: int) -> np.ndarray:
        """See :class:`fusedx.engine.chain_runner.ChainRunner`."""
        return self._chain.eps(self._inputs(encoded), np.ascontiguousarray(y, np.float64), step)

    def _readable(self) -> HostChains:
        """The samplers of ``engine/sampler`` on the compiled denoiser."""
        if self._host is None:
            raise ConfigError("this needs the chain's schedule: open the runner by fusedx.engine.backends.open_chains")
        return self._host

    def _inputs(self, encoded: Encoded) -> dict[str, np.ndarray]:
        """The encoder's float32 outputs in the dtypes of the chain: its state is float64, its features are float32."""
        states, feature = (("y_global", "y_local"), "fused_feature") if self._v2 else (("prior",), "feature")
        inputs = {name: np.ascontiguousarray(encoded[name], np.float64) for name in states}
        return inputs | {feature: np.ascontiguousarray(encoded[feature], np.float32)}


class NativeDenoiser:
    """The denoiser alone, by rows of any step and entry; see :class:`fusedx.engine.backends.Denoiser`."""

    name = "native"

    def __init__(self, chain: Any, weight_p: np.ndarray) -> None:
        """chain: ``_native.Chain``; weight_p float32 [F,C]: the prior's half of layer 1."""
        self._chain, self._weight_p = chain, weight_p

    def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
        """See :class:`fusedx.engine.backends.Denoiser`."""
        return Condition(constant_half(self._weight_p, prior, np.dtype(np.float32)), np.ascontiguousarray(feature, np.float32))

    def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        """See :class:`fusedx.engine.backends.Denoiser`."""
        return self._chain.denoise(condition.constant, condition.feature, np.ascontiguousarray(y, np.float64), step, entry)

    def eps_and_jacobian(
        self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`fusedx.engine.backends.Differentiable`: one pass over the weights for a row and its C directions."""
        y = np.ascontiguousarray(y, np.float64)
        return self._chain.denoise(condition.constant, condition.feature, y, step, entry, jacobian=True)
