"""Interleavings: every seed gives the same bits, and leaving out any one barrier or wait is noticed by exactly that test."""

import dataclasses

import chain_emulator
import numpy as np
import pytest
from chain_problem import problem, small_plan

from fusedx.kernels.chain import failure

SEEDS = range(1, 10)  # 8 warps held back in turn, and none


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def case(request: pytest.FixtureRequest):
    """More than four tiles a block, so that sums are flushed twice a layer; weights of every kind; three steps."""
    p = problem(request.param, 257, 5, 3, draws=3)
    cut = small_plan(request.param, 257, 5, 3, 3)
    return cut, p.inputs, chain_emulator.run(cut, p.inputs)


def noticed(case, **fault) -> bool:
    """Whether any seed gives other bits, a status or a complaint."""
    cut, inputs, right = case
    for seed in SEEDS:
        outcome = chain_emulator.run(cut, inputs, seed=seed, **fault)
        if outcome.problem or outcome.status or not np.array_equal(outcome.states, right.states):
            return True
    return False


def test_every_interleaving_gives_the_same_bits(case) -> None:
    assert case[2].problem == "" and not noticed(case)


def test_each_block_barrier_is_needed_and_its_absence_noticed(case) -> None:
    sites = case[2].sync_sites
    assert sites >= 9 and [site for site in range(sites) if not noticed(case, skipped_block_sync=site)] == []


@pytest.mark.parametrize("barrier", [0, 1])
def test_each_grid_barrier_is_needed_and_its_absence_noticed(case, barrier: int) -> None:
    assert noticed(case, skipped_grid_barrier=barrier)


def test_the_wait_for_copies_is_needed_and_its_absence_noticed(case) -> None:
    assert noticed(case, skip_copy_wait=True)


@pytest.mark.parametrize("lost", [0, 2])
@pytest.mark.parametrize("barrier", [0, 1, 4])
def test_a_block_that_never_arrives_ends_the_launch_with_a_reason(case, lost: int, barrier: int) -> None:
    cut, inputs, right = case
    for seed in (0, 5):
        outcome = chain_emulator.run(cut, inputs, seed=seed, lost_block=lost, lost_at=barrier, watchdog_s=1e-3)
        assert outcome.problem == ""  # every other block has left: no deadlock, no copy in flight
        text = failure(outcome.status)
        assert f"step {barrier // 2}" in text and f"layer {2 + barrier % 2}" in text
        assert outcome.status >> 32 & 0xFFFF != lost
        done = barrier // 2 + 1  # states of finished steps are whole; nothing is written beyond them
        if lost != 0:
            assert np.array_equal(outcome.states[:done], right.states[:done]) and np.isnan(outcome.states[done:]).all()


def test_a_watchdog_that_nobody_needs_does_not_bark(case) -> None:
    cut, inputs, right = case
    outcome = chain_emulator.run(cut, inputs, seed=3, watchdog_s=10.0)
    assert outcome.status == 0 and np.array_equal(outcome.states, right.states)


def test_too_little_shared_memory_is_noticed(case) -> None:
    """The guard's own negative control: a plan that counts one ring stage less than the kernel uses."""
    cut, inputs, _ = case

    class Short(type(cut)):
        shared_bytes = property(lambda self: cut.shared_bytes - 16384)

    short = Short(**{f.name: getattr(cut, f.name) for f in dataclasses.fields(cut)})
    assert "outside" in chain_emulator.run(short, inputs).problem
