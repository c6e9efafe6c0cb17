"""The Triton operations on a real GPU: against the float64 references, and bitwise independence of the rows beside."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

DTYPES = ("fp32", "bf16", "fp16", "fp8")
MOST = 300
#: One row, the edges of every form's tile, and numbers that no tile divides.
BATCHES = (1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, MOST)


@pytest.fixture(scope="module")
def k() -> SimpleNamespace:
    """torch, the kernels, the device's compute capability, and the cases: imported here so that collecting costs nothing."""
    pytest.importorskip("triton", reason="needs triton")
    import torch

    import triton_cases
    from fusedx.kernels.conditional_layer import variants
    from fusedx.kernels.prior_tail.triton import prior_tail
    from fusedx.kernels.step import triton as step

    major, minor = torch.cuda.get_device_capability()
    return SimpleNamespace(
        torch=torch, cases=triton_cases, cc=10 * major + minor, variants=variants, step=step, prior_tail=prior_tail
    )


def both(k, case, dtype: str, rows=slice(None), *, invariant: bool = True) -> tuple:
    """(output of the layer, partial sums) for some of the rows, by the forms chosen for their number."""
    variant = k.variants.choose(k.cc, dtype, len(case.t[rows]), invariant=invariant, classes=len(case.weight4))
    return case.run(variant, rows=rows, conditioned=True), case.run_projected(variant, rows=rows)


def floor(dtype: str, inputs: int) -> float:
    """Relative error that is allowed beside the plain computation's: a tensor core truncates its sum, once in 16 products."""
    return 1e-6 if dtype == "fp32" else 1e-6 + 2 * inputs / 16 * 2.0**-23


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 17, 130])
@pytest.mark.parametrize(("outputs", "inputs", "classes"), [(63, 100, 2), (257, 63, 15), (512, 1024, 7)])
@pytest.mark.parametrize("invariant", [True, False])
def test_layers_against_the_reference(k, dtype, rows, outputs, inputs, classes, invariant):
    case = k.cases.make_layer(rows, outputs, inputs, dtype, classes=classes, device="cuda")
    out, partial = both(k, case, dtype, invariant=invariant)
    truth, plain = (case.expected(t, conditioned=True) for t in (np.float64, np.float32))
    k.cases.assert_near(out, truth, plain, k.cases.UNIT[dtype], floor(dtype, inputs))
    tile = k.variants.choose(k.cc, dtype, rows, invariant=invariant).partial_out
    truth, plain = (case.expected_tiles(tile, t) for t in (np.float64, np.float32))
    k.cases.assert_near(partial, truth, plain, k.cases.UNIT["fp32"], floor(dtype, inputs))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outputs", "inputs"), [(257, 100), (1024, 2048)])
def test_a_row_has_the_same_bits_in_any_batch(k, dtype, outputs, inputs):
    case = k.cases.make_layer(MOST, outputs, inputs, dtype, device="cuda")
    alone = [both(k, case, dtype, slice(r, r + 1)) for r in range(MOST)]
    out, partial = (k.torch.cat(parts) for parts in zip(*alone, strict=True))
    assert out.isfinite().all() and partial.isfinite().all()
    rng = np.random.default_rng(0)
    for count in BATCHES:
        rows = k.torch.from_numpy(rng.permutation(MOST)[:count]).cuda()
        got_out, got_partial = both(k, case, dtype, rows)
        assert k.torch.equal(got_out, out[rows]), f"layer, {count} rows: {where(got_out, out[rows])}"
        assert k.torch.equal(got_partial, partial[rows]), f"projected layer, {count} rows: {where(got_partial, partial[rows])}"


def where(got, expected) -> str:
    at = (got != expected).nonzero()
    return f"{len(at)} differ, first at {at[0].tolist()}: {got[tuple(at[0])].item()} against {expected[tuple(at[0])].item()}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_comparison_sees_one_unit_in_one_input(k, dtype):
    """The negative control of the test above: the smallest change of one number changes its row, and no other."""
    case = k.cases.make_layer(MOST, 1024, 256, dtype, device="cuda")
    before = both(k, case, dtype)
    bits = case.u.view(k.torch.int32 if dtype == "fp32" else k.torch.int16)
    bits[77, 5] += 1
    for was, now in zip(before, both(k, case, dtype), strict=True):
        changed = (was != now).flatten(1).any(dim=1)
        assert changed[77] and changed.sum() == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_not_a_number_stays_in_its_row(k, dtype):
    """Compiled maxima drop a not-a-number, which interpreted ones do not."""
    case = k.cases.make_layer(130, 512, 257, dtype, device="cuda")
    clean = both(k, case, dtype)
    case.u[41, 256] = float("nan")
    for was, now in zip(clean, both(k, case, dtype), strict=True):
        assert now[41].isnan().all()
        now[41] = was[41]
        assert k.torch.equal(was, now)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 17, 130])
