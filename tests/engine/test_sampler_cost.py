"""The sampler's choice: arithmetic on given times, and the file of measured ones, which anyone may have damaged."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fusedx.engine.errors import ConfigError
from fusedx.engine.sampler import measured
from fusedx.engine.sampler.cost import SWEEPS, Costs
from fusedx.engine.sampling import Sampler
from fusedx.kernels import native_module

FLAT = Costs((1, 64), (1.0, 1.0))  # rows cost nothing: a GPU, or weights far away
STEEP = Costs((1, 64), (1.0, 64.0))  # a row costs what a step costs


def test_rows_that_cost_nothing_are_taken() -> None:
    plan = FLAT.choose(Sampler(), steps=250, chains=1)
    assert plan.rows == 64 and plan.least_gain == 1.0
    assert FLAT.choose(Sampler(), steps=1, chains=1).sequential


@pytest.mark.parametrize("chains", [1, 2, 16, 1000])
def test_rows_that_cost_steps_are_not(chains: int) -> None:
    assert STEEP.choose(Sampler(), steps=250, chains=chains).sequential
    assert not STEEP.choose(Sampler("parallel"), steps=250, chains=chains).sequential


def test_a_wish_is_followed() -> None:
    assert STEEP.choose(Sampler("parallel", 24, "newton"), steps=250, chains=1) == FLAT.choose(
        Sampler("parallel", 24, "newton"), steps=250, chains=1
    )
    assert FLAT.choose(Sampler("sequential"), steps=250, chains=1).sequential
    assert FLAT.choose(Sampler("auto", 24), steps=250, chains=1).rows == 24


def test_newton_gets_rows_for_its_jacobians() -> None:
    plan = FLAT.choose(Sampler("parallel", variant="newton"), steps=250, chains=1, classes=7)
    assert plan.variant == "newton" and plan.rows % 8 == 0 and plan.rows >= 64
    assert FLAT.choose(Sampler("parallel", 24, "newton"), steps=250, chains=1, classes=7).rows == 24


def test_more_than_was_measured_is_in_proportion() -> None:
    assert STEEP.evaluation(128) == 128.0 and STEEP.evaluation(32) == pytest.approx(32.0)
    assert FLAT.sweeps(1, 10) == 10 and FLAT.sweeps(64, 2) == 2 and 12 < FLAT.sweeps(64, 250) < FLAT.sweeps(16, 250) < 60


@pytest.mark.parametrize("steps", [2, 10, 60, 250])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8", "int4"])
def test_auto_is_the_cheapest_of_what_it_predicts(precision: str, steps: int) -> None:
    costs = measured.costs(precision, 6144, measured.Machine("none", "", 0))
    for chains in (1, 2, 3, 4, 8, 16, 100):
        plan = costs.choose(Sampler(), steps=steps, chains=chains)
        took = costs.sequential(steps, chains) if plan.sequential else costs.parallel(steps, chains, plan.rows)
        fixed = [costs.parallel(steps, chains, rows) for rows in SWEEPS if rows >= 2 * chains]
        assert took == min([costs.sequential(steps, chains), *fixed])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8", "int4"])
def test_the_library_chooses_likewise(precision: str) -> None:
    """The C library has the rule in C++: the same choice wherever nothing was measured."""
    module = native_module.require("this test")
    costs = measured.costs(precision, 6144, measured.Machine("none", "", 0))
    for steps in (1, 2, 10, 60, 100, 250, 1000):
        for chains in (1, 2, 3, 4, 6, 8, 16, 64, 100, 1000):
            plan = costs.choose(Sampler(), steps=steps, chains=chains)
            rows, least = module.choose_sampler(precision, steps, chains)
            assert (plan.rows if not plan.sequential else 0, plan.least_gain) == (rows, pytest.approx(least))


def test_the_outlook_names_the_choice() -> None:
    sequential, parallel, plan = FLAT.outlook(250, chains=1)
    assert parallel < sequential == 250.0 and str(plan) == "parallel, 64 rows a sweep"
    sequential, parallel, plan = STEEP.outlook(250, chains=1)
    assert parallel > sequential and str(plan) == "sequential"


@pytest.mark.parametrize("wish", [
    {"kind": "newton"}, {"kind": "parallel", "rows": 0}, {"rows": True}, {"rows": 1 << 20}, {"variant": "euler"},
    {"kind": "sequential", "rows": 16}, {"kind": "sequential", "variant": "stale"},
])  # fmt: skip
def test_impossible_wishes(wish: dict) -> None:
    with pytest.raises(ConfigError, match="sampler"):
        Sampler(**wish)


@pytest.fixture
def machine(tmp_path, monkeypatch) -> measured.Machine:
    monkeypatch.setenv("FUSEDX_CACHE", str(tmp_path / "cache"))
    return measured.Machine("a processor", "", 2)


def test_measured_times_are_kept_by_machine(machine: measured.Machine) -> None:
    measured.write(machine, {"int8": {512: {1: 1e-3, 16: 2e-3}}})
    assert measured.read(machine) == {"int8": {512: {1: 1e-3, 16: 2e-3}}}
    assert measured.read(measured.Machine("a processor", "", 4)) == {}
    found = measured.costs("int8", 1024, machine)
    assert found.source == "measured here" and found.evaluation(16) == pytest.approx(8e-3)
    assert "built in" in measured.costs("fp32", 1024, machine).source


@pytest.mark.parametrize("content", [
    b"", b"\xff\xfe", b"null", b"[]", b"{}", b"[" * 100_000,
    json.dumps({"format": 2, "seconds": {}}).encode(),
    json.dumps({"format": 1, "seconds": []}).encode(),
    json.dumps({"format": 1, "seconds": {"int8": {"512": {"4": 1.0}}}}).encode(),
    json.dumps({"format": 1, "seconds": {"int8": {"512": {"1": -1.0}}}}).encode(),
    json.dumps({"format": 1, "seconds": {"int8": {"512": {"1": math.inf}}}}).encode(),
    json.dumps({"format": 1, "seconds": {"int8": {"x": {"1": 1.0}}}}).encode(),
    json.dumps({"format": 1, "seconds": {"int8": {"0": {"1": 1.0}}}}).encode(),
    json.dumps({"format": 1, "seconds": {"int8": {"512": 3}}}).encode(),
    json.dumps({"format": 1, "seconds": {"int8": {"512": {"1": 10**400}}}}).encode(),
    json.dumps({"format": 1, "seconds": {"int8": {"512": {"1": 1.0, "1" + "0" * 400: 2.0}}}}).encode(),
    json.dumps({"format": 1, "seconds": {"int8": {"1" + "0" * 400: {"1": 1.0}}}}).encode(),
])  # fmt: skip
def test_a_damaged_file_is_not_used(machine: measured.Machine, content: bytes) -> None:
    machine.file.parent.mkdir()
    machine.file.write_bytes(content)
    assert measured.read(machine) == {}
    assert "built in" in measured.costs("int8", 6144, machine).source


def test_a_user_without_a_home_has_the_built_in_times(monkeypatch) -> None:
    """A container's arbitrary user: no entry among the users, and no HOME."""
    for name in ("FUSEDX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    machine = measured.Machine("a processor", "avx2", 2)
    assert measured.read(machine) == {}
    with pytest.raises(ConfigError, match="FUSEDX_CACHE"):
        measured.write(machine, {"int8": {512: {1: 1e-3}}})
