"""The GPU benchmark without a GPU: its arithmetic against numbers computed by hand, its timing against a clock that is moved by hand."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tools")]
import bench_gpu  # noqa: E402
import machine  # noqa: E402
import torch_diffmic  # noqa: E402
from fusedx.engine.schedule import Schedule  # noqa: E402
from gpu_bench import figures, plain, targets, timing  # noqa: E402
from turns import alternate  # noqa: E402

LIMITS = figures.Limits(copy=3000, read=3200, matmul=800)


def row(part: str = "chain", name: str = "triton bf16", batch: int = 1, seconds: list[float] | None = None, **other) -> figures.Row:
    values = {"moved": 0, "operations": 0, "error": 1e-3, "against": "golden", "l2": "cold", **other}
    return figures.Row(part, name, batch, seconds or [0.016], **values)


def test_bytes_and_operations_of_the_published_chain():
    assert figures.chain_bytes(6144, "bf16", 250) == 37_748_736_000  # 2 matrices of 37,748,736 weights, 2 bytes, 250 times
    assert figures.chain_bytes(6144, "fp8", 250) * 4 == figures.chain_bytes(6144, "fp32", 250) == 75_497_472_000
    assert figures.chain_operations(1024, 6144, 250) == 38_654_705_664_000
    assert figures.flush_bytes(50 << 20) == 104_857_600


def test_rates_are_of_the_median_round():
    r = row(seconds=[9.0, 0.016, 0.015], moved=37_748_736_000, operations=38_654_705_664_000)
    assert r.median == 0.016
    assert r.gb_s == pytest.approx(2359.296) and r.tflop_s == pytest.approx(2415.919104)


def test_extrapolation_is_per_step_and_refuses_what_it_cannot_mean():
    assert figures.extrapolated(0.05, 25, 250) == pytest.approx(0.5)
    assert figures.extrapolated(0.05, 250, 250) == 0.05
    for steps in (0, -1, 251):
        with pytest.raises(ValueError, match="from 1 to 250"):
            figures.extrapolated(0.05, steps, 250)


def test_a_ratio_is_taken_round_by_round():
    """2, 4 and 1 times as long; the quotient of the medians, 3 / 2, would mix rounds."""
    assert figures.ratio(row(seconds=[2, 8, 3]), row(seconds=[1, 2, 3])) == 2
    with pytest.raises(ValueError):
        figures.ratio(row(seconds=[1, 2]), row(seconds=[1]))


def test_host_time_is_wall_less_device():
    assert row().host_added is None
    assert row(seconds=[5e-3, 7e-3, 6e-3], device_seconds=[5.9e-3, 5.7e-3, 5.8e-3]).host_added == pytest.approx(0.2e-3)


def test_a_line_of_the_table():
    text = figures.line(row(seconds=[0.016, 0.015, 0.017], moved=37_748_736_000, note="why"), LIMITS)
    assert text.split() == [
        "chain", "triton", "bf16", "1", "16.000", "15.000..17.000", "2359", "79%", "74%", "cold", "1e-03", "(golden)", "[why]",
    ]  # fmt: skip
    wide = figures.line(row(batch=1024, seconds=[0.08], operations=38_654_705_664_000, error=math.inf), LIMITS)
    assert wide.split()[5:] == ["80.000..80.000", "483.2", "60.4%", "cold", "inf", "(golden)"]
    assert all(len(t.split("  ")[0]) <= len(figures.HEADER) for t in (text, wide))


def test_columns_stand_under_their_names():
    """Whatever a row leaves empty."""
    end = figures.HEADER.index("L2") + 2
    for counted in ({}, {"moved": 1e9}, {"operations": 1e12}, {"moved": 1e9, "operations": 1e12}):
        assert figures.line(row(**counted), LIMITS)[:end].endswith("cold")


def test_json_holds_the_single_rounds_and_the_shares():
    data = json.loads(json.dumps(figures.as_json(row(seconds=[0.02, 0.01], moved=30e9), LIMITS)))
    assert data["seconds"] == [0.02, 0.01] and data["median_seconds"] == pytest.approx(0.015)
    assert data["of_copy"] == pytest.approx(2000 / 3000) and data["error_against"] == "golden" and data["host_added_seconds"] is None


def test_what_batch_invariance_costs():
    rows = [
        row("encoder", "torch bf16", 8, seconds=[4, 6]), row("encoder", "torch bf16" + figures.NOT_INVARIANT, 8, seconds=[2, 4]),
        row("encoder", "torch bf16", 1), row(name="triton bf16" + figures.NOT_INVARIANT, batch=8),
    ]  # fmt: skip
    assert figures.invariance_costs(rows) == ["batch invariance, encoder, torch bf16, batch 8: 1.75 x the time without it"]


def everything(**changed: list[float]) -> list[figures.Row]:
    seconds = {"bf16": [0.016], "fp8": [0.0085], "released": [0.2], "hoisted": [0.02], "large": [0.07], "encoder": [0.0019], "wall": [0.02]}
    seconds |= {"parallel": [0.0015], "short": [0.0038], "short parallel": [0.0007], "fp32": [0.03], "fp32 parallel": [0.0031]}
    seconds |= changed
    others = [
        row(name=f"triton {weight}{end}", seconds=seconds[f"fp32{end.replace(',', '')}"]) for weight in ("fp32", "fp16", "fp8")
        for end in ("", figures.PARALLEL)
    ]  # fmt: skip
    return others + [
        row(name=targets.SEQUENTIAL + figures.PARALLEL, seconds=seconds["parallel"]),
        row("aptos", seconds=seconds["short"]),
        row("aptos", targets.SEQUENTIAL + figures.PARALLEL, seconds=seconds["short parallel"]),
        row(seconds=seconds["bf16"], moved=37_748_736_000),
        row(name=targets.PERSISTENT, seconds=seconds["fp8"]),
        row(name=targets.RELEASED, seconds=seconds["released"]),
        row(name=targets.HOISTED, seconds=seconds["hoisted"]),
        row(batch=1024, seconds=seconds["large"], operations=38_654_705_664_000),
        row("encoder", targets.ENCODER, seconds=seconds["encoder"]),
        row("classify", targets.FRAME, seconds=seconds["wall"], device_seconds=[0.0198]),
        row("classify", targets.DEVICE_FRAME, seconds=seconds["wall"], device_seconds=[0.0199]),
    ]


def test_requirements_that_are_met():
    found = targets.targets(everything(), LIMITS)
    assert [t.met for t in found] == [True] * 14
    assert [t.value for t in found[8:]] == pytest.approx([1.5, *[0.03 / 0.0031] * 1, 0.016 / 0.0015, *[0.03 / 0.0031] * 2, 0.0038 / 0.0007])
    assert [t.value for t in found[:8]] == pytest.approx([78.6432, 8.5, 12.5, 1.25, 69.026, 1.9, 0.2, 0.1], rel=1e-4)
    assert str(found[1]) == "reached      chain, 1 row, persistent fp8: 8.5 ms (must be <= 9 ms)"


@pytest.mark.parametrize(("changed", "missed"), [
    ({"bf16": [0.0168], "hoisted": [0.0169]}, 0), ({"fp8": [0.0091]}, 1), ({"released": [0.0479]}, 2), ({"hoisted": [0.0159]}, 3),
    ({"large": [0.0745]}, 4), ({"encoder": [0.0021]}, 5), ({"encoder": [math.nan]}, 5),
    ({"parallel": [0.00161]}, 8), ({"short parallel": [0.00077]}, 13),
])  # fmt: skip
def test_a_requirement_that_is_missed_is_the_only_one_and_says_so(changed, missed):
    found = targets.targets(everything(**changed), LIMITS)
    assert [i for i, t in enumerate(found) if t.met is False] == [missed]
    assert str(found[missed]).startswith("NOT REACHED")


def test_what_was_not_measured_is_neither_met_nor_missed():
    found = targets.targets([], LIMITS)
    assert all(t.met is None and str(t).startswith("not measured") for t in found)


class HandClock:
    """Time is what the test says; ``log`` is the order in which things are queued."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, []

    def hold(self, seconds: float) -> None:
        self.log.append(f"hold {seconds}")
        self.now += seconds

    def mark(self) -> float:
        self.log.append("mark")
        return self.now

    def seconds(self, first: float, last: float) -> float:
        self.log.append("wait")
        return last - first

    def work(self, seconds: float) -> None:
        self.log.append("work")
        self.now += seconds


