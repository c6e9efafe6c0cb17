"""The compiled chain: the whole loop in C++, in any weight format, every row of a step sharing each read of the weights.

Lanes run over outputs and each row keeps its own accumulators, so a row's bits do not depend on the rows beside it.
"""

from __future__ import annotations

import numpy as np

from fusedx.engine.chain_runner import Encoded
from fusedx.engine.denoiser import StoredDenoiser
from fusedx.engine.errors import ConfigError, UnavailableError
from fusedx.engine.memory import release_pages
from fusedx.engine.sampler import SEQUENTIAL, Chains, Plan
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

    def __init__(self, stored: StoredDenoiser) -> None:
        """``stored`` may be memory-mapped: what is packed is copied, and its pages are given back; the tables stay mapped."""
        check_settings()
        self.precision = stored.precision
        self._v2 = stored.network.family == "diffmic-v2"
        family = "ddim" if self._v2 else "posterior"
        module = native_module.require("the native backend")
        try:
            self._chain = module.Chain(stored.arrays, stored.precision, family, stored.network.noise_prior)
        except ValueError as error:
            raise UnavailableError(f"backend native cannot run a denoiser in {stored.precision}: {error}") from error
        for array in stored.arrays.values():
            release_pages(array)

    @property
    def weight_bytes(self) -> int:
        """Memory of the packed weights."""
        return int(self._chain.weight_bytes)

    def run(self, encoded: Encoded, noise: np.ndarray, *, keep: bool, plan: Plan = SEQUENTIAL) -> Chains:
        """See :class:`fusedx.engine.chain_runner.ChainRunner`."""
        scores, states = self._chain.run(self._inputs(encoded), np.ascontiguousarray(noise, np.float64), keep)
        return Chains(scores=scores, states=states)

    def eps(self, encoded: Encoded, y: np.ndarray, step: int) -> np.ndarray:
        """See :class:`fusedx.engine.chain_runner.ChainRunner`."""
        return self._chain.eps(self._inputs(encoded), np.ascontiguousarray(y, np.float64), step)

    def _inputs(self, encoded: Encoded) -> dict[str, np.ndarray]:
        """The encoder's float32 outputs in the dtypes of the chain: its state is float64, its features are float32."""
        states, feature = (("y_global", "y_local"), "fused_feature") if self._v2 else (("prior",), "feature")
        inputs = {name: np.ascontiguousarray(encoded[name], np.float64) for name in states}
        return inputs | {feature: np.ascontiguousarray(encoded[feature], np.float32)}
