"""The layer with the last layer in its epilogue: near the reference, and every row the same bits however it is computed."""

from pathlib import Path

import numpy as np
import pytest

from bits import in_any_company, on_any_number_of_threads
from fusedx.kernels import conditional_layer as layer
from fusedx.kernels import native_module

pytestmark = pytest.mark.skipif(native_module.native is None, reason=f"fusedx._native is not built: {native_module.reason}")
ISAS = native_module.native.isas() if native_module.native else ()

# (N, K, C)
SHAPES = [(1, 1, 1), (2, 255, 2), (31, 7, 3), (32, 64, 5), (33, 31, 8), (63, 2, 9),
          (255, 63, 15), (257, 600, 16), (2163, 33, 14), (70, 40, 1000)]


def problem(rows: int, outputs: int, inputs: int, classes: int, extras: str = "hf") -> dict:
    """Arguments in float32, every row with a time of its own."""
    rng = np.random.default_rng([rows, outputs, inputs, classes])
    steps, images = rows + 2, 4

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    return {
        "u": normal(rows, inputs), "weight": normal(outputs, inputs) / np.float32(inputs**0.5),
        "a": normal(steps, outputs), "c": normal(steps, outputs), "t": rng.permutation(steps)[:rows].astype(np.int32),
        "weight4": normal(classes, outputs), "bias4": rng.standard_normal(classes),
        "h": normal(images, outputs) if "h" in extras else None, "f": normal(images, outputs) if "f" in extras else None,
        "image": rng.integers(0, images, rows).astype(np.int32) if extras else None,
    }


def run(p: dict, isa: str = "", **other) -> np.ndarray:
    p = dict(p)
    weights, panels4 = layer.pack(p.pop("weight")), layer.pack_projection(p.pop("weight4"))
    p = {"weights": weights, "panels4": panels4, **p, **other}
    return layer.run_projected(**p, isa=isa)


def only(p: dict, rows) -> dict:
    return {name: p[name][rows] for name in ("u", "t", "image")}


def in_panel_order(out: np.ndarray, weight4: np.ndarray, bias4: np.ndarray) -> np.ndarray:
    """The order of panels.cpp: four chains a panel, joined in pairs; panels in ascending order; the bias last."""
    short = -out.shape[1] % 32
    x, w = (np.pad(m.astype(np.float64), ((0, 0), (0, short))).reshape(len(m), -1, 8, 4) for m in (out, weight4))
    total = None
    for panel in range(x.shape[1]):
        chains = np.zeros((len(x), len(w), 4))
        for i in range(8):
            chains += x[:, None, panel, i] * w[None, :, panel, i]
        part = (chains[..., 0] + chains[..., 1]) + (chains[..., 2] + chains[..., 3])
        total = part if total is None else total + part
    return total + bias4


@pytest.mark.parametrize("extras", ["", "h", "f", "hf"])
@pytest.mark.parametrize("rows", [1, 3, 17, 63])
def test_error_at_most_twice_that_of_plain_float32(rows, extras):
    for outputs, inputs, classes in SHAPES:
        p = problem(rows, outputs, inputs, classes, extras)
        exact = layer.projected_layer(**{k: v.astype(np.float64) if v is not None and v.dtype == np.float32 else v for k, v in p.items()})
        plain = np.abs(layer.projected_layer(**p) - exact).max()
        error = np.abs(run(p) - exact)
        worst = np.unravel_index(error.argmax(), error.shape)
        floor = 2e-6 * max(1.0, np.abs(exact).max())
        where = f"rows {rows} N {outputs} K {inputs} C {classes} {extras!r} at (row, class) {worst}"
        assert error.max() <= 2 * plain + floor, f"{where}: error {error.max():.2e}, plain float32 {plain:.2e}"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("outputs, inputs, classes", SHAPES)