def test_device_time_counts_the_work_alone():
    """Neither the flush of the cache before it, nor the head start of the host."""
    clock = HandClock()
    took = timing.device_time(lambda: clock.work(3.0), clock, head_start=5.0, prepare=lambda: clock.work(7.0))
    assert took == 3.0
    assert clock.log == ["work", "hold 5.0", "mark", "work", "mark", "wait"]


def test_contenders_take_turns_and_another_one_is_first_each_round():
    order: list[str] = []
    drift = iter(range(100))

    def contender(name: str):
        return lambda: order.append(name) or float(next(drift))

    seconds = alternate({name: contender(name) for name in "abc"}, 4)
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert seconds == {"a": [0, 5, 7, 9], "b": [1, 3, 8, 10], "c": [2, 4, 6, 11]}
    assert alternate({}, 3) == {}


def test_the_cache_is_replaced_by_other_bytes_each_time():
    cold = timing.ColdCache(1000, torch.device("cpu"))
    values = []
    for _ in range(3):
        cold()
        assert len(cold._buffer) == 2000 and len(cold._buffer.unique()) == 1
        values.append(int(cold._buffer[0]))
    assert len(set(values)) == 3


@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("steps", [1, 4, 7])
def test_the_step_that_is_compiled_is_the_published_one(released, steps):
    """Against the chain of the training code, in float64; a compiler must be able to trace it whole."""
    torch.manual_seed(0)
    model = torch_diffmic.ConditionalDenoiser(3, 17, width=2).double().eval()
    x, noise = torch.randn(2, 3, 64, 64).double(), torch.randn(7, 2, 3).double()
    prior = torch.rand(2, 3).double()
    states: list[torch.Tensor] = []
    with torch.no_grad():
        feature = model.feature(x)
        torch_diffmic.sample_hoisted(model, feature, prior, noise, trajectory=states)
    table = plain.step_table(Schedule("linear", 1e-4, 0.02, 1000, 7), torch.device("cpu"))
    step = torch.compile(plain.make_step(model, table, released=released), backend="eager", fullgraph=True, dynamic=False)
    chain = plain.PlainChain(step, prior, x if released else feature, noise, steps)
    chain.record()()
    assert torch.allclose(chain.final, states[steps], rtol=1e-6, atol=1e-7)


