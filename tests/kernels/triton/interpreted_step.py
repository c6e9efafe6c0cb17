"""The step's Triton kernel under the interpreter, and a whole chain of launches; run by test_interpreted.py."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from fusedx.kernels.conditional_layer import reference as layer
from fusedx.kernels.conditional_layer import triton as layer_kernel
from fusedx.kernels.conditional_layer.variants import choose
from fusedx.kernels.step import reference, triton


@dataclass(frozen=True)
class Case:
    """Numpy arrays of one step; T = 5 steps, I = 3 images."""

    y: np.ndarray
    z: np.ndarray
    t: np.ndarray
    t_next: np.ndarray
    image: np.ndarray
    coefficients: np.ndarray
    bias4: np.ndarray
    partial: np.ndarray
    mean: np.ndarray
    weight_y: np.ndarray
    a: np.ndarray
    c: np.ndarray
    h: np.ndarray
    f: np.ndarray

    def update(self, family: str, *, mean: bool = True) -> triton.Update:
        k = self.coefficients if family == "posterior" else np.ascontiguousarray(self.coefficients[:, :4])
        centre = torch.from_numpy(self.mean) if family == "posterior" and mean else None
        return triton.Update(family, torch.from_numpy(k), torch.from_numpy(self.bias4), torch.from_numpy(self.partial), centre)

    def first(self, u1: torch.Tensor) -> triton.FirstLayer:
        return triton.FirstLayer(*(torch.from_numpy(x) for x in (self.weight_y, self.a, self.c, self.h, self.f)), u1)

    def index(self, *names: str) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(getattr(self, name)) for name in (*names, "image")}

    def expected_state(self, mode: str, family: str, *, mean: bool = True) -> np.ndarray:
        if mode == "start":
            return self.y
        eps = self.partial.astype(np.float64).sum(axis=1) + self.bias4
        k = [column[:, None] for column in self.coefficients[self.t].T]
        if family == "ddim":
            names = triton.COEFFICIENTS["ddim"]
            return reference.ddim_step(self.y, eps, **dict(zip(names, k[:4], strict=True)))
        p = self.mean[self.image] if mean else np.zeros_like(self.y)
        named = dict(zip(triton.COEFFICIENTS["posterior"], k, strict=True))
        if mode == "last":
            return reference.posterior_last_step(self.y, eps, p, q=named["q"], s=named["s"])
        return reference.posterior_step(self.y, eps, p, self.z, **named)

    def expected_layer(self, state: np.ndarray, dtype: type = np.float64) -> np.ndarray:
        y = state.astype(np.float32).astype(dtype)
        w, a, c, h, f = (x.astype(dtype) for x in (self.weight_y, self.a, self.c, self.h, self.f))
        return layer.conditional_layer(y, w, a, c, self.t_next, h=h, f=f, image=self.image)

    def run(self, mode: str, family: str, *, mean: bool = True, dtype=torch.float32) -> tuple[np.ndarray, np.ndarray | None]:
        """(state, layer 1's output or None), both from memory that held not-a-number."""
        y, y_out = torch.from_numpy(self.y.copy()), torch.full(self.y.shape, np.nan, dtype=torch.float64)
        u1 = torch.full((len(y), len(self.weight_y)), float("nan"), dtype=dtype)
        if mode == "start":
            triton.start(y, **self.index("t_next"), first=self.first(u1))
            return self.y, u1.numpy()
        update = self.update(family, mean=mean)
        if mode == "last":
            triton.last(y, **self.index("t"), update=update, y_out=y_out)
        else:
            z = torch.from_numpy(self.z) if family == "posterior" else None
            triton.middle(y, **self.index("t", "t_next"), update=update, first=self.first(u1), y_out=y_out, z=z)
        assert np.array_equal(y.numpy(), self.y, equal_nan=True)
        return y_out.numpy(), u1.numpy() if mode == "middle" else None


def make(rows: int, outputs: int, classes: int, tiles: int) -> Case:
    rng = np.random.default_rng([rows, outputs, classes, tiles])
    steps, images = 5, 3

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape)

    def index(end: int) -> np.ndarray:
        return rng.integers(0, end, rows).astype(np.int32)

    single = (x.astype(np.float32) for x in (normal(rows, tiles, classes) / tiles**0.5, normal(outputs, classes)))
    partial, weight_y = single
    a, c, h, f = (x.astype(np.float32) for x in (*normal(2, steps, outputs), *normal(2, images, outputs)))
    coefficients = rng.uniform(0.3, 1.0, (steps, 6))
    return Case(
        normal(rows, classes), normal(rows, classes), index(steps), index(steps), index(images), coefficients,
        normal(classes), partial, normal(images, classes), weight_y, a, c, h, f,
    )  # fmt: skip


