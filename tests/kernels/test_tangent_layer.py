"""The layer with forward-mode derivatives: near the derivative in float64, and a value's bits those that it has without."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fusedx.kernels import conditional_layer as layer
from fusedx.kernels import native_module
from fusedx.kernels.conditional_layer import packed, reference
from fusedx.kernels.conditional_layer.native import MOST_TANGENTS

native = pytest.mark.skipif(native_module.native is None, reason=f"fusedx._native is not built: {native_module.reason}")
ISAS = native_module.native.isas() if native_module.native else ()
FLOATS = ["fp32", "bf16", "fp16"]
GROUPS = [1, 2, 3, 4, 5, 6, 7, 8, 9]
TABLES = ("a", "c", "t", "h", "f", "image")
SHAPES = [(1, 1), (2, 31), (33, 5), (63, 65), (70, 131), (257, 100)]  # N, K


def problem(groups: int, tangents: int, outputs: int, inputs: int, extras: str = "hf") -> dict:
    """Arguments in float32: u [G, 1 + D, K], every group with a time of its own."""
    rng = np.random.default_rng([groups, tangents, outputs, inputs])
    steps, images = groups + 2, 4

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    u = normal(groups, 1 + tangents, inputs)
    u[:, 0] = np.abs(u[:, 0])  # as what follows a softplus
    return {
        "u": u, "weight": normal(outputs, inputs) / np.float32(inputs**0.5), "a": normal(steps, outputs), "c": normal(steps, outputs),
        "t": rng.permutation(steps)[:groups].astype(np.int32),
        "h": normal(images, outputs) if "h" in extras else None, "f": normal(images, outputs) if "f" in extras else None,
        "image": rng.integers(0, images, groups).astype(np.int32) if extras else None,
    }


def rows(p: dict) -> tuple[np.ndarray, dict]:
    """(u [G (1 + D), K], the rest with t and image for every row)."""
    unit = p["u"].shape[1]
    rest = {n: p[n] for n in ("a", "c", "h", "f")} | {n: None if p[n] is None else np.repeat(p[n], unit) for n in ("t", "image")}
    return p["u"].reshape(-1, p["u"].shape[2]), rest


def run(p: dict, form: str = "fp32", isa: str = "", weights: object = None) -> np.ndarray:
    """[G, 1 + D, N]."""
    u, rest = rows(p)
    weights = layer.pack(p["weight"], form) if weights is None else weights
    return layer.run(u, weights, **rest, isa=isa, tangents=p["u"].shape[1] - 1).reshape(*p["u"].shape[:2], -1)


def values(p: dict, form: str = "fp32", isa: str = "") -> np.ndarray:
    """[G, N]: the plain layer of the value rows."""
    return layer.run(np.ascontiguousarray(p["u"][:, 0]), layer.pack(p["weight"], form), **{n: p[n] for n in TABLES}, isa=isa)


def exact(p: dict, dtype: type = np.float64) -> np.ndarray:
    """The reference, [G, 1 + D, N]."""
    p = {n: v if v is None or v.dtype == np.int32 else v.astype(dtype) for n, v in p.items()}
    u = p.pop("u")
    value, tangents = layer.tangent_layer(u[:, 0], u[:, 1:], **p)
    return np.concatenate([value[:, None], tangents], axis=1)


def same_bits(x: np.ndarray, y: np.ndarray) -> bool:
    return x.tobytes() == y.tobytes()


@pytest.mark.parametrize("extras", ["", "h", "f", "hf"])
@pytest.mark.parametrize("tangents", [1, 2, 15])
def test_reference_against_finite_differences(tangents, extras):
    p = problem(3, tangents, 33, 9, extras)
    p = {n: v if v is None or v.dtype == np.int32 else v.astype(np.float64) for n, v in p.items()}
    u, rest = p["u"], {n: p[n] for n in ("weight", "a", "c", "t", "h", "f", "image")}
    value, found = layer.tangent_layer(u[:, 0], u[:, 1:], **rest)
    assert same_bits(value, layer.conditional_layer(u[:, 0], **rest))
    for d in range(tangents):
        step = 1e-6 * u[:, 1 + d]
        slope = (layer.conditional_layer(u[:, 0] + step, **rest) - layer.conditional_layer(u[:, 0] - step, **rest)) / 2e-6
        np.testing.assert_allclose(found[:, d], slope, rtol=1e-7, atol=1e-8)


def test_reference_against_torch():
    torch = pytest.importorskip("torch")
    p = problem(4, 5, 33, 9)
    p["a"] *= 40  # both sides of the threshold
    found = exact(p)
    u, w, a, c, h, f = (torch.from_numpy(p[n].astype(np.float64)) for n in ("u", "weight", "a", "c", "h", "f"))
    t, image = (torch.from_numpy(p[n].astype(np.int64)) for n in ("t", "image"))

    def plain(x):
        return torch.nn.functional.softplus(a[t] * (x @ w.T + h[image]) + c[t]) * f[image]

    for d in range(5):
        value, tangent = torch.func.jvp(plain, (u[:, 0],), (u[:, 1 + d],))
        np.testing.assert_allclose(found[:, 0], value.numpy(), rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(found[:, 1 + d], tangent.numpy(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_is_the_slope_of_pytorchs_softplus(dtype):
    torch = pytest.importorskip("torch")
    x = np.concatenate([np.linspace(-800, 800, 4001), np.linspace(19.9, 20.1, 401), [0.0, -0.0, np.inf, -np.inf]]).astype(dtype)
    y = torch.from_numpy(x).requires_grad_()
    torch.nn.functional.softplus(y).sum().backward()
    expected = y.grad.numpy()
    found = reference.sigmoid(x)
    assert found.dtype == dtype and (found[x > 20] == 1).all()
    finite = np.isfinite(expected)  # PyTorch's own quotient is not a number at infinity
    np.testing.assert_allclose(found[finite], expected[finite], rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


@native
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tangents", range(1, 16))
def test_error_at_most_twice_that_of_plain_float32(isa, tangents):
    for i, groups in enumerate(GROUPS):
        outputs, inputs = SHAPES[(i + tangents) % len(SHAPES)]
        p = problem(groups, tangents, outputs, inputs, ["hf", "h", "f", ""][i % 4])
        for form in FLOATS:
            weight = p["weight"] if form == "fp32" else packed.unpack(packed.pack(p["weight"], form), form, outputs, inputs)
            wanted, plain = exact(p | {"weight": weight}), exact(p | {"weight": weight}, np.float32)
            error = np.abs(run(p, form, isa) - wanted)
            worst = np.unravel_index(error.argmax(), error.shape)
            bound = 2 * np.abs(plain - wanted).max() + 2e-6 * max(1.0, np.abs(wanted).max())
            where = f"{form} groups {groups} N {outputs} K {inputs} at (group, row, output) {worst}"
            assert error.max() <= bound, f"{where}: {error.max():.2e} > {bound:.2e}"


@native
@pytest.mark.parametrize("form", packed.FORMATS)
@pytest.mark.parametrize("isa", ISAS)
def test_a_value_has_the_bits_that_it_has_without_tangents(isa, form):
    for i, (outputs, inputs) in enumerate(SHAPES):
        for groups, tangents in ((1, 1), (3, 7), (9, 14), (2, 63), (40, 4)):
            p = problem(groups, tangents, outputs, inputs, ["hf", "h", "f", ""][(i + tangents) % 4])
            found = np.ascontiguousarray(run(p, form, isa)[:, 0])
            assert same_bits(found, values(p, form, isa)), f"{groups} x (1 + {tangents}) N {outputs} K {inputs}"


@native
@pytest.mark.parametrize("form", ["int8", "int4"])
def test_integer_formats_approximate_the_derivative(form):
    """The slope at their own value and the product of their own weights, off by rounding a direction to 8 bits: half a step an input."""
    for groups, tangents in ((1, 2), (5, 7), (9, 15)):
        for outputs, inputs in SHAPES:
            p = problem(groups, tangents, outputs, inputs)
            stored = packed.unpack(packed.pack(p["weight"], form), form, outputs, inputs).astype(np.float64)
            u = p["u"].astype(np.float64)
            found = run(p, form)
            step = (np.maximum(u.max(-1), 0) - np.minimum(u.min(-1), 0)) / 255
            off = 0.51 * step[..., None] * np.abs(stored).sum(axis=1) + 1e-5 * (1 + np.abs(u) @ np.abs(stored).T)
            a, c, h, f = (p[n].astype(np.float64)[p[i]] for n, i in (("a", "t"), ("c", "t"), ("h", "image"), ("f", "image")))
            z = a * (u[:, 0] @ stored.T + h) + c
            slope, slack = a * reference.sigmoid(z) * f, np.abs(a * f * a) * off[:, 0] / 4  # sigmoid' <= 1/4
            product = u[:, 1:] @ stored.T
            bound = np.abs(slope)[:, None] * off[:, 1:] + slack[:, None] * (np.abs(product) + off[:, 1:]) + 1e-6
            assert (np.abs(found[:, 1:] - slope[:, None] * product) <= bound).all(), f"{form} N {outputs} K {inputs}"


@native
@pytest.mark.parametrize("form", packed.FORMATS)
def test_every_instruction_set_gives_the_same_bits(form):
    for outputs, inputs in SHAPES:
        for groups, tangents in ((1, 1), (3, 6), (9, 15), (2, 40)):
            p = problem(groups, tangents, outputs, inputs)
            first, *others = [run(p, form, isa) for isa in ISAS]
            for isa, other in zip(ISAS[1:], others, strict=True):
                assert same_bits(first, other), f"{ISAS[0]} and {isa} differ: {groups} x (1 + {tangents}) N {outputs} K {inputs}"


@native
@pytest.mark.parametrize("form", packed.FORMATS)
@pytest.mark.parametrize("groups, tangents", [(5, 3), (9, 15), (8, 7), (30, 6), (3, 63), (70, 1)])
def test_a_group_has_the_same_bits_in_any_company(form, groups, tangents):
    p = problem(groups, tangents, 255, 131)
    weights = layer.pack(p["weight"], form)
    together = run(p, weights=weights)
    order = np.random.default_rng(0).permutation(groups)
    for some in ([0], [groups // 2], [groups - 1], order):
        part = p | {n: np.ascontiguousarray(p[n][some]) for n in ("u", "t", "image")}
        assert same_bits(run(part, weights=weights), np.ascontiguousarray(together[some])), f"groups {some}"


def projected(p: dict, classes: int, form: str = "fp32", isa: str = "") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(with tangents [G, 1 + D, C], without [G, C], from the layer's own outputs [G, 1 + D, C])."""
    rng = np.random.default_rng(classes)
    u, rest = rows(p)
    weight4, bias4 = rng.standard_normal((classes, len(p["weight"])), np.float32), rng.standard_normal(classes)
    end = {"panels4": layer.pack_projection(weight4), "bias4": bias4}
    shape, weights = p["u"].shape, layer.pack(p["weight"], form)
    found = layer.run_projected(u, weights, **rest, **end, isa=isa, tangents=shape[1] - 1).reshape(*shape[:2], classes)
    plain = layer.run_projected(np.ascontiguousarray(p["u"][:, 0]), weights, **{n: p[n] for n in TABLES}, **end, isa=isa)
    wanted = run(p, form, isa).astype(np.float64) @ weight4.T.astype(np.float64)
    wanted[:, 0] += bias4
    return found, plain, wanted


