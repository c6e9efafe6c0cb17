"""Bounds of settings that several parts check, without imports so that the command line can use them too."""

MAX_SEED = (1 << 64) - 1
MAX_DRAWS = 1 << 16
MAX_SAMPLER_ROWS = 1 << 14
SAMPLER_KINDS = ("auto", "sequential", "parallel")
VARIANTS = ("picard", "newton", "stale")
STARTS = ("published", "matched", "mean")