MODES = [("start", "posterior"), ("middle", "posterior"), ("last", "posterior"), ("middle", "ddim"), ("last", "ddim")]
SHAPES = [(1, 63, 2, 1), (3, 257, 7, 96), (17, 100, 15, 5), (2, 512, 4, 129)]


@pytest.mark.parametrize(("mode", "family"), MODES)
@pytest.mark.parametrize(("rows", "outputs", "classes", "tiles"), SHAPES)
def test_against_the_reference(mode, family, rows, outputs, classes, tiles):
    case = make(rows, outputs, classes, tiles)
    y, u1 = case.run(mode, family)
    np.testing.assert_allclose(y, case.expected_state(mode, family), rtol=1e-13, atol=1e-13)
    if mode != "last":
        truth, plain = (case.expected_layer(y, t) for t in (np.float64, np.float32))
        np.testing.assert_allclose(u1, truth, atol=2 * np.abs(plain - truth).max() + 1e-6, rtol=0)


def test_a_single_tile_gives_the_bits_of_numpy():
    """With nothing to reduce, each float64 operation is the reference's own."""
    case = make(17, 63, 7, 1)
    for mode, family in MODES[1:]:
        assert np.array_equal(case.run(mode, family)[0], case.expected_state(mode, family))


def test_without_a_prior_mean_it_is_zero():
    case = make(3, 63, 7, 5)
    for mode in ("middle", "last"):
        y, _ = case.run(mode, "posterior", mean=False)
        np.testing.assert_allclose(y, case.expected_state(mode, "posterior", mean=False), rtol=1e-13, atol=1e-13)


