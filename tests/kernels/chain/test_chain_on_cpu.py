"""The CUDA source itself, run on the CPU: right, the same bits as the plan in numpy, and indifferent to how it is cut."""

import dataclasses

import chain_emulator
import numpy as np
import pytest
from chain_problem import DTYPES, expected, one_row, problem, small_plan

from fusedx.kernels.chain import plan, reference
from fusedx.kernels.target import TARGETS

#: Relative error of the whole trajectory against double precision on the same (rounded) weights, under a schedule in which eps
#: counts fully.  Measured: 5e-8, 4e-4, 6e-5, 6e-5; activations have 24, 8 and 11 bits.
TOLERANCE = {"fp32": 5e-7, "bf16": 2e-3, "fp16": 3e-4, "fp8": 3e-4}

# F, C, T, and what makes the rows; blocks.  K is padded in all but 256 (fp32); 63 leaves a tile short, 257 one output in the last.
CASES = [
    (63, 1, 1, {}, 1),
    (128, 5, 20, {}, 2),
    (257, 15, 2, {"draws": 1, "images": 3}, 3),
    (257, 4, 3, {"draws": 4, "images": 2}, 5),
    (100, 5, 2, {"draws": 3, "noise_prior": True}, 1),
    (130, 4, 3, {"family": "ddim"}, 2),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_follows_the_sampler_and_the_plan(dtype: str, case: tuple) -> None:
    width, classes, steps, rest, blocks = case
    p = problem(dtype, width, classes, steps, **rest)
    cut = small_plan(dtype, width, classes, len(p.inputs.start), blocks)
    outcome = chain_emulator.run(cut, p.inputs, family=p.family, seed=1)
    assert (outcome.problem, outcome.status) == ("", 0)
    planned = np.stack([p.inputs.start, *reference.chain(cut, p.inputs, family=p.family)])
    assert np.array_equal(outcome.states, planned)
    exact = expected(p)
    errors = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(outcome.states, exact, strict=True)]
    assert max(errors) < TOLERANCE[dtype], [f"step {i}: {e:.1e}" for i, e in enumerate(errors)]


def test_one_wrong_weight_has_other_bits() -> None:
    """What the comparison with the plan notices and the tolerance, seven times wider, would not."""
    p = problem("bf16", 128, 5, 20)
    packed = p.inputs.weight[0].copy()
    packed[1] ^= 0x80  # the sign of W2[0, 0]
    cut = small_plan("bf16", 128, 5, 1, 2)
    outcome = chain_emulator.run(cut, dataclasses.replace(p.inputs, weight=(packed, p.inputs.weight[1])))
    right = chain_emulator.run(cut, p.inputs)
    assert not np.array_equal(outcome.states, right.states)


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_however_the_work_is_cut(dtype: str) -> None:
    p = problem(dtype, 257, 5, 2, draws=2)
    right = chain_emulator.run(small_plan(dtype, 257, 5, 2, 1), p.inputs).states
    whole = small_plan(dtype, 257, 5, 2, 1).shape.tiles * small_plan(dtype, 257, 5, 2, 1).shape.stages_a_tile
    cuts = [
        (2, {}),
        (5, {"ring_stages": 8}),
        (17, {"ring_stages": 2}),  # a tile a block
        (3, {"resident": (0, 0), "kept": (0, 0)}),
        (3, {"resident": (whole, 0)}),  # only layer 3 streams
        (3, {"resident": (0, whole)}),
        (1, {"resident": (whole, whole)}),  # nothing streams
    ]
    for blocks, change in cuts:
        outcome = chain_emulator.run(small_plan(dtype, 257, 5, 2, blocks, **change), p.inputs, seed=blocks)
        assert outcome.problem == "" and np.array_equal(outcome.states, right), (blocks, change)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("blocks", "changes"), [(1, {}), (3, {}), (5, {"resident": (0, 1), "kept": (2, 0)}), (3, {"resident": (99, 99)})])
def test_weights_move_as_often_as_the_plan_says(dtype: str, blocks: int, changes: dict) -> None:
    p = problem(dtype, 257, 5, 3)
    cut = small_plan(dtype, 257, 5, 1, blocks, **changes)
    if "resident" in changes:
        most = max(cut.stages(b) for b in range(blocks))
        cut = dataclasses.replace(cut, resident=tuple(min(n, most) for n in cut.resident))
    resident, kept, memory = cut.traffic
    outcome = chain_emulator.run(cut, p.inputs)
    assert outcome.problem == "" and outcome.copied == (3 * kept, 3 * memory + resident)


@pytest.mark.parametrize("cc", TARGETS)
def test_real_plans_of_every_gpu_run_and_agree(cc: int) -> None:
    p = problem("fp8", 257, 5, 1)
    right = chain_emulator.run(small_plan("fp8", 257, 5, 1, 2), p.inputs).states
    outcome = chain_emulator.run(plan(TARGETS[cc], "fp8", 257, 5, 1), p.inputs)
    assert outcome.problem == "" and np.array_equal(outcome.states, right)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_the_rows_beside_it(dtype: str) -> None:
    p = problem(dtype, 100, 5, 3, draws=4, images=2)
    cut = small_plan(dtype, 100, 5, 8, 2)
    together = chain_emulator.run(cut, p.inputs).states
    for row in (0, 3, 7):  # a launch of fewer rows than the plan allows takes the same shared memory
        alone = chain_emulator.run(cut, one_row(p.inputs, row)).states
        assert np.array_equal(alone[:, 0], together[:, row])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_that_is_not_a_number_stays_alone(dtype: str) -> None:
    p = problem(dtype, 63, 3, 2, draws=3)
    cut = small_plan(dtype, 63, 3, 3, 2)
    right = chain_emulator.run(cut, p.inputs).states
    start = p.inputs.start.copy()
    start[1, 2] = np.nan
    bad = chain_emulator.run(cut, dataclasses.replace(p.inputs, start=start)).states
    assert np.array_equal(bad[:, [0, 2]], right[:, [0, 2]]) and np.isnan(bad[1:, 1]).all()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_rows_of_one_image_with_one_noise_are_equal(dtype: str) -> None:
    p = problem(dtype, 100, 4, 2, draws=8)
    same = dataclasses.replace(p.inputs, start=np.repeat(p.inputs.start[:1], 8, 0), noise=np.repeat(p.inputs.noise[:, :1], 8, 1))
    states = chain_emulator.run(small_plan(dtype, 100, 4, 8, 3), same).states
    assert all(np.array_equal(states[:, r], states[:, 0]) for r in range(8))