class Collected(bench_gpu.Results):
    """Without a GPU to describe."""

    def __init__(self, path: Path) -> None:
        self._path, self.started, self.rows, self.left_out, self.failed = path, bench_gpu.time.monotonic(), [], [], False
        self.limits, self._facts = LIMITS, {"quick": False}


def test_one_part_that_fails_and_one_that_takes_too_long_cost_nothing_else(tmp_path, capsys):
    results = Collected(tmp_path / "out.json")

    def fails() -> None:
        raise RuntimeError("CUDA error: first line\nsecond line")

    def measures(batch: int):
        return lambda: results.add(row(batch=batch))

    parts = [("first", 1, measures(1)), ("long", 100, fails), ("bad", 1, fails), ("last", 1, measures(8))]
    bench_gpu.run(iter(parts), results, limit=50)
    written = json.loads((tmp_path / "out.json").read_text())
    assert [r["batch"] for r in written["rows"]] == [1, 8] and results.failed
    long, bad = written["left_out"]
    assert long.startswith("long: ") and "may need 100 s, and the limit is 50 s" in long
    assert bad == "bad: RuntimeError: CUDA error: first line"
    assert [t["met"] for t in written["requirements"]].count(None) == 13
    results.conclude()
    assert "not measured" in capsys.readouterr().out


def test_every_requirement_is_measured_by_some_part():
    """The names in the plan are those that the requirements look for."""
    chains = {(n, rows) for rows, names in bench_gpu.CHAINS.items() for n in names}
    quick = {(n, rows) for rows, names in bench_gpu.QUICK_CHAINS.items() for n in names}
    needed = {(f"triton {weight}{end}", 1) for weight in figures.WEIGHT_BYTES for end in ("", figures.PARALLEL)}
    needed |= {(targets.SEQUENTIAL, 1), (targets.PERSISTENT, 1), (targets.RELEASED, 1), (targets.HOISTED, 1), (targets.SEQUENTIAL, 1024)}
    assert needed <= quick <= chains


def test_without_a_gpu_it_says_so_in_one_line():
    environment = os.environ | {"PYTHONPATH": str(ROOT / "python"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "bench_gpu.py"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("bench_gpu.py needs an NVIDIA GPU: ") and done.stderr.count("\n") == 1


def test_nvidia_smi_is_read_and_its_absence_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpu() == {}
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'NVIDIA H100, 580.1, 1980 MHz, 1980 MHz, 2619 MHz, 70.1 W, 700 W, 31'\necho 'a second GPU'\n")
    fake.chmod(0o755)
    facts = machine.gpu()
    assert facts["gpu"] == "NVIDIA H100" and facts["driver"] == "580.1"
    assert facts["clocks"] == "SM 1980 MHz of 1980 MHz, memory 2619 MHz" and facts["power"] == "70.1 W of 700 W, 31 C"
    fake.write_text("#!/bin/sh\nexit 9\n")
    assert machine.gpu() == {}
