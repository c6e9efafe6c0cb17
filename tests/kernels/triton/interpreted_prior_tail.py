"""The prior tail's Triton kernel under the interpreter; run by test_interpreted.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fusedx.kernels.prior_tail import gather_tiles, region_scores, select_regions
from fusedx.kernels.prior_tail.triton import prior_tail

REGIONS = Path(__file__).parents[2] / "golden" / "regions.npz"


def run(saliency: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    batch, tile = len(saliency), image.shape[2] // 7
    cells = torch.full((batch, 6), -1, dtype=torch.int64)
    tiles = torch.full((batch, 6, tile, tile), float("nan"), dtype=torch.from_numpy(image).dtype)
    prior_tail(torch.from_numpy(saliency), torch.from_numpy(image), cells=cells, tiles=tiles)
    return cells.numpy(), tiles.numpy()


def picture(batch: int, tile: int = 4) -> np.ndarray:
    """Every pixel another number, so that a tile taken from elsewhere shows."""
    size = 7 * tile
    return np.arange(batch * 3 * size * size, dtype=np.float32).reshape(batch, 3, size, size)


def check(saliency: np.ndarray) -> np.ndarray:
    image = picture(len(saliency))
    with np.errstate(invalid="ignore"):
        expected = select_regions(region_scores(saliency))
    cells, tiles = run(saliency, image)
    assert np.array_equal(cells, expected)
    assert np.array_equal(tiles, gather_tiles(image, expected))
    return cells


@pytest.mark.parametrize("classes", [1, 7, 15])
def test_random_maps(classes):
    check(np.random.default_rng(classes).standard_normal((17, classes, 7, 7), np.float32))


def test_near_ties_are_decided_by_the_bits_of_the_scores():
    """Scores a unit in the last place apart, which a fused or reordered sum would swap."""
    rng = np.random.default_rng(1)
    check((rng.integers(0, 4, (17, 5, 7, 7)) / np.float32(3) + rng.choice([0, 1e-7], (17, 5, 7, 7))).astype(np.float32))


def test_ties_go_to_the_lowest_cell():
    saliency = np.zeros((1, 2, 7, 7), np.float32)
    saliency.reshape(2, 49)[:, [40, 3, 17, 48, 0, 9, 22]] = 1
    assert check(saliency).tolist() == [[0, 3, 9, 17, 22, 40]]


def test_fewer_than_six_positive_cells_are_filled_with_cell_0():
    saliency = np.zeros((1, 2, 7, 7), np.float32)
    saliency.reshape(2, 49)[:, [30, 5]] = [[1, 2], [1, 2]]
    assert check(saliency).tolist() == [[5, 30, 0, 0, 0, 0]]


def test_maps_without_range_count_as_zero():
    saliency = np.random.default_rng(2).standard_normal((2, 3, 7, 7), np.float32)
    saliency[0, 1] = 5
    saliency[1] = -3
    assert (check(saliency)[1] == 0).all()


def test_not_finite_maps():
    """A not-a-number spoils every score of its image, as in the reference, and of no other."""
    saliency = np.random.default_rng(3).standard_normal((4, 3, 7, 7), np.float32)
    saliency[0, 2, 6, 6] = np.nan
    saliency[1, 0, 2, 2] = np.inf
    saliency[2, 0, 2, 2] = -np.inf
    cells = check(saliency)
    assert (cells[0] == 0).all() and len(set(cells[3].tolist())) == 6


def test_saved_regions_of_the_original():
    saved = np.load(REGIONS)
    saliency = saved["saliency"].astype(np.float32)
    rows, columns = np.moveaxis(saved["cells"], -1, 0)
    assert np.array_equal(check(saliency), rows * 7 + columns)


def test_full_size_and_half_precision_images():
    saliency = np.random.default_rng(4).standard_normal((2, 7, 7, 7), np.float32)
    image = np.random.default_rng(5).standard_normal((2, 3, 224, 224)).astype(np.float16)
    cells, tiles = run(saliency, image)
    assert tiles.shape == (2, 6, 32, 32) and np.array_equal(tiles, gather_tiles(image, cells))


def test_arguments_that_do_not_fit_are_named():
    saliency, image = torch.zeros(2, 3, 7, 7), torch.zeros(2, 3, 28, 28)
    cells, tiles = torch.zeros(2, 6, dtype=torch.int64), torch.zeros(2, 6, 4, 4)
    wrong = [
        ("saliency: expected float32", (saliency.half(), image, cells, tiles)),
        ("saliency: expected float32", (torch.zeros(2, 3, 8, 7), image, cells, tiles)),
        ("image: expected sides of 7", (saliency, torch.zeros(2, 3, 35, 35), cells, tiles)),
        ("image: expected float32", (saliency, image[:1], cells, tiles)),
        ("cells: expected int64", (saliency, image, cells.int(), tiles)),
        ("tiles: expected float32", (saliency, image, cells, tiles.half())),
    ]
    for message, (s, i, c, t) in wrong:
        with pytest.raises(ValueError, match=message):
            prior_tail(s, i, cells=c, tiles=t)
