"""Preprocessing bit for bit against the golden pixels, and its arithmetic in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusedx.engine.errors import InputError
from fusedx.engine.preprocess import MEAN, STD, center_square, normalize, to_square_uint8
from fusedx.inputs import read

GOLDEN = Path(__file__).parents[1] / "golden" / "preprocess"
EXPECTED = np.load(GOLDEN / "expected_uint8.npz")


@pytest.mark.parametrize("name", EXPECTED.files)
def test_golden_pixels(name):
    path = next(p for p in GOLDEN.iterdir() if name in (p.name, p.stem))
    got, expected = to_square_uint8(read(path).pixels), EXPECTED[name]
    assert got.dtype == np.uint8
    where = np.argwhere(got != expected)
    assert where.size == 0, f"{len(where)} of {got.size} values differ, first at {where[0]}"


@pytest.mark.parametrize("size, corner", [(4, 0), (5, 0), (6, 1), (7, 2), (8, 2), (9, 2), (10, 3), (11, 4)])
def test_corner_rounds_half_to_even(size, corner):
    row = np.arange(size * 3, dtype=np.uint8).reshape(1, size, 3).repeat(4, 0)
    assert np.array_equal(center_square(row), row[:, corner : corner + 4])
    assert np.array_equal(center_square(row.swapaxes(0, 1)), row.swapaxes(0, 1)[corner : corner + 4])


def test_normalize_rounds_each_step_to_float32():
    pixels = np.stack([np.arange(256, dtype=np.uint8)] * 3, 1).reshape(16, 16, 3)
    scaled = pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    expected = (scaled - np.float32(MEAN)[:, None, None]) / np.float32(STD)[:, None, None]
    got = normalize(pixels)
    assert got.dtype == np.float32 and got.shape == (3, 16, 16) and got.flags.c_contiguous
    assert np.array_equal(got, expected)
    exact = (pixels.transpose(2, 0, 1) / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    assert np.abs(got - exact).max() < 5e-7


@pytest.mark.parametrize("call", [normalize, to_square_uint8])
def test_wrong_arrays_are_refused(call):
    for array, reason in [
        (np.zeros((4, 4), np.uint8), "bad_array"),
        (np.zeros((4, 4, 3), np.float32), "bad_array"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
    ]:
        with pytest.raises(InputError) as caught:
            call(array)
        assert caught.value.reason == reason


def test_the_published_constants():
    assert (MEAN, STD) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