def test_bits_are_those_of_the_layer_and_the_stated_order(isa, outputs, inputs, classes):
    """The same bits on every instruction set follows, the layer's own being the same."""
    for rows in (1, 3, 9, 17):
        p = problem(rows, outputs, inputs, classes)
        middle = layer.run(p["u"], layer.pack(p["weight"]), p["a"], p["c"], p["t"], h=p["h"], f=p["f"], image=p["image"])
        got, expected = run(p, isa), in_panel_order(middle, p["weight4"], p["bias4"])
        assert got.dtype == np.float64 and got.tobytes() == expected.tobytes(), f"rows {rows}"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows, outputs, classes", [(2, 255, 6), (63, 255, 6), (64, 255, 6), (65, 255, 6), (130, 255, 6), (70, 3200, 1000)])
def test_a_row_has_the_same_bits_in_any_company(isa, rows, outputs, classes):
    """The last shape is past the bound on partial sums, where fewer rows share a read of the weights."""
    p = problem(rows, outputs, 300, classes)
    in_any_company(lambda index: run(p, isa, **only(p, index)), rows)


def test_the_number_of_threads_changes_no_bit():
    code = (
        "import hashlib, test_projected_layer as t\n"
        "shapes = ((1, 1027, 700, 5), (17, 1027, 700, 15), (40, 500, 300, 1000))\n"
        "print([hashlib.sha256(t.run(t.problem(*s)).tobytes()).hexdigest() for s in shapes])"
    )
    on_any_number_of_threads(code, Path(__file__).parent, "1", "2", "3", "7")


@pytest.mark.parametrize("isa", ISAS)
def test_outputs_past_the_last_add_nothing_even_when_an_input_is_infinite(isa):
    """With an infinite input the padded outputs are 0 * inf, not a number; the last panel's real outputs are still exact."""
    one, zero = np.ones((1, 33), np.float32), np.zeros((1, 33), np.float32)
    u = np.array([[np.inf], [-np.inf], [np.nan]], np.float32)
    panels, panels4 = layer.pack(np.ones((33, 1), np.float32)), layer.pack_projection(np.ones((2, 33), np.float32))
    with np.errstate(invalid="ignore"):
        eps = layer.run_projected(u, panels, one, zero, np.zeros(3, np.int32), panels4, np.array([0.0, 1.0]), isa=isa)
    assert np.array_equal(eps, [[np.inf, np.inf], [0, 1], [np.nan, np.nan]], equal_nan=True)


@pytest.mark.parametrize("classes, outputs", [(1, 1), (8, 32), (9, 33)])
def test_packed_layout(classes, outputs):
    weight4 = np.random.default_rng(0).standard_normal((classes, outputs), np.float32)
    panels4 = layer.pack_projection(weight4)
    flat = panels4.swapaxes(1, 2).reshape(panels4.shape[0] * 32, -1)
    assert panels4.shape == (-(-outputs // 32), -(-classes // 8), 32, 8) and panels4.dtype == np.float32
    assert np.array_equal(flat[:outputs, :classes], weight4.T)
    assert not flat[outputs:].any() and not flat[:, classes:].any()


@pytest.mark.parametrize("name, change", [
    ("u", lambda p: p["u"].astype(np.float64)),
    ("t", lambda p: np.full_like(p["t"], 99)),
    ("image", lambda p: None),
    ("panels4", lambda p: layer.pack_projection(p["weight4"])[:-1]),
    ("panels4", lambda p: layer.pack_projection(p["weight4"]).astype(np.float64)),
    ("panels4", lambda p: layer.pack_projection(np.ones((9, 70), np.float32))),
    ("panels4", lambda p: p["weight4"]),
    ("bias4", lambda p: p["bias4"].astype(np.float32)),
    ("bias4", lambda p: p["bias4"][:0]),
])
def test_refusals_name_the_argument(name, change):
    p = problem(9, 70, 33, 5)
    with pytest.raises(ValueError, match=f"^{name}: .*expected"):
        run(p, **{name: change(p)})


@pytest.mark.parametrize("weight4", [np.zeros((3, 4)), np.zeros(3, np.float32), np.zeros((0, 3), np.float32), [[1.0]], None])
def test_pack_projection_refuses(weight4):
    with pytest.raises(ValueError, match="^weight4: expected"):
        layer.pack_projection(weight4)


def test_an_unknown_instruction_set_lists_the_known():
    with pytest.raises(ValueError, match="isa=sse9 is not available.*available: .*baseline"):
        run(problem(1, 2, 3, 4), "sse9")
