"""Chains to run: random networks of realistic scale as the engine's tables, as the kernel's inputs, and the float64 answer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from fusedx.engine.backends.python import PythonDenoiser
from fusedx.engine.chain_runner import HostChains
from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.schedule import Schedule, ddim_coefficients, posterior_coefficients
from fusedx.kernels.chain import ChainPlan, pack_weight, pad, plan
from fusedx.kernels.chain.reference import ChainInputs, rounded, values
from fusedx.kernels.conditional_layer.formats import E4M3_TO_FP16
from fusedx.kernels.step import COEFFICIENTS
from fusedx.kernels.target import TARGETS

DTYPES = ("fp32", "bf16", "fp16", "fp8")


@dataclass(frozen=True)
class Problem:
    """Rows are draws x images (posterior) or draws x images x 6 (ddim).  tables: float32, layers 2 and 3 as the format rounds them."""

    tables: DenoiserTables
    schedule: Schedule
    family: str
    prior: np.ndarray
    other: np.ndarray
    feature: np.ndarray
    noise: np.ndarray
    noise_prior: bool
    inputs: ChainInputs


def problem(
    dtype: str,
    feature_dim: int,
    classes: int,
    steps: int,
    *,
    draws: int = 1,
    images: int = 1,
    family: str = "posterior",
    noise_prior: bool = False,
) -> Problem:
    rng = np.random.default_rng([feature_dim, classes, steps, draws, images, len(family)])
    tables, stored, factor = _tables(rng, dtype, feature_dim, classes, steps)
    # Far noisier than the published schedule, where eps is multiplied by 0.01: here an error in eps is an error in the state.
    schedule = Schedule("linear", 0.1, 0.4, max(steps, 2), steps)
    prior, other = (rng.dirichlet(np.ones(classes), images) for _ in range(2))
    feature = rng.standard_normal((images, feature_dim)).astype(np.float32)
    if family == "posterior":
        noise = rng.standard_normal((steps, draws, images, classes))
    else:
        noise = rng.uniform(size=(2, draws, images, classes))
    inputs = _inputs(dtype, tables, stored, factor, schedule, family, prior, other, feature, noise, noise_prior)
    return Problem(tables, schedule, family, prior, other, feature, noise, noise_prior, inputs)


def small_plan(dtype: str, feature_dim: int, classes: int, rows: int, blocks: int, **changes) -> ChainPlan:
    """A plan of few blocks whose ring is shorter than a layer, with weights of every kind: resident, kept, streamed."""
    made = plan(TARGETS[90], dtype, feature_dim, classes, rows)
    stages = made.shape.stages_a_tile * -(-made.shape.tiles // blocks)
    some = {"ring_stages": 3, "resident": (min(1, stages), min(2, stages)), "kept": (1, 1)} | changes
    return dataclasses.replace(made, rows=rows, blocks=blocks, **some)


def expected(p: Problem) -> np.ndarray:
    """states float64 [T + 1, R, C] of the engine's own sampler in double precision."""
    tables = DenoiserTables(**{n: a.astype(np.float64) for n, a in p.tables.arrays().items()})
    shape = SimpleNamespace(family="diffmic-v2" if p.family == "ddim" else "diffmic-v1", noise_prior=p.noise_prior)
    encoded = {"prior": p.prior, "feature": p.feature, "y_global": p.prior, "y_local": p.other, "fused_feature": p.feature}
    states = HostChains(shape, p.schedule, PythonDenoiser(tables)).run(encoded, p.noise, keep=True).states
    return states.reshape(len(states), -1, states.shape[-1])


def one_row(x: ChainInputs, row: int) -> ChainInputs:
    """The same chain with one of its rows alone."""
    noise = None if x.noise is None else x.noise[:, row : row + 1]
    return dataclasses.replace(x, entry=x.entry[row : row + 1], start=x.start[row : row + 1], noise=noise)


