"""Softmax and sigmoid: as exact as float64 allows, the same bits from numpy and from C++, and nothing strange at the ends."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fusedx.kernels import softmax as operation
from fusedx.kernels.native_module import native
from fusedx.kernels.softmax import reference, sigmoid, softmax

ANY = hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=9), elements=st.floats(width=64))
needs_native = pytest.mark.skipif(native is None, reason="the native module is not built")


def test_exp_within_one_unit_of_the_exact_value():
    getcontext().prec = 40
    rng = np.random.default_rng(0)
    x = -np.concatenate([rng.uniform(0, 708, 3000), rng.uniform(0, 1, 3000), 10.0 ** rng.uniform(-300, 0, 1000), [0.0, 708.0, 5e-324]])
    got = reference.exp(x)
    units = [abs(Decimal(g) - Decimal(v).exp()) / Decimal(math.ulp(g)) for v, g in zip(x.tolist(), got.tolist(), strict=True)]
    assert max(units) < 1
    assert reference.exp(np.array([0.0, -0.0])).tolist() == [1.0, 1.0]


@needs_native
@given(ANY)
@example(np.array([np.nan, 0.0]))
@example(np.array([[np.inf, 0.0], [-np.inf, 0.0], [-np.inf, -np.inf]]))
@example(np.array([1e308, -1e308, 0.0]))
def test_native_has_the_bits_of_the_reference(x):
    for got, expected in ((softmax(x), reference.softmax(x)), (sigmoid(x), reference.sigmoid(x))):
        assert got.shape == x.shape and got.dtype == np.float64
        assert np.array_equal(got, expected, equal_nan=True)


@needs_native
@given(hnp.arrays(np.float64, (4, 7), elements=st.floats(-50, 50)))
def test_native_has_the_bits_of_the_reference_where_they_matter(x):
    assert np.array_equal(softmax(x).view(np.uint64), reference.softmax(x).view(np.uint64))
    assert np.array_equal(sigmoid(x).view(np.uint64), reference.sigmoid(x).view(np.uint64))


@pytest.mark.parametrize("native_module", [None, native] if native else [None])
def test_values_and_ends(native_module, monkeypatch):
    monkeypatch.setattr(operation, "native", native_module)
    rng = np.random.default_rng(1)
    x = rng.normal(0, 3, (100, 6))
    e = np.exp(x - x.max(axis=1, keepdims=True))
    assert np.allclose(softmax(x), e / e.sum(axis=1, keepdims=True), rtol=1e-15, atol=0)
    assert np.allclose(sigmoid(x), 1 / (1 + np.exp(-x)), rtol=1e-15, atol=0)
    assert softmax(np.array([3.0])).tolist() == [1.0]
    assert softmax(np.array([0.0, -800.0, -np.inf])).tolist() == [1.0, 0.0, 0.0]
    assert sigmoid(np.array([-np.inf, -800.0, 0.0, 800.0, np.inf])).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    for bad in ([np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]):
        assert np.isnan(softmax(np.array(bad))).all()
    assert np.isnan(sigmoid(np.array(np.nan)))
    assert softmax(x[:0]).shape == (0, 6)
    assert np.array_equal(softmax(np.asfortranarray(x)[::2]), softmax(x)[::2])  # any strides


@pytest.mark.parametrize("bad", [np.zeros(3, np.float32), np.zeros((2, 0)), np.float64(1.0), [1.0, 2.0], None, np.zeros(())])
def test_refused(bad):
    with pytest.raises(ValueError, match="scores: expected float64"):
        softmax(bad)
