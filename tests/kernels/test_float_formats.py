"""Weights in bf16 and fp16: widened exactly, so the layer's bits are those of a float32 layer on the widened weights."""

from pathlib import Path

import numpy as np
import pytest
from test_conditional_layer import as_double, problem

from bits import in_any_company, on_any_number_of_threads, same_bits
from fusedx.kernels import conditional_layer as layer
from fusedx.kernels import native_module
from fusedx.kernels.conditional_layer import packed

pytestmark = pytest.mark.skipif(native_module.native is None, reason=f"fusedx._native is not built: {native_module.reason}")
ISAS = native_module.native.isas() if native_module.native else ()
FORMS = ["bf16", "fp16"]
SHAPES = [(1, 1), (2, 31), (31, 257), (33, 64), (63, 255), (255, 2), (257, 600), (1027, 513)]


def widened(weight: np.ndarray, form: str) -> np.ndarray:
    return np.ascontiguousarray(packed.unpack(packed.pack(weight, form), form, *weight.shape))


def run(p: dict, weights: object, isa: str = "", **other) -> np.ndarray:
    p = {**p, **other}
    p.pop("weight")
    return layer.run(p.pop("u"), weights, **p, isa=isa)


def every_bit_pattern(form: str) -> tuple[np.ndarray, np.ndarray]:
    """All 65536 of them as weights [65536, 1], and the float32 numbers that they are."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    panels = np.ascontiguousarray(bits.reshape(-1, 1, 32))
    if form == "fp16":
        with np.errstate(invalid="ignore"):
            return panels.view(np.float16), bits.view(np.float16).astype(np.float32)
    return panels, (bits.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", FORMS)
def test_every_bit_pattern_is_widened_exactly(form, isa):
    """The layer of w against that of float32 w.  Softplus is the identity above 20: a large factor brings each w there, by its sign."""
    panels, wide = every_bit_pattern(form)
    n = len(wide)
    weights, plain = native_module.native.Weights(form, n, 1, panels), layer.pack(wide[:, None])
    for scale in (1.0, -1.0, 2.0**30, -(2.0**30), 2.0**100, -(2.0**100), 2.0**127, -(2.0**127)):
        u, one, zero = np.full((1, 1), scale, np.float32), np.ones((1, n), np.float32), np.zeros((1, n), np.float32)
        with np.errstate(all="ignore"):
            got, expected = (layer.run(u, w, one, zero, np.zeros(1, np.int32), isa=isa) for w in (weights, plain))
        assert np.array_equal(np.isnan(got), np.isnan(expected))
        assert same_bits(got[~np.isnan(got)], expected[~np.isnan(expected)])
        assert np.array_equal(np.isnan(got[0]), np.isnan(wide)), "a number became not-a-number, or the reverse"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("outputs, inputs", SHAPES)
def test_bits_are_those_of_float32_on_the_widened_weights(form, isa, outputs, inputs):
    for rows in (1, 2, 3, 5, 8, 9, 17, 63, 65):
        p = problem(rows, outputs, inputs)
        plain = run(p, layer.pack(widened(p["weight"], form)), ISAS[0])
        assert same_bits(run(p, layer.pack(p["weight"], form), isa), plain), f"rows {rows}"


@pytest.mark.parametrize("form, relative", [("bf16", 2.0**-9), ("fp16", 2.0**-12)])
def test_near_the_exact_layer_of_the_unrounded_weights(form, relative):
    """Each weight is off by half a unit at most, so the product by that times sum |w u|, and softplus adds nothing to an error."""
    for outputs, inputs in SHAPES:
        p = problem(17, outputs, inputs)
        exact = layer.conditional_layer(**as_double(p))
        slack = np.abs(p["u"].astype(np.float64)) @ np.abs(p["weight"].astype(np.float64)).T
        bound = 2 * relative * slack * np.abs(p["a"][p["t"]]) * np.abs(p["f"][p["image"]]) + 1e-5 * np.maximum(1, np.abs(exact)).max()
        assert (np.abs(run(p, layer.pack(p["weight"], form)) - exact) <= bound).all(), f"N {outputs} K {inputs}"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [3, 17, 63, 64, 65, 130])
def test_a_row_has_the_same_bits_in_any_company(form, isa, rows):
    p = problem(rows, 255, 600)
    weights = layer.pack(p["weight"], form)
    in_any_company(lambda index: run(p, weights, isa, **{name: p[name][index] for name in ("u", "t", "image")}), rows)


def test_the_number_of_threads_changes_no_bit():
    code = (
        "import hashlib, test_float_formats as t\n"
        "from fusedx.kernels import conditional_layer as layer\n"
        "p = t.problem(17, 1027, 700)\n"
        "print([hashlib.sha256(t.run(p, layer.pack(p['weight'], f)).tobytes()).hexdigest() for f in t.FORMS])"
    )
    on_any_number_of_threads(code, Path(__file__).parent, "1", "2", "3", "4")


@pytest.mark.parametrize("form", packed.FORMATS)
def test_weights_report_their_shape_and_take_what_the_format_says(form):
    weight = np.random.default_rng(0).standard_normal((640, 512), np.float32)
    weights = layer.pack(weight, form)
    bits = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "int4": 4}[form]
    assert weights.shape == (640, 512) and weight.size * bits / 8 <= weights.nbytes <= weight.size * bits / 8 * 1.13


def zeros(*shape: int, of: type = np.float32) -> np.ndarray:
    return np.zeros(shape, of)


@pytest.mark.parametrize("arguments, complaint", [
    (("fp8", 64, 64, zeros(64, 64)), "unknown weight format 'fp8'; there are: fp32, bf16, fp16, int8, int4"),
    (("bf16", 64, 64, zeros(2, 64, 32)), r"weight.panels: expected uint16\[2, 64, 32\], got float32\[2, 64, 32\]"),
    (("fp16", 64, 64, zeros(2, 64, 32, of=np.uint16)), r"weight.panels: expected float16\[2, 64, 32\], got uint16"),
    (("bf16", 65, 64, zeros(2, 64, 32, of=np.uint16)), r"weight.panels: expected uint16\[3, 64, 32\]"),
    (("bf16", 64, 64, zeros(2, 32, 64, of=np.uint16).swapaxes(1, 2)), r"weight.panels: expected uint16\[2, 64, 32\] contiguous"),
    (("bf16", 64, 64, zeros(2, 64, 32, of=np.uint16), zeros(64)), "weight.scale: this format has none"),
    (("int8", 64, 64, zeros(1, 16, 64, 4, of=np.int8)), "weight.scale: missing"),
    (("int8", 64, 64, zeros(1, 16, 64, 4, of=np.uint8), zeros(64)), "weight.panels: expected int8"),
    (("int8", 64, 64, zeros(1, 16, 64, 4, of=np.int8), zeros(63)), r"weight.scale: expected float32\[64\]"),
    (("int4", 64, 64, zeros(1, 1, 8, 64, 4, of=np.uint8), zeros(1, 1, 64)), r"weight.scale: expected float16\[1, 1, 64\]"),
    (("fp32", 0, 64, zeros(0, 64)), "weight: expected at least one element"),
    (("fp32", -5, 64, zeros(0, 64)), "weight: expected at least one element"),
])
def test_refusals_name_the_array(arguments, complaint):
    with pytest.raises(ValueError, match=f"^{complaint}"):
        native_module.native.Weights(*arguments)
