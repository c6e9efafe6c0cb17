"""Composition of affine maps against the loop that it replaces."""

import numpy as np
import pytest

from fusedx.engine.sampler import affine


def loop(a: np.ndarray, b: np.ndarray, y: np.ndarray) -> np.ndarray:
    states = []
    for step_a, step_b in zip(a, b, strict=True):
        y = step_a @ y + step_b
        states.append(y)
    return np.array(states).reshape(b.shape)


@pytest.mark.parametrize("classes", [1, 2, 7, 15])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 250, 1000])
def test_scan_is_the_loop(steps: int, classes: int) -> None:
    rng = np.random.default_rng([steps, classes])
    a = rng.normal(size=(steps, classes, classes)) / classes**0.5 * 0.9
    b, y = rng.normal(size=(steps, classes)), rng.normal(size=classes)
    found_a, found_b = affine.scan(a, b)
    assert found_a.shape == a.shape and found_b.shape == b.shape
    np.testing.assert_allclose(affine.apply(found_a, found_b, y), loop(a, b, y), rtol=1e-11, atol=1e-11)


def test_scan_leaves_its_arguments_as_they_are() -> None:
    a, b = np.full((5, 2, 2), 0.5), np.ones((5, 2))
    affine.scan(a, b)
    assert (a == 0.5).all() and (b == 1).all()


def test_composition_is_associative_and_ordered() -> None:
    rng = np.random.default_rng(0)
    maps = [(rng.normal(size=(3, 3)), rng.normal(size=3)) for _ in range(3)]
    y = rng.normal(size=3)
    (a1, b1), (a2, b2), (a3, b3) = maps
    left = affine.compose(*affine.compose(a3, b3, a2, b2), a1, b1)
    right = affine.compose(a3, b3, *affine.compose(a2, b2, a1, b1))
    for a, b in (left, right):
        np.testing.assert_allclose(a @ y + b, a3 @ (a2 @ (a1 @ y + b1) + b2) + b3, rtol=1e-12)


def test_a_map_that_forgets_its_state_cuts_the_past_off() -> None:
    """A zero map in the middle, as the last step of a chain or a clamp makes one: nothing of an overflowing past may remain."""
    a, b = np.full((6, 1, 1), 2.0), np.ones((6, 1))
    a[3] = 0
    found_a, found_b = affine.scan(a, b)
    assert (found_a[3:] == 0).all() and found_b[3:, 0].tolist() == [1, 3, 7]
