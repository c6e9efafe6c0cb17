"""How a chain is to be run: decided once, by cost or by wish, and never visible in a result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """rows: of the denoiser in a sweep, over all chains together; 1 is the sequential chain.  variant: of ``guess.GUESSES``.

    least_gain: steps a sweep and chain below which, over eight sweeps, the rest is finished one step at a time; 0: never.
    """

    rows: int = 1
    variant: str = "picard"
    least_gain: float = 0.0

    @property
    def sequential(self) -> bool:
        return self.rows <= 1

    def __str__(self) -> str:
        return "sequential" if self.sequential else f"parallel, {self.rows} rows a sweep"


SEQUENTIAL = Plan()