def test_one_step_for_all_rows_is_the_same_arithmetic(k, dtype, rows):
    case = k.cases.make_layer(rows, 512, 257, dtype, device="cuda")
    variant = k.variants.choose(k.cc, dtype, rows)
    one = k.torch.tensor([3], dtype=k.torch.int32, device="cuda")
    from fusedx.kernels.conditional_layer.triton import conditional_layer, projected_layer

    results = []
    for t in (one.expand(rows), one.repeat(rows)):
        arguments = (case.u, case.weight, case.a, case.c, t)
        out = k.torch.empty(rows, 512, dtype=case.u.dtype, device="cuda")
        partial = k.torch.empty(rows, variant.partial_tiles(512), 7, device="cuda")
        conditional_layer(*arguments, out=out, variant=variant)
        projected_layer(*arguments, case.weight4, partial=partial, variant=variant)
        results.append((out, partial))
    assert all(k.torch.equal(x, y) for x, y in zip(*results, strict=True))


def test_full_width(k):
    """The published width, where every tile divides and the grid is many waves."""
    for dtype in DTYPES:
        case = k.cases.make_layer(130, 6144, 6144, dtype, device="cuda")
        variant = k.variants.choose(k.cc, dtype, 130)
        truth, plain = (case.expected_tiles(variant.partial_out, t) for t in (np.float64, np.float32))
        k.cases.assert_near(case.run_projected(variant), truth, plain, k.cases.UNIT["fp32"], floor(dtype, 6144))


def test_softplus_is_right_to_rounding(k):
    """Through a layer of one input: a = 1, c = x."""
    x = np.linspace(-40, 40, 1 << 14, dtype=np.float32)
    torch, n = k.torch, x.size
    c = torch.from_numpy(x).cuda()[None]
    out = torch.empty(1, n, device="cuda")
    from fusedx.kernels.conditional_layer.triton import conditional_layer

    step = torch.zeros(1, dtype=torch.int32, device="cuda")
    zero, ones = torch.zeros(1, 1, device="cuda"), torch.ones(n, 1, device="cuda")
    conditional_layer(zero, ones, torch.ones_like(c), c, step, out=out, variant=k.variants.choose(k.cc, "fp32", 1))
    truth = np.logaddexp(0, x.astype(np.float64))
    units = np.abs(out[0].cpu().numpy() - truth) / np.spacing(truth.astype(np.float32))
    assert units.max() <= 4, f"{units.max()} units at {x[units.argmax()]}"


def step_tensors(k, rows: int, outputs: int = 1000, classes: int = 7, tiles: int = 96) -> dict:
    """Random arguments of a posterior step in the middle of a chain, and the state and layer that it must give."""
    rng = np.random.default_rng(rows)

    def cuda(x: np.ndarray):
        return k.torch.from_numpy(np.ascontiguousarray(x)).cuda()

    def single(*shape: int):
        return cuda(rng.standard_normal(shape, np.float32))

    def double(*shape: int):
        return cuda(rng.standard_normal(shape))

    def index(end: int):
        return cuda(rng.integers(0, end, rows).astype(np.int32))

    return {
        "y": double(rows, classes), "z": double(rows, classes), "t": index(5), "t_next": index(5), "image": index(3),
        "partial": single(rows, tiles, classes), "bias4": double(classes), "mean": double(3, classes),
        "coefficients": cuda(rng.uniform(0.3, 1, (5, 6))), "weight_y": single(outputs, classes),
        "a": single(5, outputs), "c": single(5, outputs), "h": single(3, outputs), "f": single(3, outputs),
    }  # fmt: skip


