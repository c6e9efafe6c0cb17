"""The argument struct: the same bytes in Python and C++, nothing forgotten, and a status that reads as a sentence."""

import ctypes
import dataclasses

import chain_emulator
import pytest

from fusedx.kernels.chain import FORMATS, ChainControl, ChainParams, chain_params, failure, plan
from fusedx.kernels.chain.params import POINTERS
from fusedx.kernels.target import TARGETS

PLAN = plan(TARGETS[90], "bf16", 256, 5, 4)
POINTED = {name: {"weight": (16, 32), "scale": (16, 32, 48), "shift": (16, 32, 48)}.get(name, 64) for name in POINTERS}


def test_python_and_cpp_agree_on_every_field() -> None:
    lines = [line.split() for line in chain_emulator.library().fx_chain_layout().decode().splitlines()]
    cpp = {name: (int(offset), int(size)) for name, offset, size in lines}
    python = {n: (getattr(ChainParams, n).offset, getattr(ChainParams, n).size) for n, *_ in ChainParams._fields_}
    python |= {
        "ChainParams": (0, ctypes.sizeof(ChainParams)),
        "ChainControl": (0, ctypes.sizeof(ChainControl)),
        "control.status": (ChainControl.status.offset, ChainControl.status.size),
    }
    assert python == cpp


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_the_plan_counts_the_shared_memory_that_the_kernel_takes(dtype: str, rows: int) -> None:
    for width in (63, 1000):
        p = dataclasses.replace(plan(TARGETS[90], dtype, width, 5, rows), ring_stages=3, resident=(1, 2))
        params = chain_params(p, POINTED, family="posterior", steps=2, rows=rows)
        assert chain_emulator.library().fx_chain_shared_bytes(params, FORMATS[dtype].code) == p.shared_bytes


def test_fills_every_number_from_the_plan() -> None:
    p = chain_params(PLAN, POINTED, family="ddim", steps=10, rows=3, watchdog_s=0.5)
    assert (p.family, p.steps, p.rows, p.classes, p.watchdog_ns) == (1, 10, 3, 5, 500_000_000)
    assert (p.k, p.tiles, p.stages_a_tile, p.ring_stages) == (512, 16, 1, PLAN.ring_stages)
    assert (tuple(p.resident), tuple(p.kept), tuple(p.weight), p.states) == (PLAN.resident, PLAN.kept, (16, 32), 64)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"family": "euler"}, "known: posterior, ddim"),
        ({"rows": 0}, "from 1 to 4"),
        ({"rows": 5}, "from 1 to 4"),
        ({"steps": 0}, "steps must be"),
        ({"watchdog_s": 0.0}, "watchdog_s"),
        ({"watchdog_s": float("nan")}, "watchdog_s"),
        ({"pointers": POINTED | {"noise": 0}}, "pointer noise"),
        ({"pointers": POINTED | {"hidden": 0}}, "pointer hidden"),
        ({"pointers": POINTED | {"weight": (16,)}}, "expected 2 addresses"),
        ({"pointers": POINTED | {"weight": (16, 0)}}, "pointer weight"),
        ({"pointers": POINTED | {"feature": 68}}, "multiple of 16"),
        ({"pointers": POINTED | {"weights": 16}}, "unknown pointers"),
    ],
)
def test_refuses_what_the_kernel_cannot_check(change: dict, says: str) -> None:
    arguments = {"pointers": POINTED, "family": "posterior", "steps": 2, "rows": 1} | change
    with pytest.raises(ValueError, match=says):
        chain_params(PLAN, arguments.pop("pointers"), **arguments)


def test_mean_and_unneeded_noise_may_be_absent() -> None:
    without = {name: address for name, address in POINTED.items() if name not in ("mean", "noise")}
    assert chain_params(PLAN, without, family="ddim", steps=5, rows=1).noise is None
    assert chain_params(PLAN, without, family="posterior", steps=1, rows=1).mean is None


def test_status_reads_as_a_sentence() -> None:
    assert failure(0) is None
    assert "step 7: block 131" in failure(1 << 56 | 1 << 48 | 131 << 32 | 7) and "layer 3" in failure(1 << 56 | 1 << 48)
    assert "overwritten" in failure(0xDEADBEEF)
