"""The layer: near the reference, and every row the same bits however it is computed."""

import numpy as np
import pytest

from bits import in_any_company, same_bits
from fusedx.kernels import conditional_layer as layer
from fusedx.kernels import native_module
from fusedx.kernels.conditional_layer import reference

native = pytest.mark.skipif(native_module.native is None, reason=f"fusedx._native is not built: {native_module.reason}")
ISAS = native_module.native.isas() if native_module.native else ()

ROWS = [1, 3, 8, 9, 17, 63]
WIDTHS = [1, 2, 31, 33, 63, 255, 257, 2163]
PAIRS = [(n, WIDTHS[(i * 3 + 5) % len(WIDTHS)]) for i, n in enumerate(WIDTHS)] + [(2163, 2163), (64, 512), (32, 256)]


def problem(rows: int, outputs: int, inputs: int, extras: str = "hf", seed: int = 0) -> dict:
    """Arguments in float32, every row with a time of its own."""
    rng = np.random.default_rng([seed, rows, outputs, inputs])
    steps, images = rows + 2, 4

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    p = {
        "u": normal(rows, inputs), "weight": normal(outputs, inputs) / np.float32(inputs**0.5),
        "a": normal(steps, outputs), "c": normal(steps, outputs), "t": rng.permutation(steps)[:rows].astype(np.int32),
        "h": normal(images, outputs) if "h" in extras else None, "f": normal(images, outputs) if "f" in extras else None,
        "image": rng.integers(0, images, rows).astype(np.int32) if extras else None,
    }
    return p


def run(p: dict, isa: str = "", **other) -> np.ndarray:
    p = {**p, **other}
    weights = p.pop("weights", None)
    weight = p.pop("weight")
    return layer.run(p.pop("u"), layer.pack(weight) if weights is None else weights, **p, isa=isa)


def as_double(p: dict) -> dict:
    return {k: v.astype(np.float64) if v is not None and v.dtype == np.float32 else v for k, v in p.items()}


def test_reference_against_plain_loops():
    p = as_double(problem(3, 5, 7))
    out = layer.conditional_layer(**p)
    for r in range(3):
        for n in range(5):
            t, i = p["t"][r], p["image"][r]
            x = p["a"][t, n] * (sum(p["weight"][n, k] * p["u"][r, k] for k in range(7)) + p["h"][i, n]) + p["c"][t, n]
            assert out[r, n] == pytest.approx(np.log1p(np.exp(x)) * p["f"][i, n], rel=1e-12)


def test_reference_softplus_is_pytorchs():
    torch = pytest.importorskip("torch")
    x = np.concatenate([np.linspace(-800, 800, 4001), np.linspace(19.9, 20.1, 401), [0.0, -0.0, np.inf, -np.inf]])
    expected = torch.nn.functional.softplus(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(reference.softplus(x), expected, rtol=1e-15, atol=1e-300)


@native
@pytest.mark.parametrize("extras", ["", "h", "f", "hf"])
@pytest.mark.parametrize("rows", ROWS)
def test_error_at_most_twice_that_of_plain_float32(rows, extras):
    for outputs, inputs in PAIRS[:-3] if rows > 9 else PAIRS:
        p = problem(rows, outputs, inputs, extras)
        exact = layer.conditional_layer(**as_double(p))
        plain = np.abs(layer.conditional_layer(**p) - exact).max()
        error = np.abs(run(p) - exact)
        worst = np.unravel_index(error.argmax(), error.shape)
        floor = 2e-6 * max(1.0, np.abs(exact).max())
        where = f"rows {rows} N {outputs} K {inputs} {extras!r} at (row, output) {worst}"
        assert error.max() <= 2 * plain + floor, f"{where}: error {error.max():.2e}, plain float32 {plain:.2e}"


@native
@pytest.mark.parametrize("outputs, inputs", PAIRS)
def test_every_instruction_set_gives_the_same_bits(outputs, inputs):
    for rows in (1, 3, 9, 17):
        p = problem(rows, outputs, inputs)
        first, *others = [run(p, isa) for isa in ISAS]
        for isa, other in zip(ISAS[1:], others, strict=True):
            assert same_bits(first, other), f"{ISAS[0]} and {isa} differ: rows {rows} N {outputs} K {inputs}"


@native
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [*ROWS, 64, 65, 130])
def test_a_row_has_the_same_bits_in_any_company(isa, rows):
    p = problem(rows, 255, 600)
    p["weights"] = layer.pack(p["weight"])
    in_any_company(lambda index: run(p, isa, **{name: p[name][index] for name in ("u", "t", "image")}), rows)


@native
def test_time_and_image_belong_to_their_row():
    p = problem(5, 40, 33)
    moved = run(p, t=p["t"][::-1].copy())
    exact = layer.conditional_layer(**{**as_double(p), "t": p["t"][::-1]})
    np.testing.assert_allclose(moved, exact, atol=1e-5)