def test_tiles_are_summed_by_halves():
    """The order that the kernel's docstring gives: the second half on the first until one is left, zeros filling up to 8."""
    case = make(2, 63, 3, 5)
    x = np.concatenate([case.partial.astype(np.float64), np.zeros((2, 3, 3))], axis=1)
    while x.shape[1] > 1:
        x = x[:, : x.shape[1] // 2] + x[:, x.shape[1] // 2 :]
    one_tile = replace(case, partial=case.partial[:, :1] * 0, bias4=case.bias4 * 0)
    for row in range(2):
        same = replace(one_tile, bias4=x[row, 0] + case.bias4).run("last", "ddim")[0]
        assert np.array_equal(case.run("last", "ddim")[0][row], same[row])


def test_layer_1_sees_the_state_in_single_precision():
    case = make(3, 63, 7, 1)
    rounded = replace(case, y=case.y.astype(np.float32).astype(np.float64))
    assert np.array_equal(case.run("start", "posterior")[1], rounded.run("start", "posterior")[1])


@pytest.mark.parametrize("many", [9, triton.FEW_ROWS + 1])
def test_a_row_does_not_see_the_others(many):
    case = make(many, 300, 7, 12)
    y, u1 = case.run("middle", "posterior")
    per_row = ("y", "z", "t", "t_next", "image", "partial")
    for row in (0, 4, 8):
        alone = replace(case, **{name: getattr(case, name)[row : row + 1].copy() for name in per_row})
        y_alone, u1_alone = alone.run("middle", "posterior")
        assert np.array_equal(y_alone[0], y[row]) and np.array_equal(u1_alone[0], u1[row])


def test_ddim_clamps_its_estimate_and_lets_a_not_a_number_pass():
    case = make(4, 63, 2, 1)
    case.y[:, 0] = [50.0, -50.0, np.nan, 0.0]
    y, u1 = case.run("middle", "ddim")
    assert np.array_equal(y, case.expected_state("middle", "ddim"), equal_nan=True)
    assert np.isnan(y[2, 0]) and np.isnan(u1[2]).all() and np.isfinite(u1[[0, 1, 3]]).all()


def test_written_dtype_strides_and_expanded_steps():
    case = make(3, 100, 7, 5)
    _, u1 = case.run("middle", "posterior")
    half = case.run("middle", "posterior", dtype=torch.float16)[1]
    assert np.array_equal(half, u1.astype(np.float16))

    wide = torch.full((3, 130), 7.0)
    columns = torch.from_numpy(np.ascontiguousarray(case.weight_y.T)).T  # classes apart, outputs side by side
    first = replace(case.first(wide[:, :100]), weight_y=columns)
    step = torch.tensor([2], dtype=torch.int32).expand(3)
    image, y = torch.from_numpy(case.image), torch.from_numpy(case.y)
    triton.start(y, t_next=step, image=image, first=first)
    same = replace(case, t_next=np.full(3, 2, np.int32)).run("start", "posterior")[1]
    assert np.array_equal(wide[:, :100].numpy(), same) and (wide[:, 100:] == 7).all()


def test_arguments_that_do_not_fit_are_named():
    case = make(3, 63, 7, 5)
    y, other = torch.from_numpy(case.y), torch.empty(3, 7, dtype=torch.float64)
    z, u1 = torch.from_numpy(case.z), torch.empty(3, 63)
    arguments = {**case.index("t", "t_next"), "update": case.update("posterior"), "first": case.first(u1), "y_out": other, "z": z}
    wrong = [
        ("t: expected int32", {"t": arguments["t"].long()}),
        ("image: expected int32", {"image": arguments["image"][:2]}),
        ("y_out: must not be the state", {"y_out": y}),
        ("z: a posterior step needs noise", {"z": None}),
        ("z: a ddim step takes no noise", {"update": case.update("ddim")}),
        ("family: expected one of posterior, ddim", {"update": replace(case.update("posterior"), family="flow")}),
        ("coefficients: expected float64", {"update": replace(case.update("ddim"), family="posterior")}),
        ("mean: a ddim chain has none", {"z": None, "update": replace(case.update("ddim"), mean=torch.from_numpy(case.mean))}),
        ("u1: expected float32", {"first": case.first(torch.empty(3, 64))}),
        ("partial: expected float32", {"update": replace(case.update("posterior"), partial=torch.empty(3, 5, 6))}),
    ]
    for message, change in wrong:
        with pytest.raises(ValueError, match=message):
            triton.middle(y, **(arguments | change))
    with pytest.raises(ValueError, match="y: expected float64"):
        triton.start(y.float(), **case.index("t_next"), first=case.first(u1))


def test_a_chain_of_launches_is_the_reference_chain():
    """Three steps of DiffMIC from start to end, as an engine launches them, each layer's output feeding the next."""
    rng = np.random.default_rng(5)
    rows, width, classes, steps = 5, 70, 4, 3
    case = make(rows, width, classes, 1)
    w2, w3 = (rng.standard_normal((2, width, width)) / width**0.5).astype(np.float32)
    a, c = rng.standard_normal((2, steps, width)).astype(np.float32)
    w4 = (rng.standard_normal((classes, width)) / width**0.5).astype(np.float32)
    noise = rng.standard_normal((steps, rows, classes))
    variant = choose(80, "fp32", rows)

    tensors = [torch.from_numpy(x) for x in (w2, w3, a, c, w4)]
    u1, u2 = torch.empty(rows, width), torch.empty(rows, width)
    partial = torch.empty(rows, variant.partial_tiles(width), classes)
    update, first = replace(case.update("posterior"), partial=partial), case.first(u1)
    image, states = torch.from_numpy(case.image), torch.empty(steps + 1, rows, classes, dtype=torch.float64)
    states[0] = torch.from_numpy(case.mean[case.image] + noise[0])
    step = torch.arange(steps, dtype=torch.int32)[:, None].expand(steps, rows)
    triton.start(states[0], t_next=step[steps - 1], image=image, first=first)
    for i, t in enumerate(range(steps - 1, -1, -1)):
        layer_kernel.conditional_layer(u1, tensors[0], *tensors[2:4], step[t], out=u2, variant=variant)
        layer_kernel.projected_layer(u2, tensors[1], *tensors[2:4], step[t], tensors[4], partial=partial, variant=variant)
        if t:
            z, before = torch.from_numpy(noise[i + 1]), states[i]
            triton.middle(before, t=step[t], t_next=step[t - 1], image=image, update=update, first=first, y_out=states[i + 1], z=z)
        else:
            triton.last(states[i], t=step[0], image=image, update=update, y_out=states[i + 1])

    y = case.mean[case.image] + noise[0]
    for i, t in enumerate(range(steps - 1, -1, -1)):
        now = np.full(rows, t, np.int32)
        u = replace(case, t_next=now).expected_layer(y)
        u = layer.conditional_layer(u, w2.astype(np.float64), a.astype(np.float64), c.astype(np.float64), now)
        eps = layer.projected_layer(u, w3.astype(np.float64), a.astype(np.float64), c.astype(np.float64), now, w4, case.bias4)
        k = dict(zip(triton.COEFFICIENTS["posterior"], case.coefficients[t], strict=True))
        p = case.mean[case.image]
        if t:
            y = reference.posterior_step(y, eps, p, noise[i + 1], **k)
        else:
            y = reference.posterior_last_step(y, eps, p, q=k["q"], s=k["s"])
        np.testing.assert_allclose(states[i + 1].numpy(), y, rtol=1e-5, atol=1e-5)
