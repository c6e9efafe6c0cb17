"""Composition of affine maps y -> A y + b of C numbers: many steps of a linear recurrence in a logarithm of them.

    (A2, b2) after (A1, b1) = (A2 A1, A2 b1 + b2)

Composition is associative, so all prefixes of W maps follow from ceil(log2 W) rounds in which every map is composed with the one that lies
1, 2, 4, ... before it (the doubling scan of Hillis and Steele, "Data parallel algorithms", 1986): W log W small products, each round at
once, in place of W steps that wait for each other.
"""

from __future__ import annotations

import numpy as np


def compose(a2: np.ndarray, b2: np.ndarray, a1: np.ndarray, b1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first map, then the second: a [...,C,C] and b [...,C] each."""
    return a2 @ a1, apply(a2, b2, b1)


def apply(a: np.ndarray, b: np.ndarray, y: np.ndarray) -> np.ndarray:
    """a [...,C,C], b [...,C], y [...,C] -> A y + b [...,C]."""
    return (a @ y[..., None])[..., 0] + b


def scan(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a [W,C,C], b [W,C] -> at place w the maps 0, 1, ... w one after the other, as one map."""
    distance = 1
    while distance < len(a):
        later_a, later_b = compose(a[distance:], b[distance:], a[:-distance], b[:-distance])
        a, b = np.concatenate([a[:distance], later_a]), np.concatenate([b[:distance], later_b])
        distance *= 2
    return a, b
