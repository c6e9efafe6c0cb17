"""The stored weight formats: shapes and bytes as packed_weights.hpp says, and the least error that a format allows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedx.kernels.conditional_layer import packed

SHAPES = [(1, 1), (3, 17), (31, 3), (32, 4), (33, 63), (63, 64), (64, 65), (65, 100), (130, 257)]
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I8": np.int8, "U8": np.uint8}


def matrix(outputs: int, inputs: int) -> np.ndarray:
    return np.random.default_rng([outputs, inputs]).standard_normal((outputs, inputs), np.float32)


def worth(weight: np.ndarray, form: str) -> np.ndarray:
    return packed.unpack(packed.pack(weight, form), form, *weight.shape)


@pytest.mark.parametrize("form", packed.FORMATS)
@pytest.mark.parametrize("outputs, inputs", SHAPES)
def test_arrays_are_as_shapes_says(form, outputs, inputs):
    arrays, shapes = packed.pack(matrix(outputs, inputs), form), packed.shapes(form, outputs, inputs)
    assert set(arrays) == set(shapes)
    for name, (shape, dtype) in shapes.items():
        assert arrays[name].shape == shape and arrays[name].dtype in (DTYPES[dtype], *([np.uint16] if dtype == "F16" else [])), name
        assert arrays[name].flags.c_contiguous, name
    assert worth(matrix(outputs, inputs), form).shape == (outputs, inputs)


@pytest.mark.parametrize("outputs, inputs", SHAPES)
def test_error_of_each_format(outputs, inputs):
    w = matrix(outputs, inputs)
    assert np.array_equal(worth(w, "fp32"), w)
    assert (np.abs(worth(w, "bf16") - w) <= 2.0**-8 * np.abs(w)).all()
    assert (np.abs(worth(w, "fp16") - w) <= 2.0**-11 * np.abs(w) + 2.0**-25).all()
    assert (np.abs(worth(w, "int8") - w) <= np.abs(w).max(axis=1, keepdims=True) / 127 * 0.5001).all()
    # int4: the extreme of a group is -8 scales; without any search an error is half a scale at most, or one where the other end is clipped.
    short = -inputs % packed.GROUP
    groups = np.pad(w, ((0, 0), (0, short))).reshape(outputs, -1, packed.GROUP)
    error = (np.pad(worth(w, "int4"), ((0, 0), (0, short))).reshape(groups.shape) - groups).astype(np.float64)
    plain_scale = np.abs(groups).max(axis=2, keepdims=True) / 8
    assert (np.square(error).sum(axis=2) <= np.square(plain_scale[..., 0] * 1.002) * np.minimum(inputs, packed.GROUP)).all()


@pytest.mark.parametrize("form", packed.FORMATS)
@pytest.mark.parametrize("outputs, inputs", [(33, 17), (65, 70)])
def test_padding_is_weights_of_zero(form, outputs, inputs):
    """Seen by reading the padded matrix whole."""
    arrays = packed.pack(matrix(outputs, inputs), form)
    if form == "fp32":
        return
    panel, unit = {"int8": (64, 4), "int4": (64, 64)}.get(form, (32, 1))
    n, k = -(-outputs // panel) * panel, -(-inputs // unit) * unit
    if form == "int8":
        arrays = {**arrays, "scale": np.ones(n, np.float32)}
    whole = packed.unpack(arrays, form, n, k)
    assert not whole[outputs:].any() and not whole[:, inputs:].any()


def test_place_of_a_weight_in_its_panel():
    """One weight of int8 and two of int4, byte by byte as packed_weights.hpp has them."""
    w = np.zeros((70, 130), np.float32)
    w[67, 50] = -1
    arrays = packed.pack(w, "int8")
    assert arrays["panels"][1, 12, 3, 2] == -127 and np.count_nonzero(arrays["panels"]) == 1
    w[67, 64 + 7], w[67, 64 + 32 + 7] = 7, -8
    arrays = packed.pack(w, "int4")
    assert arrays["panels"][1, 1, 1, 3, 3] == 15 | 0 << 4 and arrays["scale"].view(np.float16)[1, 1, 3] == 1
    assert np.count_nonzero(arrays["panels"] != 0x88) == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=130))
def test_any_finite_weights(values):
    """Whatever their sizes, packing gives finite weights, each no further from its own than the format allows, or says that it cannot."""
    w = np.array([values], np.float32)
    for form in packed.FORMATS:
        try:
            back = worth(w, form)
        except ValueError as error:
            assert form in ("fp16", "int4") and np.abs(w).max() > 65504, error
            continue
        assert np.isfinite(back).all(), form
        assert (np.abs(back - w) <= np.abs(w).max() * (0.51 / 127 if form == "int8" else 0.27) + 2.0**-24).all(), form


def test_zeros_and_the_smallest_floats():
    for form in packed.FORMATS:
        assert not worth(np.zeros((2, 65), np.float32), form).any()
        assert np.isfinite(worth(np.full((2, 65), 1e-45, np.float32), form)).all()


@pytest.mark.parametrize("form", packed.FORMATS)
def test_what_the_floats_say_a_second_time_is_the_same(form):
    w = matrix(70, 130)
    once = worth(w, form)
    if form != "int4":  # where another scale fits the rounded weights as well, the search may take it
        np.testing.assert_allclose(worth(once, form), once, rtol=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="unknown weight format 'int3'; there are: fp32"):
        packed.shapes("int3", 1, 1)
    with pytest.raises(ValueError, match="unknown weight format 'int3'"):
        packed.pack(np.zeros((1, 1), np.float32), "int3")
    with pytest.raises(ValueError, match="too large for fp16"):
        packed.pack(np.full((1, 1), 1e6, np.float32), "fp16")
    for form in ("int8", "int4"):
        with pytest.raises(ValueError, match="at most 65536 inputs"):
            packed.shapes(form, 1, 65537)


@pytest.mark.parametrize("form", [f for f in packed.FORMATS if f != "fp32"])
@pytest.mark.parametrize("n, k", [(1, 1), (31, 3), (33, 65), (64, 64), (65, 33), (128, 126)])
def test_padding(form, n, k):
    """Any one element past the last output or input that is not zero is seen; none inside is taken for padding."""
    parts = packed.pack(matrix(n, k), form)
    panels, before = parts["panels"], packed.unpack(parts, form, n, k)
    assert packed.padding_is_zero(panels, form, n, k)
    for flat in np.random.default_rng(k).permutation(panels.size)[:400]:
        for bits in (0x05, 0x50) if form == "int4" else (0x55,):
            changed = panels.copy()
            changed.reshape(-1).view(np.uint8 if panels.itemsize == 1 else np.uint16)[flat] ^= bits
            inside = not np.array_equal(packed.unpack(parts | {"panels": changed}, form, n, k), before)
            assert packed.padding_is_zero(changed, form, n, k) == inside
