"""Bounds of settings that several parts check, without imports so that the command line can use them too."""

MAX_SEED = (1 << 64) - 1
MAX_DRAWS = 1 << 16
#: As many draws as needed; the first look at them, and the cap where none is given.
AUTO_DRAWS = "auto"
FIRST_LOOK = 8
DEFAULT_MAX_DRAWS = 64
MAX_SAMPLER_ROWS = 1 << 14
MAX_SOLVER_STEPS = 100_000
SAMPLER_KINDS = ("auto", "sequential", "parallel")
VARIANTS = ("picard", "newton", "stale")
STARTS = ("published", "matched", "mean")
SOLVERS = ("published", "ddim", "dpmpp-2m", "unipc")