def _tables(rng: np.random.Generator, dtype: str, f: int, c: int, steps: int) -> tuple[DenoiserTables, list[np.ndarray], list[np.ndarray]]:
    """Tables whose layers 2 and 3 are exact in the format, their stored form, and each output's factor that stored values lack."""

    def normal(*shape: int, std: float) -> np.ndarray:
        return (rng.standard_normal(shape) * std).astype(np.float32)

    stored, factors, exact = [], [], []
    for _ in range(2):
        bits, factor = _store(dtype, normal(f, f, std=0.8 * (2 / f) ** 0.5))
        stored.append(bits)
        factors.append(factor)
        exact.append(values(dtype, bits) * factor[:, None])
    small = {"weight_y": normal(f, c, std=(1 / c) ** 0.5), "weight_p": normal(f, c, std=(1 / c) ** 0.5)}
    small |= {"weight4": normal(c, f, std=0.6 * (2 / f) ** 0.5), "bias4": normal(c, std=0.05)}
    scales = {f"scale{k}": rng.uniform(0.2, 1.1, (steps, f)).astype(np.float32) for k in (1, 2, 3)}
    shifts = {f"shift{k}": normal(steps, f, std=0.1) for k in (1, 2, 3)}
    return DenoiserTables(weight2=exact[0], weight3=exact[1], **small, **scales, **shifts), stored, factors


def _store(dtype: str, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 [F, F] -> (stored form, factor [F] of each output): weight is about values(stored) * factor."""
    one = np.ones(len(weight), np.float32)
    if dtype == "fp32":
        return weight, one
    if dtype == "fp16":
        return weight.astype(np.float16), one
    if dtype == "bf16":
        return (rounded("bf16", weight).view(np.uint32) >> 16).astype(np.uint16), one
    scale = np.exp2(np.ceil(np.log2(np.abs(weight).max(axis=1) / 448))).astype(np.float32)
    codes = np.array([c for c in range(256) if c & 0x7F != 0x7F], np.uint8)
    worth = values("fp8", codes) * np.float32(E4M3_TO_FP16)
    order = np.argsort(worth)
    ordered, codes = worth[order], codes[order]
    at = np.clip(np.searchsorted(ordered, weight / scale[:, None]), 1, len(ordered) - 1)
    near = np.where(weight / scale[:, None] - ordered[at - 1] < ordered[at] - weight / scale[:, None], at - 1, at)
    return codes[near], scale * np.float32(E4M3_TO_FP16)


def _inputs(dtype, tables, stored, factor, schedule, family, prior, other, feature, noise, noise_prior) -> ChainInputs:
    if family == "posterior":
        return _posterior_inputs(dtype, tables, stored, factor, schedule, prior, feature, noise, noise_prior)
    from fusedx.engine.sampler import dense_points

    classes = prior.shape[1]
    points = dense_points(prior, other).reshape(-1, classes)
    k = ddim_coefficients(schedule)
    coefficients = np.zeros((tables.steps, 6))
    coefficients[:, :4] = np.stack([getattr(k, n) for n in COEFFICIENTS["ddim"]], axis=1)
    start = dense_points(noise[0], noise[1]).reshape(-1, classes)
    entry = np.tile(np.arange(len(points), dtype=np.int32), noise.shape[1])
    common = _common(dtype, tables, stored, factor, points, np.repeat(feature, 6, axis=0))
    order = np.arange(tables.steps, dtype=np.int32)
    return ChainInputs(**common, entry=entry, table_row=order, coefficients=coefficients, mean=None, noise=None, start=start)


def _posterior_inputs(dtype, tables, stored, factor, schedule, prior, feature, noise, noise_prior) -> ChainInputs:
    steps, draws, images, classes = noise.shape
    k = posterior_coefficients(schedule)
    coefficients = np.stack([getattr(k, n) for n in COEFFICIENTS["posterior"]], axis=1)
    mean = np.zeros_like(prior) if noise_prior else prior
    entry = np.tile(np.arange(images, dtype=np.int32), draws)
    return ChainInputs(
        **_common(dtype, tables, stored, factor, prior, feature),
        entry=entry,
        table_row=np.arange(steps, dtype=np.int32)[::-1].copy(),
        coefficients=coefficients,
        mean=None if noise_prior else prior,
        noise=noise.reshape(steps, -1, classes),
        start=(mean + noise[0]).reshape(-1, classes),
    )


def _common(dtype, tables, stored, factor, prior, feature) -> dict:
    one = np.ones(len(tables.weight_y), np.float32)
    return {
        "weight": tuple(pack_weight(w, dtype) for w in stored),
        "scale": tuple(pad(s * f, dtype) for s, f in zip((tables.scale1, tables.scale2, tables.scale3), (one, *factor), strict=True)),
        "shift": tuple(pad(s, dtype) for s in (tables.shift1, tables.shift2, tables.shift3)),
        "weight_y": pad(tables.weight_y.T, dtype),
        "weight4": pad(tables.weight4, dtype),
        "bias4": tables.bias4.astype(np.float64),
        "constant": pad(prior @ tables.weight_p.T.astype(np.float64), dtype),
        "feature": pad(feature, dtype),
    }