@native
def test_softplus_over_its_whole_range():
    """One input of weight 1, so that out = softplus(u)."""
    x = np.concatenate([np.linspace(-110, 110, 8192), np.linspace(-1e-3, 1e-3, 512), np.linspace(19.9, 20.1, 512), [0.0, 3e38, -3e38]])
    x = x.astype(np.float32)[:, None]
    one, zero = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    panels = layer.pack(one)
    outs = [layer.run(x, panels, one, zero, np.zeros(len(x), np.int32), isa=isa) for isa in ISAS]
    exact = reference.softplus(x.astype(np.float64))
    spacing = np.maximum(np.spacing(exact.astype(np.float32)), np.float32(1e-37))  # below exp(-87) the result is 0
    assert np.max(np.abs(outs[0] - exact) / spacing) <= 1.5
    assert all(same_bits(outs[0], other) for other in outs[1:])


@native
@pytest.mark.parametrize("isa", ISAS)
def test_infinities_and_not_a_number(isa):
    u = np.array([[np.nan], [np.inf], [-np.inf]], np.float32)
    one, zero = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    with np.errstate(invalid="ignore"):
        out = layer.run(u, layer.pack(one), one, zero, np.zeros(3, np.int32), isa=isa)[:, 0]
    assert np.isnan(out[0]) and out[1] == np.inf and out[2] == 0


@native
@pytest.mark.parametrize("outputs, inputs", [(1, 1), (33, 2), (64, 257)])
def test_pack_layout(outputs, inputs):
    weight = np.random.default_rng(0).standard_normal((outputs, inputs), np.float32)
    panels = layer.pack(weight)._panels()
    flat = panels.transpose(0, 2, 1).reshape(-1, inputs)
    assert panels.shape == (-(-outputs // 32), inputs, 32) and panels.dtype == np.float32
    assert np.array_equal(flat[:outputs], weight) and not flat[outputs:].any()


@native
def test_pack_reads_a_read_only_memory_map(tmp_path):
    weight = np.random.default_rng(0).standard_normal((70, 65), np.float32)
    weight.tofile(tmp_path / "w")
    mapped = np.memmap(tmp_path / "w", np.float32, "r", shape=weight.shape)
    assert np.array_equal(layer.pack(mapped)._panels(), layer.pack(weight)._panels())


@native
def test_rows_may_lie_apart():
    p = problem(9, 33, 63)
    expected = run(p)
    wide = {name: np.pad(p[name], ((0, 0), (0, 5)))[:, : p[name].shape[1]] for name in ("u", "weight", "a", "c", "h", "f")}
    out = np.zeros((9, 50), np.float32)
    assert same_bits(np.ascontiguousarray(run({**p, **wide}, out=out[:, :33])), expected)
    assert not out[:, 33:].any()


@native
@pytest.mark.parametrize("name, change", [
    ("u", lambda p: p["u"].astype(np.float64)),
    ("u", lambda p: p["u"][0]),
    ("u", lambda p: p["u"][:0]),
    ("u", lambda p: np.asfortranarray(p["u"])),
    ("u", lambda p: p["u"][:, 1:]),
    ("a", lambda p: p["a"][:, 1:]),
    ("c", lambda p: p["c"][1:]),
    ("t", lambda p: p["t"].astype(np.int64)),
    ("t", lambda p: p["t"][1:]),
    ("t", lambda p: np.full_like(p["t"], 99)),
    ("t", lambda p: np.full_like(p["t"], -1)),
    ("h", lambda p: p["h"][:, 1:]),
    ("f", lambda p: p["f"][1:]),
    ("image", lambda p: None),
    ("image", lambda p: np.full_like(p["image"], 4)),
    ("out", lambda p: np.empty((2, 2), np.float32)),
])
def test_refusals_name_the_argument(name, change):
    p = problem(9, 70, 33)
    with pytest.raises(ValueError, match=f"^{name}: "):
        run(p, **{name: change(p)})


@native
def test_refuses_a_read_only_result():
    p = problem(2, 3, 4)
    out = np.empty((2, 3), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="^out: expected a writable array"):
        run(p, out=out)


@native
@pytest.mark.parametrize("weight", [
    np.zeros((3, 4)), np.zeros(3, np.float32), np.zeros((4, 3), np.float32).T, np.zeros((0, 3), np.float32),
])
def test_pack_refuses(weight):
    with pytest.raises(ValueError, match="^weight: "):
        layer.pack(weight)


@native
def test_an_unknown_instruction_set_lists_the_known():
    with pytest.raises(ValueError, match="isa=sse9 is not available.*available: .*baseline"):
        run(problem(1, 2, 3), "sse9")
