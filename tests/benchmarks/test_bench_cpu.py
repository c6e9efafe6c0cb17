"""The CPU benchmark at a width of 256: its arithmetic by hand, what it prints and writes, and that one failure costs nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tools")]
import bench_cpu  # noqa: E402
import drawings  # noqa: E402
from cpu_bench import chain_part, fusedx_forms, limits, onnxruntime_forms, requirements, results, torch_forms, whole  # noqa: E402
from cpu_bench.contender import Form, Opened  # noqa: E402
from cpu_bench.problem import exact_eps, relative_error  # noqa: E402
from fusedx import golden  # noqa: E402
from fusedx.compiler import calibration, compile_checkpoint  # noqa: E402
from fusedx.engine.compiled import open_model  # noqa: E402
from fusedx.kernels import native_module  # noqa: E402
from requirement import Target  # noqa: E402

CASE = ROOT / "tests" / "golden" / "v1-small.json"
needs_native = pytest.mark.skipif(native_module.native is None, reason="needs the native module")


@pytest.fixture(scope="module")
def problems(small_checkpoint, tmp_path_factory):
    """(rows, timed steps) -> the problem of golden case v1-small; and the network."""
    path = tmp_path_factory.mktemp("bench") / "small.fusedx"
    compile_checkpoint(small_checkpoint, path)
    case, model = golden.load(CASE), open_model(path)
    return Problems(lambda rows, steps=4: bench_cpu.make_problem(case, model, rows, steps), model.manifest.network)


class Problems:
    def __init__(self, make, network) -> None:
        self.make, self.network = make, network

    def __call__(self, *args):
        return self.make(*args)


def row(name: str, library: str, precision: str, ms: float, rows: int = 1, **other) -> results.Row:
    return results.Row("chain", name, library, precision, rows, [ms, 1e9, ms], eps_error=1e-3, **other)


def test_one_row_is_the_golden_case_and_its_float64_eps_is_the_published_one(problems):
    case, problem = golden.load(CASE), problems(1, 20)
    np.testing.assert_array_equal(problem.start, case.expected["prior"][:1] + case.noise[0, :1])
    shifted = np.abs(problem.start - case.expected["eps_input"][:1]).max()
    assert shifted < 1e-15
    last = max(int(name[5:]) for name in case.expected if name.startswith("eps_t"))
    assert last == problem.steps - 1
    assert relative_error(exact_eps(problem), case.expected[f"eps_t{last}"][:1]) < 1e-6  # the tables are float32


@pytest.mark.parametrize("rows", [1, 3])
def test_libraries_and_fusedx_compute_the_same_chain(problems, rows):
    problem = problems(rows)
    forms = [f for f in [*torch_forms.forms(1), *onnxruntime_forms.forms(1)] if f.library != "torch.compile"]
    if native_module.native is not None:
        forms += fusedx_forms.forms(problems.network, ("fp32", "bf16", "fp16", "int8", "int4"))
    exact, finals = exact_eps(problem), {}
    for form in forms:
        opened = form.open(problem)
        bound = {"fp32": 1e-5, "bf16": 3e-2, "fp16": 3e-3, "int8": 5e-2, "int4": 0.3}[form.precision]
        assert relative_error(opened.eps(), exact) < bound, form.name
        finals[form.name] = opened.chain()
    for name, final in finals.items():
        assert relative_error(final, finals["torch eager fp32"]) < 0.05, name


def test_a_form_that_fails_costs_nothing_else_and_only_the_best_of_each_library_go_on(problems):
    problem, collected = problems(1), results.Results({})

    def form(library: str, precision: str, how: str, wait: int) -> Form:
        def chain() -> np.ndarray:
            sum(range(wait))
            return problem.start

        return Form(library, precision, how, lambda p: Opened(chain, lambda: p.start, chain))

    def broken(p):
        raise RuntimeError("no such kernel\nmore")

    forms = [form("a", "fp32", "", 10**6), form("a", "int8", "slow", 2 * 10**6), form("a", "int8", "", 10), Form("a", "bf16", "", broken)]
    chain_part.measure(collected, problem, [forms], [form("fusedx", "int8", "", 10)], 3, None)
    assert collected.left_out == ["heat, 1 rows, a bf16: RuntimeError: no such kernel"]
    assert {r.name for r in collected.rows if r.part == "chain"} == {"a fp32", "a int8", "fusedx int8"}
    assert {r.name for r in collected.rows if r.part == "heat"} == {"a fp32", "a int8, slow", "a int8"}
    assert all(r.error is None for r in collected.rows)


def test_rates_are_of_the_median_and_a_quarter_of_bytes_means_a_quarter():
    r = row("x", "fusedx", "int8", 2.0, moved=75_497_472, operations=150_994_944)
    assert r.median == 2.0 and r.gb_s == pytest.approx(37.748736) and r.gop_s == pytest.approx(75.497472)


def everything(fusedx_ms: float = 0.4) -> results.Results:
    found = results.Results({})
    read = limits.bandwidth_name("int8")
    found.limits = {read: [80.0, 10.0, 90.0], limits.VNNI: [900.0]}
    found.rows = [
        row("torch eager fp32", "torch eager", "fp32", 12.0),
        row("OpenVINO fp16", "OpenVINO", "fp16", 6.0),
        row("torch eager int8", "torch eager", "int8", 2.0),
        row("ONNX Runtime int4", "ONNX Runtime", "int4", 1.5),
        row("fusedx int8", "fusedx", "int8", fusedx_ms, moved=25_600_000, operations=51_200_000, shares={read: [0.8, 0.1, 0.9]}),
        row("fusedx int8", "fusedx", "int8", 1.0, rows=32, shares={limits.VNNI: [0.5]}),
    ]
    return found


def test_a_requirement_is_judged_against_the_fastest_library_of_all_with_the_others_beside():
    int8, fp32, *others = requirements.requirements(everything())
    assert int8.value == pytest.approx(1.5 / 0.4) and int8.met is False  # against four bits, which is less than five times
    for words in ("30.00 x against fp32", "15.00 x against 16 bits", "5.00 x against 8 bits", "3.75 x against any precision"):
        assert words in int8.note
    assert "allow 4.69 x at most (0.32 ms)" in int8.note
    assert fp32.value is None and fp32.met is None and str(fp32).startswith("not measured")
    by_text = {t.text: t for t in others}
    share = by_text["chain, 1 row int8: weights at a share of the read bandwidth of as many bytes"]
    assert share.value == pytest.approx(80.0) and share.met is False
    rate = by_text["chain, 32 rows int8: share of the register-only VNNI rate"]
    assert rate.value == pytest.approx(50.0) and rate.met is False
    assert requirements.requirements(everything(0.3))[0].met is True


def test_end_to_end_is_not_won_by_four_bits():
    found = everything()
    for name, precision, ms in ((whole.RELEASED, "fp32", 12000.0), ("fusedx a", "int8", 600.0), ("fusedx b", "int4", 200.0)):
        found.rows.append(results.Row(whole.PART, name, "any", precision, 1, [ms], error=1e-3))
    target = next(t for t in requirements.requirements(found) if "end to end" in t.text)
    assert target.value == pytest.approx(20.0) and target.met is False
    assert "60.0 x fusedx b, error 1e-03" in target.note


def test_nothing_measured_is_no_requirement_met(tmp_path):
    empty = results.Results({"case": "none"})
    found = requirements.requirements(empty)
    assert len(found) == 10 and all(t.met is None for t in found)
    empty.leave_out("all", ValueError(""))
    empty.write(tmp_path / "out.json", found)
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["case"] == "none" and written["left_out"] == ["all: ValueError: "] and len(written["requirements"]) == 10


def test_verdicts_are_words_and_notes_stand_below():
    text = str(Target("this", 4.0, 5.0, "x", True, "one; two"))
    assert text.splitlines() == ["NOT REACHED  this: 4 x (must be >= 5 x)", " " * 13 + "one", " " * 13 + "two"]
    assert str(Target("that", 1.0, 1.0, "s", False)) == "reached      that: 1 s (must be <= 1 s)"


@needs_native
def test_probes_give_plausible_rates_and_refuse_nonsense():
    native = native_module.require("the test")
    for good in (1 << 20, (1 << 20) + 12345):
        assert native._read_bandwidth(good, 0.01) > 1e6
    for arithmetic in ("fp32", "bf16", "int8"):
        assert native._register_rate(arithmetic, 0.01) >= 0
    with pytest.raises(ValueError, match="expected fp32, bf16 or int8, got 'int3'"):
        native._register_rate("int3", 0.01)
    for seconds in (0, -1, float("nan"), 1e9):
        with pytest.raises(ValueError, match="seconds: expected more than 0"):
            native._register_rate("fp32", seconds)
    with pytest.raises((ValueError, RuntimeError), match="at least 1 MiB"):
        native._read_bandwidth(1000, 0.01)


@needs_native
def test_quick_run_prints_and_writes_every_requirement(small_checkpoint, tmp_path):
    out = tmp_path / "out.json"
    program = [sys.executable, ROOT / "benchmarks" / "bench_cpu.py", "--case", "v1-small", "--checkpoint", small_checkpoint, "--quick"]
    wanted = ["--parts", "chain,opening", "--libraries", "torch eager,ONNX Runtime", "-o", out]
    done = subprocess.run([*program, *wanted], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr  # the library is not installed anywhere, and it says so
    assert "left out: opening, libfusedx from C: no --prefix" in done.stdout
    written = json.loads(out.read_text())
    assert len(written["requirements"]) == 10 and written["machine"]["commit"]
    unmeasured = [t["text"] for t in written["requirements"] if t["met"] is None]
    assert [text.split(",")[0].split(":")[0] for text in unmeasured] == ["v1-isic", "full-width int8 model from C", "the same"]
    chains = {(r["name"], r["rows"]) for r in written["rows"] if r["part"] == "chain" and r["library"] == "fusedx"}
    assert chains == {(f"fusedx {p}", rows) for rows, precisions in bench_cpu.CHAINS.items() for p in precisions}
    one = next(r for r in written["rows"] if r["part"] == "chain" and r["name"] == "fusedx fp32" and r["rows"] == 1)
    assert one["error"] < 1e-5  # of the golden case's final state
    for text in ("register", "read int8 weights"):
        assert any(text in name for name in written["limits"])


def test_an_unknown_library_is_refused_with_the_list():
    with pytest.raises(SystemExit, match="no jax; there are: torch eager"):
        bench_cpu.library_forms(["jax"], 1)


def test_drawings_calibrate_an_encoder(tmp_path):
    """Their folder is read as the same images, and enough of them."""
    folder = drawings.folder(tmp_path / "pictures", seed=7, count=calibration.FEWEST)
    assert np.array_equal(np.stack(calibration.read_folder(folder).images), drawings.images(7, calibration.FEWEST))
    assert bench_cpu.CALIBRATED_WITH >= calibration.FEWEST