def run_step(k, x: dict, rows=slice(None)) -> tuple:
    """(state, layer 1's output) of a middle posterior step for some of the rows."""
    y, z, t, t_next, image, partial = (x[name][rows].contiguous() for name in ("y", "z", "t", "t_next", "image", "partial"))
    u1 = k.torch.full((len(y), len(x["weight_y"])), float("nan"), device="cuda")
    y_out = k.torch.full_like(y, float("nan"))
    update = k.step.Update("posterior", x["coefficients"], x["bias4"], partial, x["mean"])
    first = k.step.FirstLayer(x["weight_y"], x["a"], x["c"], x["h"], x["f"], u1)
    k.step.middle(y, t=t, t_next=t_next, image=image, update=update, first=first, y_out=y_out, z=z)
    return y_out, u1


def test_step_against_the_reference_and_alone(k):
    from fusedx.kernels.conditional_layer import reference as layer
    from fusedx.kernels.step import posterior_step

    x = step_tensors(k, MOST)
    y, u1 = run_step(k, x)
    n = {name: value.cpu().numpy() for name, value in x.items()}
    eps = n["partial"].astype(np.float64).sum(axis=1) + n["bias4"]
    named = dict(zip(k.step.COEFFICIENTS["posterior"], (c[:, None] for c in n["coefficients"][n["t"]].T), strict=True))
    expected = posterior_step(n["y"], eps, n["mean"][n["image"]], n["z"], **named)
    np.testing.assert_allclose(y.cpu().numpy(), expected, rtol=1e-12, atol=1e-12)
    state = y.cpu().numpy().astype(np.float32)
    results = []
    for dtype in (np.float64, np.float32):
        w, a, c, h, f = (n[name].astype(dtype) for name in ("weight_y", "a", "c", "h", "f"))
        results.append(layer.conditional_layer(state.astype(dtype), w, a, c, n["t_next"], h=h, f=f, image=n["image"]))
    k.cases.assert_near(u1, *results, k.cases.UNIT["fp32"])
    for row in range(0, MOST, 13):
        alone = run_step(k, x, slice(row, row + 1))
        assert k.torch.equal(alone[0][0], y[row]) and k.torch.equal(alone[1][0], u1[row])


def test_prior_tail_has_the_bits_of_the_reference(k):
    from fusedx.kernels.prior_tail import gather_tiles, region_scores, select_regions

    rng = np.random.default_rng(0)
    saliency = np.concatenate([
        rng.standard_normal((60, 7, 7, 7)),
        rng.integers(0, 3, (60, 7, 7, 7)) / 3 + rng.choice([0, 1e-7], (60, 7, 7, 7)),  # ties and near ties
        np.full((3, 7, 7, 7), 2.0),
    ]).astype(np.float32)  # fmt: skip
    saliency[5, 2, 3, 3] = np.nan
    image = rng.standard_normal((len(saliency), 3, 224, 224), np.float32)
    torch = k.torch
    cells = torch.full((len(saliency), 6), -1, dtype=torch.int64, device="cuda")
    tiles = torch.full((len(saliency), 6, 32, 32), float("nan"), device="cuda")
    k.prior_tail(torch.from_numpy(saliency).cuda(), torch.from_numpy(image).cuda(), cells=cells, tiles=tiles)
    with np.errstate(invalid="ignore"):
        expected = select_regions(region_scores(saliency))
    assert np.array_equal(cells.cpu().numpy(), expected)
    assert np.array_equal(tiles.cpu().numpy(), gather_tiles(image, expected))


def test_a_captured_graph_replays_the_same_bits(k):
    torch = k.torch
    case, variant = k.cases.make_layer(17, 512, 257, "bf16", device="cuda"), k.variants.choose(k.cc, "bf16", 17)
    eager = case.run(variant)  # compiles, which a capture must not
    out, graph = torch.zeros_like(eager), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        case.run(variant, out=out)
    case.u.neg_()
    graph.replay()
    assert torch.equal(out, case.run(variant)) and not torch.equal(out, eager)


def test_tensors_on_two_devices_are_refused(k):
    case = k.cases.make_layer(3, 63, 100, device="cuda")
    with pytest.raises(ValueError, match="out: expected a tensor on cuda:0, as the first argument, got one on cpu"):
        case.run(k.variants.choose(k.cc, "fp32", 3), out=k.torch.empty(3, 63))
