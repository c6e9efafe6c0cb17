"""The last layer: near exact sums, and the same bits at any number of rows."""

import math

import numpy as np
import pytest

from fusedx.kernels import projection


def problem(rows: int, outputs: int, inputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng([rows, outputs, inputs])
    u, weight = (rng.standard_normal(shape, np.float32) for shape in ((rows, inputs), (outputs, inputs)))
    return u, weight, rng.standard_normal(outputs)


@pytest.mark.parametrize("rows, outputs, inputs", [(1, 1, 1), (3, 4, 2), (8, 5, 31), (9, 7, 33), (17, 14, 257), (2, 15, 2163)])
def test_near_the_exact_sum(rows, outputs, inputs):
    u, weight, bias = problem(rows, outputs, inputs)
    out = projection.project(u, weight, bias)
    for r in range(rows):
        for c in range(outputs):
            products = [float(x) * float(y) for x, y in zip(u[r], weight[c], strict=True)]
            scale = math.fsum(map(abs, products)) + abs(bias[c])
            assert abs(out[r, c] - math.fsum([*products, bias[c]])) <= 1e-15 * scale * (inputs / 16 + 8)


@pytest.mark.parametrize("rows", [3, 63])
def test_a_row_has_the_same_bits_in_any_company(rows):
    u, weight, bias = problem(rows, 6, 999)
    together = projection.project(u, weight, bias)
    assert all(np.array_equal(projection.project(u[r : r + 1], weight, bias)[0], together[r]) for r in range(rows))


def test_bias_in_single_precision_and_strided_rows():
    u, weight, bias = problem(4, 3, 50)
    bias = bias.astype(np.float32)
    expected = projection.project(u, weight, bias)
    assert np.array_equal(projection.project(np.pad(u, ((0, 0), (0, 3)))[:, :50], np.asfortranarray(weight), bias), expected)
