"""The layer with int8 and int4 weights: exact sums of rounded inputs, and every row the same bits however it is computed."""

from pathlib import Path

import numpy as np
import pytest

from bits import in_any_company, on_any_number_of_threads, same_bits
from fusedx.kernels import conditional_layer as layer
from fusedx.kernels import native_module
from fusedx.kernels.conditional_layer import packed, reference

pytestmark = pytest.mark.skipif(native_module.native is None, reason=f"fusedx._native is not built: {native_module.reason}")
ISAS = native_module.native.isas() if native_module.native else ()
FORMS = ["int8", "int4"]

ROWS = [1, 2, 3, 5, 6, 7, 12, 16, 17, 33, 63, 64, 65, 130]
SHAPES = [(1, 1), (3, 17), (17, 3), (63, 65), (64, 64), (65, 63), (100, 257), (257, 100), (33, 600), (130, 6143)]  # N, K
EPSILON = 2.0**-24  # half a unit in the last place of a float32, relative


def problem(rows: int, outputs: int, inputs: int, extras: str = "hf", seed: int = 0) -> dict:
    """Arguments in float32, every row with a time of its own and inputs of a range of its own."""
    rng = np.random.default_rng([seed, rows, outputs, inputs])
    steps, images = rows + 2, 4

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    spread, shift = 10.0 ** rng.integers(-3, 4, (2, rows, 1))
    u = normal(rows, inputs) * spread.astype(np.float32) + (shift * (rng.integers(0, 3, (rows, 1)) == 0)).astype(np.float32)
    return {
        "u": u, "weight": normal(outputs, inputs) / np.float32(inputs**0.5), "a": normal(steps, outputs), "c": normal(steps, outputs),
        "t": rng.permutation(steps)[:rows].astype(np.int32),
        "h": normal(images, outputs) if "h" in extras else None, "f": normal(images, outputs) if "f" in extras else None,
        "image": rng.integers(0, images, rows).astype(np.int32) if extras else None,
    }


def run(p: dict, form: str, isa: str = "", **other) -> np.ndarray:
    p = {**p, **other}
    weight, weights = p.pop("weight"), p.pop("weights", None)
    return layer.run(p.pop("u"), layer.pack(weight, form) if weights is None else weights, **p, isa=isa)


