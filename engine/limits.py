"""Bounds of settings that several parts check, without imports so that the command line can use them too."""

MAX_SEED = (1 << 64) - 1
MAX_DRAWS = 1 << 16
