"""How a request is sampled: one place that knows the settings and refuses impossible ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from fusedx.engine.errors import ConfigError, require_int
from fusedx.engine.limits import (
    AUTO_DRAWS,
    DEFAULT_MAX_DRAWS,
    FIRST_LOOK,
    MAX_DRAWS,
    MAX_SAMPLER_ROWS,
    MAX_SEED,
    MAX_SOLVER_STEPS,
    SAMPLER_KINDS,
    SOLVERS,
    STARTS,
    VARIANTS,
)


def _among(value: object, names: tuple[str, ...]) -> bool:
    """Whether ``value`` is one of the names; an array, which compares element by element, is none."""
    return isinstance(value, str) and value in names


@dataclass(frozen=True, slots=True)
class Sampler:
    """How a chain is run.  None of this changes a bit of a result.

    kind: sequential, one step after the other; parallel, many steps of a chain in one evaluation of the denoiser, by speculation;
    auto, whichever is expected to be faster here.
    rows: of the denoiser in one evaluation, over all chains (None: chosen by cost).
    variant: how answers are guessed, picard, newton or stale (None: chosen by cost).
    """

    kind: str = "auto"
    rows: int | None = None
    variant: str | None = None

    def __post_init__(self) -> None:
        if not _among(self.kind, SAMPLER_KINDS):
            raise ConfigError(f"sampler must be one of {', '.join(SAMPLER_KINDS)}, or a fusedx.Sampler; got {self.kind!r:.100}")
        if self.rows is not None:
            object.__setattr__(self, "rows", require_int("sampler rows", self.rows, 1, MAX_SAMPLER_ROWS))
        if self.variant is not None and not _among(self.variant, VARIANTS):
            raise ConfigError(f"sampler variant must be one of {', '.join(VARIANTS)}; got {self.variant!r:.100}")
        if self.kind == "sequential" and not (self.rows is None and self.variant is None):
            raise ConfigError("sampler rows and variant go with parallel and auto; a sequential chain has a row a step and no guesses")

    @staticmethod
    def of(value: Sampler | str) -> Sampler:
        """A sampler, or its kind by name."""
        return value if isinstance(value, Sampler) else Sampler(value)


SEQUENTIALLY = Sampler("sequential")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings of one request.

    draws: independent chains an image; "auto": as many as its label needs (engine/draws.py), at most ``max_draws`` (None: 64), which goes
    with "auto" alone.  seed: of the noise.  start: published, y = p + z; matched, p + s z with the s of the first step; mean, p itself
    (DiffMIC alone).
    solver: published, the chain as it is; ddim, dpmpp-2m or unipc, an approximation of it in ``solver_steps`` steps, which those need
    (DiffMIC-v2: ddim alone).  calibrated: probabilities are softmax(scores / temperature) with the model's own temperature, if it has one.
    """

    draws: int | str = 1
    seed: int = 0
    start: str = "published"
    sampler: Sampler = field(default_factory=Sampler)
    max_draws: int | None = None
    solver: str = "published"
    solver_steps: int | None = None
    calibrated: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.draws, str) and self.draws != AUTO_DRAWS:
            raise ConfigError(f"draws must be an integer from 1 to {MAX_DRAWS} or {AUTO_DRAWS!r}, got {self.draws!r:.100}")
        if not isinstance(self.draws, str):
            self._set("draws", require_int("draws", self.draws, 1, MAX_DRAWS))
        if self.max_draws is not None:
            if not self.auto_draws:
                raise ConfigError(f"max_draws goes with draws={AUTO_DRAWS!r} alone; the number of draws here is {self.draws}")
            self._set("max_draws", require_int("max_draws", self.max_draws, FIRST_LOOK, MAX_DRAWS))
        self._set("seed", require_int("seed", self.seed, 0, MAX_SEED))
        if not _among(self.start, STARTS):
            raise ConfigError(f"start must be one of {', '.join(STARTS)}; got {self.start!r:.100}")
        if not _among(self.solver, SOLVERS):
            raise ConfigError(f"solver must be one of {', '.join(SOLVERS)}; got {self.solver!r:.100}")
        if self.approximate and self.solver_steps is None:
            raise ConfigError(f"solver {self.solver} needs solver_steps: how many steps in place of the published chain's")
        if self.solver_steps is not None:
            self._set("solver_steps", require_int("solver_steps", self.solver_steps, 1, MAX_SOLVER_STEPS))
            if not self.approximate:
                raise ConfigError(f"solver_steps goes with a solver, {', '.join(SOLVERS[1:])}; the published chain's steps are the model's")
        if not isinstance(self.calibrated, bool):
            raise ConfigError(f"calibrated must be True or False, got {self.calibrated!r:.100}")

    @property
    def approximate(self) -> bool:
        """Whether results are not the published chain's."""
        return self.solver != "published"

    @property
    def auto_draws(self) -> bool:
        """Whether each image gets as many draws as it needs."""
        return isinstance(self.draws, str)

    @property
    def most_draws(self) -> int:
        """Draws that an image can get."""
        return self.draws if not isinstance(self.draws, str) else DEFAULT_MAX_DRAWS if self.max_draws is None else self.max_draws

    @property
    def draws_setting(self) -> str:
        """In words, the same for the same setting: what a table of results keeps of it."""
        return f"{AUTO_DRAWS}, at most {self.most_draws}" if self.auto_draws else str(self.draws)

    def _set(self, name: str, value: int) -> None:
        """numpy's integers become Python's."""
        object.__setattr__(self, name, value)
