"""What a chain's state is for each family, and what a run of chains gives back.

DiffMIC's state is the C numbers of an image.  DiffMIC-v2's is a 6x6 map of them whose prior and start depend on |i-j| alone, and every
layer is pointwise, so six points stand for thirty-six: each is a chain of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusedx.engine.manifest import MAP_POINTS

#: |i-j| takes six values on the 6x6 map; how many of the 36 points have each.
DISTANCE = np.abs(np.subtract.outer(np.arange(MAP_POINTS), np.arange(MAP_POINTS)))
POINT_COUNTS = np.bincount(DISTANCE.ravel())


@dataclass(frozen=True, slots=True)
class Work:
    """What D draws for each of B images took; int64 [D,B] each.

    sweeps: evaluations of the denoiser that had rows of this chain (v2: the most of its six).  rows: how many rows they were.
    sequential_steps: steps that were taken one at a time, all of them in a sequential run.
    """

    sweeps: np.ndarray
    rows: np.ndarray
    sequential_steps: np.ndarray


#: The fields of Work, in order.
WORK = ("sweeps", "rows", "sequential_steps")


@dataclass(frozen=True, slots=True)
class Chains:
    """Result of D draws for each of B images.

    scores float64 [D,B,C]: the final state (v2: its mean over the 36 map points).
    states float64 [S,D,B,C] (v1) or [S,D,B,6,C] (v2, by distance |i-j|): the start and, if kept, the state after every step;
    otherwise the start and the end alone.
    """

    scores: np.ndarray
    states: np.ndarray
    work: Work | None = None


def dense_points(at_zero: np.ndarray, at_one: np.ndarray) -> np.ndarray:
    """[...,C], [...,C] -> [...,6,C]: (1-d) a + d b for d = 0, 1/5 .. 1; d and 1-d are float32 values, as published."""
    d = (np.arange(MAP_POINTS, dtype=np.float32) / np.float32(MAP_POINTS - 1))[:, None]
    near, far = (np.float32(1) - d).astype(np.float64), d.astype(np.float64)
    return near * at_zero[..., None, :] + far * at_one[..., None, :]


def map_mean(points: np.ndarray) -> np.ndarray:
    """[...,6,C] -> [...,C]: mean over the 36 points of the map, summed in a fixed order."""
    total = np.zeros_like(points[..., 0, :])
    for distance, count in enumerate(POINT_COUNTS):
        total = total + count * points[..., distance, :]
    return total / POINT_COUNTS.sum()


def dense_map(points: np.ndarray) -> np.ndarray:
    """[...,6,C] -> the whole map [...,C,6,6]."""
    return np.moveaxis(points, -2, -1)[..., DISTANCE]
