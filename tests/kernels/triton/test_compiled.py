"""Every Triton kernel compiled for all seven targets, without a GPU: registers, spills, shared memory, instructions.

The invariance claim of variants.py rests on what is checked here: all forms that may be mixed multiply by one instruction, of
one depth in k, and add the last layer's products in one chain a sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from ahead_of_time import Compiled, Job, prepare, run

from fusedx.kernels.conditional_layer.variants import DTYPES, choose, table
from fusedx.kernels.target import TARGETS

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton")

#: The instruction by which a form may multiply.
INSTRUCTION = {"fma": None, "mma.sync": "mma.sync m16n8k16", "wgmma": "wgmma m64nk16", "tcgen05": "tcgen05 kind::f16"}

# Rows of different steps need the most registers, so all forms are compiled for those, and the largest for one step too.
LAYERS = [Job(kernel, cc, d, v) for kernel in ("projected", "layer") for cc in TARGETS for d in DTYPES for _, v in table(cc, d)]
LAYERS += [Job("conditioned", cc, "fp16", choose(cc, "fp16", 1)) for cc in TARGETS]
LAYERS += [Job(k, cc, "bf16", choose(cc, "bf16", 4096), True) for cc in TARGETS for k in ("layer", "projected")]
LAYERS += [Job("projected", cc, d, choose(cc, d, 1, invariant=False)) for cc in (90, 100) for d in ("bf16", "fp8")]
# The most classes that there are: the large forms have the sums of all of them to keep.
LAYERS += [Job("projected", cc, d, choose(cc, d, 4096, classes=15), classes=15) for cc in TARGETS for d in DTYPES]
STEPS = [("start", "posterior"), ("middle", "posterior"), ("last", "posterior"), ("middle", "ddim"), ("last", "ddim")]
OTHERS = [Job("step", cc, mode=mode, family=family) for cc in TARGETS for mode, family in STEPS]
OTHERS += [Job("step", cc, mode="middle", rows=64) for cc in TARGETS]
OTHERS += [Job("prior_tail", cc, "fp32") for cc in TARGETS]
# Between sweeps of the parallel sampler: the largest window and the smallest, most classes and few, and the chain that clamps.
OTHERS += [Job("collect", cc, mode="window", family=family, rows=64) for cc in TARGETS for family in ("posterior", "ddim")]
OTHERS += [Job("advance", cc, mode="window", rows=rows, classes=c) for cc in TARGETS for rows, c in ((64, 7), (64, 15), (4, 7))]
OTHERS += [Job("advance", cc, mode="window", family="ddim", rows=16) for cc in TARGETS]


@pytest.fixture(scope="module")
def futures(request, tmp_path_factory) -> Iterator[dict[Job, Future[Compiled]]]:
    """The jobs of the tests that were selected, under way in two processes of their own."""
    wanted = [item.callspec.params["job"] for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    cache = str(tmp_path_factory.mktemp("triton"))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=prepare, initargs=(cache,)) as pool:
        yield {job: pool.submit(run, job) for job in dict.fromkeys(wanted)}
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def compiled(futures, job) -> Compiled:
    return futures[job].result()


def check_limits(job: Job, compiled: Compiled, threads: int) -> None:
    target = TARGETS[job.cc]
    assert compiled.stack == 0, f"{compiled.stack} bytes a thread are spilled"
    assert compiled.registers * threads <= target.registers_per_sm
    assert compiled.shared <= target.shared_per_block


@pytest.mark.parametrize("job", dict.fromkeys(LAYERS), ids=str)
def test_layer(job, compiled):
    variant = job.variant
    check_limits(job, compiled, 32 * variant.num_warps)
    products = {name for name in compiled.instructions if name != "cp.async"}
    assert products == {INSTRUCTION[variant.family]} - {None}
    assert compiled.instructions["cp.async"], "weights must stream through shared memory"
    if job.cc < 100:  # from sm_100 on, pairs of sums are packed in one instruction, which this reading does not follow
        check_chains(job, compiled)


def check_chains(job: Job, compiled: Compiled) -> None:
    """One accumulator a sum: the last layer's over a block's outputs, and with fma the layer's over a block's inputs."""
    v = job.variant
    expected: dict[int, int] = {}
    if job.kernel == "projected":
        padded = 1 << (job.classes - 1).bit_length()
        sums = v.block_out // v.partial_out * padded * v.block_rows
        expected[v.block_out] = max(1, sums // (32 * v.num_warps))
    if v.family == "fma":
        expected[v.block_k] = v.block_out * v.block_rows // (32 * v.num_warps)
    softplus = 2  # the longest chain of its own
    assert {n: count for n, count in compiled.chains.items() if n > softplus} == expected


@pytest.mark.parametrize("job", OTHERS, ids=str)
def test_other_kernels(job, compiled):
    check_limits(job, compiled, compiled.threads)
    assert not compiled.instructions


@pytest.mark.parametrize("job", [Job("layer", 90, "bf16", choose(90, "bf16", 1024), True)], ids=str)
def test_two_programs_a_processor(job, compiled):
    """What one scale an output instead of one an element is for."""
    threads = 32 * job.variant.num_warps
    assert 2 * threads * compiled.registers <= TARGETS[90].registers_per_sm
    assert 2 * (compiled.shared + 1024) <= TARGETS[90].shared_per_sm


@pytest.mark.parametrize("job", [Job("projected", cc, d, choose(cc, d, 1)) for cc in (86, 89, 120) for d in ("bf16", "fp8")], ids=str)
def test_small_devices_hold_two_programs_of_one_row(job, compiled):
    """So that the 96 programs of a 6144-wide layer are one wave on 84 processors."""
    assert 2 * (compiled.shared + 1024) <= TARGETS[job.cc].shared_per_sm