def quantized(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x [R, K] in 0 to 255, step [R, 1] and zero [R, 1] as quantize_row.hpp has them, operation by operation in float32."""
    one, levels = np.float32(1), np.float32(255)
    low, high = np.minimum(u.min(axis=1, keepdims=True), 0), np.maximum(u.max(axis=1, keepdims=True), 0)
    step = high / levels - low / levels
    step = np.where(step < np.finfo(np.float32).tiny, np.float32(0), step)
    with np.errstate(divide="ignore"):
        inverse = np.where(step > 0, one / step, np.float32(0))
    zero = np.minimum(np.rint(-low * inverse), 255)
    return np.clip(np.rint(u * inverse) + zero, 0, 255), step, zero


def expected(p: dict, form: str) -> tuple[np.ndarray, np.ndarray]:
    """(the layer in float64 on the rounded operands, the most that rounding each float32 operation of the kernel can change)."""
    outputs, inputs = p["weight"].shape
    arrays = packed.pack(p["weight"], form)
    x, step, zero = (v.astype(np.float64) for v in quantized(p["u"]))
    if form == "int8":
        q = packed._from_quads(arrays["panels"])[:outputs, :inputs].astype(np.float64)
        product = step * arrays["scale"].astype(np.float64) * ((x - zero) @ q.T)
        error = 3 * EPSILON * np.abs(product)
    else:
        w = packed.unpack(arrays, form, outputs, inputs).astype(np.float64)
        product = step * ((x - zero) @ w.T)
        groups = -(-inputs // packed.GROUP)
        sizes = sum(np.abs(x[:, g : g + packed.GROUP] @ w[:, g : g + packed.GROUP].T) for g in range(0, inputs, packed.GROUP))
        error = EPSILON * step * ((groups + 2) * sizes + 3 * zero * np.abs(w.sum(axis=1))) + 2 * EPSILON * np.abs(product)
    a, c = (p[name][p["t"]].astype(np.float64) for name in "ac")
    h, f = (p[name][p["image"]].astype(np.float64) if p[name] is not None else other for name, other in (("h", 0.0), ("f", 1.0)))
    z = a * (product + h) + c
    error = np.abs(a) * (error + EPSILON * np.abs(product + h)) + EPSILON * np.abs(z)
    soft = reference.softplus(z)
    return soft * f, (error + 4 * EPSILON * soft + 1e-37) * np.abs(f) * 1.001


def within(got: np.ndarray, wanted: np.ndarray, bound: np.ndarray, where: str) -> None:
    excess = np.abs(got - wanted) - bound
    worst = np.unravel_index(excess.argmax(), excess.shape)
    assert excess[worst] <= 0, f"{where}: at (row, output) {worst} expected {wanted[worst]!r} within {bound[worst]:.2e}, got {got[worst]!r}"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("isa", ISAS)
def test_near_float64_on_the_rounded_operands(isa, form):
    for i, (outputs, inputs) in enumerate(SHAPES):
        for rows in ROWS if outputs * inputs < 30000 else (1, 7, 17):
            p = problem(rows, outputs, inputs, ["hf", "h", "f", ""][(i + rows) % 4])
            within(run(p, form, isa), *expected(p, form), f"{form} {isa} rows {rows} N {outputs} K {inputs}")


@pytest.mark.parametrize("form", FORMS)
def test_near_the_layer_on_inputs_that_are_not_rounded(form):
    """Rounding moves an input by half a step at most; int8's weights by half a scale besides."""
    for outputs, inputs in SHAPES:
        p = problem(9, outputs, inputs)
        u, (x, step, zero) = p["u"].astype(np.float64), quantized(p["u"])
        assert (np.abs(u - step * (x - zero)) <= 0.5001 * step).all()
        arrays = packed.pack(p["weight"], form)
        w = packed.unpack(arrays, form, outputs, inputs).astype(np.float64)
        moved = 0.5001 * step * np.abs(w).sum(axis=1)
        if form == "int8":
            w = p["weight"].astype(np.float64)
            moved = moved + 0.5001 * arrays["scale"] * np.abs(step * (x - zero)).sum(axis=1, keepdims=True)
        exact = layer.conditional_layer(u, w, *(p[n].astype(np.float64) for n in "ac"), p["t"],
                                        h=p["h"].astype(np.float64), f=p["f"].astype(np.float64), image=p["image"])
        bound = np.abs(p["a"][p["t"]] * p["f"][p["image"]]) * moved + expected(p, form)[1]
        within(run(p, form), exact, bound, f"{form} N {outputs} K {inputs}")


@pytest.mark.parametrize("form", FORMS)
def test_every_instruction_set_gives_the_same_bits(form):
    for outputs, inputs in SHAPES:
        for rows in (1, 3, 9, 17):
            p = problem(rows, outputs, inputs)
            first, *others = [run(p, form, isa) for isa in ISAS]
            for isa, other in zip(ISAS[1:], others, strict=True):
                assert same_bits(first, other), f"{ISAS[0]} and {isa} differ: {form} rows {rows} N {outputs} K {inputs}"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", ROWS)
def test_a_row_has_the_same_bits_in_any_company(isa, rows, form):
    p = problem(rows, 255, 601)
    p["weights"] = layer.pack(p["weight"], form)
    in_any_company(lambda index: run(p, form, isa, **{name: p[name][index] for name in ("u", "t", "image")}), rows)


def projected(rows: int, outputs: int, inputs: int, classes: int, form: str, isa: str = "") -> tuple[np.ndarray, np.ndarray]:
    p = problem(rows, outputs, inputs)
    rng = np.random.default_rng(rows)
    weight4, bias4 = rng.standard_normal((classes, outputs), np.float32), rng.standard_normal(classes)
    weights, rest = layer.pack(p.pop("weight"), form), {name: p[name] for name in ("a", "c", "t", "h", "f", "image")}
    eps = layer.run_projected(p["u"], weights, panels4=layer.pack_projection(weight4), bias4=bias4, **rest, isa=isa)
    out = layer.run(p["u"], weights, **rest, isa=isa)
    return eps, out.astype(np.float64) @ weight4.astype(np.float64).T + bias4


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("outputs, classes", [(1, 1), (32, 7), (33, 8), (65, 9), (96, 3), (257, 17)])
def test_the_last_layer_in_the_epilogue(outputs, classes, form):
    """A panel of 64 outputs is two of the epilogue's, the last of them perhaps missing."""
    for rows in (1, 7, 65):
        first = None
        for isa in ISAS:
            eps, wanted = projected(rows, outputs, 131, classes, form, isa)
            np.testing.assert_allclose(eps, wanted, rtol=1e-10, atol=1e-10 * np.abs(wanted).max())
            first = eps if first is None else first
            assert same_bits(first, eps), f"{ISAS[0]} and {isa} differ"


def test_the_number_of_threads_changes_no_bit():
    code = (
        "import hashlib, test_integer_layer as t\n"
        "shapes = ((1, 1027, 700, 5), (17, 1027, 700, 15), (70, 500, 300, 9))\n"
        "print([hashlib.sha256(t.projected(*s, form)[0].tobytes()).hexdigest() for s in shapes for form in t.FORMS])"
    )
    on_any_number_of_threads(code, Path(__file__).parent, "1", "2", "3", "7")


def products(u: np.ndarray, weights: object, isa: str) -> np.ndarray:
    """softplus of the product, which is the product itself above 20."""
    n = weights.shape[0]
    return layer.run(u, weights, np.ones((1, n), np.float32), np.zeros((1, n), np.float32), np.zeros(len(u), np.int32), isa=isa)


@pytest.mark.parametrize("inputs", [64, 100, 8192])
@pytest.mark.parametrize("isa", ISAS)
def test_the_largest_sums_are_not_clipped(isa, inputs):
    """All inputs 255 (or 0, with all of the range below zero), all weights 127 or -127: a 16-bit sum of two products would be clipped."""
    u = np.repeat(np.array([[1], [-1], [1], [0.5], [-3], [2], [1]], np.float32), inputs, axis=1)
    w = np.repeat(np.array([1, -1, 0.25], np.float32)[:, None], inputs, axis=1)
    for form in FORMS:
        p = {"u": u, "weight": w, "a": np.ones((1, 3), np.float32), "c": np.zeros((1, 3), np.float32), "t": np.zeros(7, np.int32),
             "h": None, "f": None, "image": None}
        got = run(p, form, isa)
        within(got, *expected(p, form), f"{form} {isa} K {inputs}")
        assert got[0, 0] == pytest.approx(inputs, rel=1e-6)


@pytest.mark.parametrize("isa", ISAS)
def test_weights_that_no_compiler_writes(isa):
    """-128 in a file made by somebody else, at the most inputs there may be: 255 * 128 * 65536 is the largest sum that fits 32 bits."""
    inputs = 65536
    panels = np.full((1, inputs // 4, 64, 4), -128, np.int8)
    weights = native_module.native.Weights("int8", 1, inputs, panels, np.full(1, -(2.0**-7), np.float32))
    assert products(np.ones((6, inputs), np.float32), weights, isa)[:, 0] == pytest.approx(inputs, rel=1e-6)
    with pytest.raises(Exception, match="at most 65536 inputs"):
        native_module.native.Weights("int8", 1, inputs + 4, np.zeros((1, inputs // 4 + 1, 64, 4), np.int8), np.ones(1, np.float32))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("isa", ISAS)
def test_a_row_that_is_not_finite_spoils_itself_alone(isa, form):
    for bad in (np.nan, np.inf, -np.inf):
        for place in (0, 33, 98):
            p = problem(8, 70, 99)
            clean = run(p, form, isa)
            p["u"] = p["u"].copy()
            p["u"][3, place] = bad
            got = run(p, form, isa)
            others = np.arange(8) != 3
            assert np.isnan(got[3]).all() and same_bits(got[others], clean[others]), f"{bad} at {place}"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("isa", ISAS)
def test_rows_at_the_ends_of_the_range_of_floats(isa, form):
    """Zeros, subnormals, one sign alone, and a range from -3e38 to 3e38, whose width no float holds."""
    rng = np.random.default_rng(0)
    u = rng.random((8, 100), np.float32)
    u[0] = 0
    u[1] *= np.float32(1e-40)
    u[2] = -u[2]
    u[3] = (u[3] * 2 - 1) * np.float32(3e38)
    u[4], u[4, 7] = 0, np.float32(1e-45)
    u[5] *= np.float32(3e-36)
    u[6] = -0.0
    p = {**problem(8, 70, 100), "u": u}
    p["weight"], p["a"] = p["weight"] * np.float32(0.01), p["a"] * np.float32(1e-30)  # no product past the largest float
    wanted, bound = expected(p, form)
    within(run(p, form, isa), wanted, bound, f"{form} {isa}")


def test_zero_is_exact():
    """int8: softplus(c) to the bit wherever inputs of zero meet any weight, whatever the row's range (int4 rounds a sum over groups)."""
    u = np.zeros((2, 65), np.float32)
    u[:, 64] = -0.3, 7.7
    p = {**problem(2, 65, 65, ""), "u": u}
    p["weight"] = p["weight"].copy()
    p["weight"][:, 64] = 0
    assert same_bits(run(p, "int8"), run(p, "int8", u=np.zeros((2, 65), np.float32)))


def test_rows_may_lie_apart():
    p = problem(9, 33, 63)
    wide = np.pad(p["u"], ((0, 0), (0, 5)))[:, :63]
    for form in FORMS:
        assert same_bits(run(p, form), run(p, form, u=wide))
