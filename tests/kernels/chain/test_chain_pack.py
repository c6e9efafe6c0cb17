"""Packed weights byte by byte against the lane maps, and the number formats that the kernel brings along."""

import ctypes

import chain_emulator
import numpy as np
import pytest

from fusedx.kernels.chain import FORMATS, pack_weight, pad
from fusedx.kernels.chain.layout import shape
from fusedx.kernels.chain.pack import WEIGHT_DTYPES, unpack_weight
from fusedx.kernels.chain.reference import rounded, softplus

WIDTHS = (1, 63, 100, 257)


def numbered(dtype: str, width: int) -> np.ndarray:
    """A weight whose entries tell where they came from, as far as the format has room."""
    index = np.arange(width * width).reshape(width, width) + 1
    if dtype == "fp32":
        return index.astype(np.float32)
    if dtype == "fp8":
        return (index % 126).astype(np.uint8)
    return (index % 31744).astype(np.uint16).view(WEIGHT_DTYPES[dtype])


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_lane_holds_what_its_fragment_needs(dtype: str, width: int) -> None:
    form, weight = FORMATS[dtype], numbered(dtype, width)
    size, packed = shape(form, width), pack_weight(weight, dtype)
    assert packed.nbytes == size.weight_bytes
    lanes = packed.view(weight.dtype).reshape(8, size.tiles, size.stages_a_tile * 4, 32, -1)
    rng = np.random.default_rng(width)
    for _ in range(300):
        warp, tile, chunk, lane, i = (int(rng.integers(n)) for n in lanes.shape)
        g, q = divmod(lane, 4)
        if dtype == "fp32":
            output, k = lane // 2, lane % 2 * 4 + i
        elif dtype == "fp8":
            output, k = g + i // 4 % 2 * 8, i // 8 * 16 + 4 * q + i % 4
        else:  # a0, a1, a2, a3 of the fragment, two elements each
            output, k = g + i // 2 % 2 * 8, 4 * q + i // 4 * 2 + i % 2
        n, k = tile * 16 + output, (warp * size.stages_a_tile * 4 + chunk) * form.chunk_inputs + k
        expected = weight[n, k] if n < width and k < width else 0
        assert lanes[warp, tile, chunk, lane, i] == expected


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("width", WIDTHS)
def test_unpacks_to_the_padded_weights(dtype: str, width: int) -> None:
    weight = numbered(dtype, width)
    strided = np.asfortranarray(weight)
    back = unpack_weight(pack_weight(strided, dtype), dtype, width)
    assert np.array_equal(back[:width, :width], weight) and np.count_nonzero(back) == np.count_nonzero(weight)


@pytest.mark.parametrize(
    ("weight", "dtype"),
    [
        (np.zeros((4, 4), np.float64), "fp32"),
        (np.zeros((4, 4), np.float32), "bf16"),
        (np.zeros((4, 5), np.float32), "fp32"),
        (np.zeros(4, np.float32), "fp32"),
        (np.full((4, 4), 0x7F, np.uint8), "fp8"),
        (np.full((4, 4), 0xFF, np.uint8), "fp8"),
    ],
)
def test_refuses_weights_that_it_would_misread(weight: np.ndarray, dtype: str) -> None:
    with pytest.raises(ValueError, match="weight: "):
        pack_weight(weight, dtype)


def test_tables_are_padded_with_zeros() -> None:
    table = np.arange(2 * 100, dtype=np.float32).reshape(2, 100) + 1
    out = pad(table, "fp32")
    assert out.shape == (2, 256) and np.array_equal(out[:, :100], table) and not out[:, 100:].any()


def test_every_e4m3_code_decodes_exactly() -> None:
    library = chain_emulator.library()
    for code in range(256):
        if code & 0x7F == 0x7F:
            continue
        exponent, mantissa = code >> 3 & 15, code & 7
        size = (8 + mantissa) * 2.0 ** (exponent - 10) if exponent else mantissa * 2.0**-9
        value = np.float16((-size if code & 0x80 else size) * 2.0**-8)
        low, high = ctypes.c_uint32(), ctypes.c_uint32()
        # Each of the four places of a word, the others holding other codes.
        for place in range(4):
            word = 0x11335577 & ~(0xFF << 8 * place) | code << 8 * place
            library.fx_decode_fp8(word, ctypes.byref(low), ctypes.byref(high))
            halves = np.array([low.value, high.value], np.uint32).view(np.float16)
            assert halves[place] == value and np.signbit(halves[place]) == bool(code & 0x80)


def test_softplus_is_right_to_a_unit_in_the_last_place() -> None:
    library = chain_emulator.library()
    x = np.concatenate([np.linspace(-104, 30, 200_001), [0.0, -0.0, 1e-30, -1e-30, 88.5, 1e30, np.inf, -np.inf, np.nan]]).astype(np.float32)
    out = np.empty_like(x)
    library.fx_softplus(x.ctypes.data, out.ctypes.data, len(x))
    assert np.array_equal(out, softplus(x), equal_nan=True)
    wide = x.astype(np.float64)
    exact = np.maximum(wide, 0) + np.log1p(np.exp(-np.abs(wide)))
    normal = np.isfinite(exact) & (exact > 2e-38)
    assert np.max(np.abs(out[normal] - exact[normal]) / np.spacing(out[normal])) < 1.6
    assert np.isnan(out[-1]) and np.isinf(out[-3]) and np.all(out[exact < 1e-38] <= 2e-38)  # minus infinity among the last


def test_small_floats_of_the_emulator_round_as_ieee_does() -> None:
    library = chain_emulator.library()
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)][::7]
    between = finite.astype(np.float32) * np.float32(1 + 2.0**-12)
    ties = (finite[:-1].astype(np.float32) + finite[1:].astype(np.float32)) / 2
    extremes = np.array([65519, 65520, 1e6, -1e6, 1e-9, 2.0**-25, -(2.0**-24), np.inf], np.float32)
    for x in np.concatenate([finite.astype(np.float32), between, ties, extremes]):
        with np.errstate(over="ignore"):
            assert library.fx_to_fp16(float(x)) == x.astype(np.float16).view(np.uint16), x
        assert library.fx_to_bf16(float(x)) == rounded("bf16", x.reshape(1)).view(np.uint32)[0] >> 16
    assert all(library.fx_from_fp16(int(h.view(np.uint16))) == h for h in finite)
