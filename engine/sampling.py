"""How a request is sampled: one place that knows the settings and refuses impossible ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from fusedx.engine.errors import ConfigError, require_int
from fusedx.engine.limits import MAX_DRAWS, MAX_SAMPLER_ROWS, MAX_SEED, SAMPLER_KINDS, STARTS, VARIANTS


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
        if self.kind not in SAMPLER_KINDS:
            raise ConfigError(f"sampler must be one of {', '.join(SAMPLER_KINDS)}, or a fusedx.Sampler; got {self.kind!r:.100}")
        if self.rows is not None:
            require_int("sampler rows", self.rows, 1, MAX_SAMPLER_ROWS)
        if self.variant is not None and self.variant not in VARIANTS:
            raise ConfigError(f"sampler variant must be one of {', '.join(VARIANTS)}; got {self.variant!r:.100}")

    @staticmethod
    def of(value: Sampler | str) -> Sampler:
        """A sampler, or its kind by name."""
        return value if isinstance(value, Sampler) else Sampler(value)


SEQUENTIALLY = Sampler("sequential")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings of one request.

    draws: independent chains an image.  seed: of the noise.  start: published, y = p + z; matched, p + s z with the s of the first step;
    mean, p itself (DiffMIC alone).
    """

    draws: int = 1
    seed: int = 0
    start: str = "published"
    sampler: Sampler = field(default_factory=Sampler)

    def __post_init__(self) -> None:
        require_int("draws", self.draws, 1, MAX_DRAWS)
        require_int("seed", self.seed, 0, MAX_SEED)
        if self.start not in STARTS:
            raise ConfigError(f"start must be one of {', '.join(STARTS)}; got {self.start!r:.100}")