@native
@pytest.mark.parametrize("form", packed.FORMATS)
@pytest.mark.parametrize("isa", ISAS)
def test_the_last_layer_in_the_epilogue(isa, form):
    """eps and its Jacobian leave the third layer; the Jacobian has no bias."""
    for classes in (*range(2, 16), 17):
        p = problem(1 + classes % 9, classes, *SHAPES[classes % len(SHAPES)])
        found, plain, wanted = projected(p, classes, form, isa)
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10 * max(1, np.abs(wanted).max()))
        assert same_bits(np.ascontiguousarray(found[:, 0]), plain), f"C {classes}"


@native
def test_a_group_is_not_cut_where_partial_sums_are_large():
    """Past the bound on partial sums fewer rows share a read of the weights, but never fewer than a group."""
    found, plain, wanted = projected(problem(5, 20, 3200, 7), 1000)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())
    assert same_bits(np.ascontiguousarray(found[:, 0]), plain)


def test_the_number_of_threads_changes_no_bit():
    if native_module.native is None:
        pytest.skip(f"fusedx._native is not built: {native_module.reason}")
    code = (
        "import hashlib, test_tangent_layer as t\n"
        "print([hashlib.sha256(t.projected(t.problem(g, d, 1027, 300), d, form)[0].tobytes()).hexdigest()"
        " for g, d in ((1, 7), (9, 15), (17, 4)) for form in t.packed.FORMATS])"
    )
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2] / "python"), str(Path(__file__).parent)])
    found = set()
    for threads in ("1", "2", "3"):
        env = {**os.environ, "PYTHONPATH": path, "FUSEDX_THREADS": threads}
        found.add(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert len(found) == 1, found


def slopes(z: np.ndarray, isa: str) -> np.ndarray:
    """sigmoid(z) as the layer has it: one input of weight 1, along a direction of 1."""
    u = np.stack([z, np.ones_like(z)], axis=1).reshape(-1, 1)
    one, zero = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    return layer.run(u, layer.pack(one), one, zero, np.zeros(len(u), np.int32), isa=isa, tangents=1)[1::2, 0]


@native
def test_the_slope_over_its_whole_range():
    z = np.concatenate([np.linspace(-110, 110, 8192), np.linspace(-1e-3, 1e-3, 512), np.linspace(19.9, 20.1, 512)]).astype(np.float32)
    outs = [slopes(z, isa) for isa in ISAS]
    wanted = reference.sigmoid(z.astype(np.float64))
    spacing = np.maximum(np.spacing(wanted.astype(np.float32)), np.float32(1e-37))  # below exp(-87) the slope is 0
    assert np.max(np.abs(outs[0] - wanted) / spacing) <= 2.5 and (outs[0][z > 20] == 1).all()
    assert all(same_bits(outs[0], other) for other in outs[1:])


@native
@pytest.mark.parametrize("isa", ISAS)
def test_saturated_linear_infinite_and_not_a_number(isa):
    z = np.array([-3e38, -1000, -87.5, 20.5, 1000, 3e38, np.inf, -np.inf, np.nan], np.float32)
    with np.errstate(invalid="ignore"):
        found = slopes(z, isa)
    assert (found[:3] == 0).all() and (found[3:7] == 1).all() and found[7] == 0 and np.isnan(found[8])


@native
@pytest.mark.parametrize("isa", ISAS)
def test_outputs_past_the_last_add_nothing_even_when_an_input_is_infinite(isa):
    p = {"u": np.array([[[1], [np.inf], [1]]], np.float32), "weight": np.ones((33, 1), np.float32), "a": np.ones((1, 33), np.float32),
         "c": np.zeros((1, 33), np.float32), "t": np.zeros(1, np.int32), "h": None, "f": None, "image": None}
    u, rest = rows(p)
    panels4 = layer.pack_projection(np.ones((2, 33), np.float32))
    eps = layer.run_projected(u, layer.pack(p["weight"]), **rest, panels4=panels4, bias4=np.zeros(2), isa=isa, tangents=2)
    assert np.isfinite(eps[[0, 2]]).all() and (eps[1] == np.inf).all()


@native
@pytest.mark.parametrize("tangents, groups, complaint", [
    (MOST_TANGENTS + 1, 1, "^tangents: expected 0 to 63, got 64"),
    (-1, 1, "^tangents: expected 0 to 63, got -1"),
    (4, 3, "^u: expected groups of 5 rows, got 8 rows"),
])
def test_refusals_name_the_argument(tangents, groups, complaint):
    u = np.ones((8 if tangents == 4 else max(1, 1 + tangents), 5), np.float32)
    tables = np.ones((1, 3), np.float32)
    with pytest.raises(ValueError, match=complaint):
        layer.run(u, layer.pack(np.ones((3, 5), np.float32)), tables, tables, np.zeros(len(u), np.int32), tangents=tangents)
