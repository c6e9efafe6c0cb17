"""The conditional layer's Triton kernels under the interpreter; run by test_interpreted.py, in a process that interprets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from fusedx.kernels.conditional_layer import formats
from fusedx.kernels.conditional_layer import triton as layer
from fusedx.kernels.conditional_layer.softplus_triton import softplus
from fusedx.kernels.conditional_layer.variants import DTYPES, choose, table
from fusedx.kernels.target import TARGETS
from triton_cases import UNIT, assert_near, make_layer

#: Every form of every table; the family does not matter to the interpreter, the tile does.
TILES = {v.name.partition("-")[2]: v for cc in TARGETS for d in DTYPES for i in (True, False) for _, v in table(cc, d, i)}
SMALL = choose(90, "bf16", 1)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("rows", "outputs", "inputs", "classes"), [(1, 63, 100, 2), (17, 257, 63, 15), (3, 128, 128, 7)])
def test_every_tile(tile, rows, outputs, inputs, classes):
    variant, case = TILES[tile], make_layer(rows, outputs, inputs, classes=classes)
    for conditioned in (False, True):
        truth, plain = (case.expected(t, conditioned=conditioned) for t in (np.float64, np.float32))
        assert_near(case.run(variant, conditioned=conditioned), truth, plain, UNIT["fp32"])
    truth, plain = (case.expected_tiles(variant.partial_out, t) for t in (np.float64, np.float32))
    assert_near(case.run_projected(variant), truth, plain, UNIT["fp32"])


@pytest.mark.parametrize("dtype", ["fp16", "fp8"])
@pytest.mark.parametrize("rows", [1, 63])
def test_narrow_weights(dtype, rows):
    variant, case = choose(90, dtype, rows), make_layer(rows, 100, 257, dtype)
    for conditioned in (False, True):
        truth, plain = (case.expected(t, conditioned=conditioned) for t in (np.float64, np.float32))
        assert_near(case.run(variant, conditioned=conditioned), truth, plain, UNIT[dtype])
    truth, plain = (case.expected_tiles(variant.partial_out, t) for t in (np.float64, np.float32))
    assert_near(case.run_projected(variant), truth, plain, UNIT["fp32"])


def test_more_row_tiles_than_a_group():
    """17 row tiles: one full group and a remainder of one, with two output tiles."""
    variant = choose(90, "bf16", 1)
    rows = variant.block_rows * layer.GROUP_ROWS + 3
    case = make_layer(rows, 65, 16)
    assert_near(case.run(variant), case.expected(), case.expected(np.float32), UNIT["fp32"])


def test_rows_apart_and_nothing_written_beside_them():
    case = make_layer(5, 63, 100)
    wide_in, wide_out = torch.full((5, 131), float("nan")), torch.full((7, 80), 3.0)
    wide_in[:, :100] = case.u
    out = wide_out[1:6, :63]
    layer.conditional_layer(wide_in[:, :100], *case.core[1:], out=out, variant=SMALL)
    assert torch.equal(out, case.run(SMALL))
    assert (wide_out[0] == 3).all() and (wide_out[6] == 3).all() and (wide_out[:, 63:] == 3).all()


def test_one_step_for_all_rows_is_the_same_arithmetic():
    case = make_layer(17, 63, 100)
    u, weight, a, c, _ = case.core
    step = torch.tensor([3], dtype=torch.int32)
    results = []
    for t in (step.expand(17), step.repeat(17)):
        out, partial = torch.empty(17, 63), torch.empty(17, SMALL.partial_tiles(63), 7)
        layer.conditional_layer(u, weight, a, c, t, out=out, variant=SMALL)
        layer.projected_layer(u, weight, a, c, t, case.weight4, partial=partial, variant=SMALL)
        results.append((out, partial))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


def test_not_a_number_stays_in_its_row():
    case = make_layer(5, 100, 63)
    clean, clean_partial = case.run(SMALL), case.run_projected(SMALL)
    case.u[2, 62] = float("nan")
    out, partial = case.run(SMALL), case.run_projected(SMALL)
    assert out[2].isnan().all() and partial[2].isnan().all()
    others = [0, 1, 3, 4]
    assert torch.equal(out[others], clean[others]) and torch.equal(partial[others], clean_partial[others])


def test_output_dtype_is_the_outputs():
    case = make_layer(3, 63, 100)
    out = torch.empty(3, 63, dtype=torch.float16)
    assert torch.equal(case.run(SMALL, out=out), case.run(SMALL).half())


@triton.jit
def _decode(bits, out):
    k = tl.arange(0, 256)
    tl.store(out + k, layer._decode_e4m3(tl.load(bits + k)))


def test_every_finite_e4m3_code_decodes_exactly():
    codes = np.delete(np.arange(256, dtype=np.uint8), [0x7F, 0xFF])
    exponent, fraction = (codes >> 3) & 15, codes & 7
    value = np.where(exponent > 0, (8 + fraction) * 2.0 ** (exponent - 10.0), fraction * 2.0**-9) * np.where(codes & 0x80, -1, 1)
    assert value.max() == 448 and np.unique(value).size == 253  # two zeros
    out = torch.empty(256, dtype=torch.float16)
    _decode[(1,)](torch.arange(256).to(torch.uint8), out)
    assert np.array_equal(out.numpy()[codes].astype(np.float64), value * 2.0**-8)
    assert np.array_equal(np.signbit(out.numpy()[codes]), (codes & 0x80) > 0)
    assert np.array_equal(formats.e4m3_as_fp16(codes), out.numpy()[codes])


@triton.jit
def _softplus(x, out, SIZE: tl.constexpr):
    k = tl.arange(0, SIZE)
    tl.store(out + k, softplus(tl.load(x + k)))


def softplus_of(x: np.ndarray) -> np.ndarray:
    out = torch.empty(x.size)
    _softplus[(1,)](torch.from_numpy(x), out, SIZE=x.size)
    return out.numpy()


def test_softplus_is_right_to_rounding():
    """numpy has no fused multiply-add, so under the interpreter exp loses what compiled code keeps: |x| / 2 units at most."""
    x = np.linspace(-40, 40, 1 << 15, dtype=np.float32)
    truth = np.logaddexp(0, x.astype(np.float64))
    units = np.abs(softplus_of(x) - truth) / np.spacing(truth.astype(np.float32))
    assert (units <= 2.5 + np.maximum(-x, 0)).all()


def test_softplus_at_the_ends():
    x = np.array([0, -0.0, 20, 21, 100, 3e38, np.inf, -100, -3e38, -np.inf, np.nan, 1e-30, -1e-30, -87, -88, 88], np.float32)
    y = softplus_of(x)
    assert np.isnan(y[10]) and not np.isnan(np.delete(y, 10)).any()
    assert np.array_equal(y[2:7], x[2:7]) and (0 <= y[7:10]).all() and (y[7:10] < 1e-37).all()
    assert abs(y[0] - np.log(2)) < 1e-7 and y[0] == y[1] and y[0] == y[11] == y[12]


BAD = {
    "u": lambda case: {"u": case.u[:, :-1]},
    "weight": lambda case: {"weight": case.weight.double()},
    "a": lambda case: {"a": case.a[:, :-1].contiguous()},
    "c": lambda case: {"c": case.c[:-1]},
    "t": lambda case: {"t": case.t.long()},
    "out": lambda case: {"out": torch.empty(3, 64)},
    "h": lambda case: {"h": case.h.T},
    "f": lambda case: {"f": case.f.half()},
    "image": lambda case: {"image": None},
}


@pytest.mark.parametrize("name", BAD)
def test_arguments_that_do_not_fit_are_named(name):
    case = make_layer(3, 63, 100)
    arguments = dict(zip(("u", "weight", "a", "c", "t"), case.core, strict=True))
    arguments |= {"out": torch.empty(3, 63), "h": case.h, "f": case.f, "image": case.image} | BAD[name](case)
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        layer.conditional_layer(**arguments, variant=SMALL)


def test_other_arguments_that_do_not_fit():
    case = make_layer(4, 63, 100)
    with pytest.raises(ValueError, match="^u: expected.*at least one element"):
        case.run(SMALL, rows=slice(0, 0))
    with pytest.raises(ValueError, match="^u: expected contiguous rows"):
        layer.conditional_layer(case.u.T.contiguous().T, *case.core[1:], out=torch.empty(4, 63), variant=SMALL)
    with pytest.raises(ValueError, match="^t: .*stride 2"):
        layer.conditional_layer(*case.core[:4], case.t.repeat(2)[::2], out=torch.empty(4, 63), variant=SMALL)
    with pytest.raises(ValueError, match=r"^partial: expected float32 \[4, 1, 7\]"):
        layer.projected_layer(*case.core, case.weight4, partial=torch.empty(4, 2, 7), variant=SMALL)
    with pytest.raises(ValueError, match="^weight4: expected at most 16 classes"):
        layer.projected_layer(*case.core, torch.ones(17, 63), partial=torch.empty(4, 1, 17), variant=SMALL)
    with pytest.raises(ValueError, match="^u: expected float16"):
        layer.conditional_layer(case.u, torch.ones(63, 100, dtype=torch.uint8), *case.core[2:], out=torch.empty(4, 63), variant=SMALL)
