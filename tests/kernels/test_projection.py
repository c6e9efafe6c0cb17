"""The last layer: the reference's bits from every instruction set, at any number of rows, and near exact sums."""

import math

import numpy as np
import pytest

from fusedx.kernels import native_module, projection
from fusedx.kernels.projection import reference

native = pytest.mark.skipif(native_module.native is None, reason=f"fusedx._native is not built: {native_module.reason}")
ISAS = native_module.native.isas() if native_module.native else ()


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


@native
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [1, 3, 8, 9, 17, 63])
def test_native_has_the_bits_of_the_reference(isa, rows):
    for inputs in (1, 2, 15, 16, 17, 63, 255, 2163, 6144):
        u, weight, bias = problem(rows, 5, inputs)
        assert np.array_equal(projection.project(u, weight, bias, isa=isa), reference.project(u, weight, bias)), f"N {inputs}"


@pytest.mark.parametrize("rows", [3, 63])
def test_a_row_has_the_same_bits_in_any_company(rows):
    u, weight, bias = problem(rows, 6, 999)
    together = projection.project(u, weight, bias)
    assert all(np.array_equal(projection.project(u[r : r + 1], weight, bias)[0], together[r]) for r in range(rows))


def test_bias_in_single_precision_and_strided_rows():
    u, weight, bias = problem(4, 3, 50)
    bias = bias.astype(np.float32)
    expected = reference.project(u, weight, bias)
    assert np.array_equal(projection.project(np.pad(u, ((0, 0), (0, 3)))[:, :50], np.asfortranarray(weight), bias), expected)


def test_without_native_the_same_bits(monkeypatch):
    u, weight, bias = problem(4, 3, 50)
    expected = projection.project(u, weight, bias)
    monkeypatch.setattr(projection, "native", None)
    assert np.array_equal(projection.project(u, weight, bias), expected)


@pytest.mark.parametrize("name, index, wrong", [
    ("u", 0, np.zeros((2, 4))), ("u", 0, np.zeros((0, 4), np.float32)), ("weight", 1, np.zeros((3, 5), np.float32)),
    ("weight", 1, np.zeros(4, np.float32)), ("bias", 2, np.zeros(4)), ("bias", 2, np.zeros(3, np.int32)),
])
def test_refusals_name_the_argument(name, index, wrong):
    arguments = [np.zeros((2, 4), np.float32), np.zeros((3, 4), np.float32), np.zeros(3)]
    arguments[index] = wrong
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        projection.project(*arguments)
