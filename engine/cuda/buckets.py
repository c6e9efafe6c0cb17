"""Batch sizes that are captured: a graph has fixed shapes, so a batch runs in the smallest bucket that holds it, padded."""

from __future__ import annotations

from collections.abc import Iterator

#: Images that the encoder takes at once.
IMAGE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: Rows of the denoiser; (draw, image) pairs for DiffMIC, (draw, image, map point) triples for DiffMIC-v2.
ROW_BUCKETS = (*IMAGE_BUCKETS, 512, 1024, 2048, 4096)


def bucket(count: int, buckets: tuple[int, ...]) -> int:
    """The smallest bucket that holds ``count``.  Raises ValueError where none does."""
    for size in buckets:
        if 1 <= count <= size:
            return size
    raise ValueError(f"{count} fits no bucket; they hold 1 to {buckets[-1]}")


def pieces(count: int, largest: int) -> Iterator[slice]:
    """``count`` items as consecutive slices of at most ``largest``."""
    for first in range(0, count, largest):
        yield slice(first, min(first + largest, count))
