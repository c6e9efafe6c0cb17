"""From encoder.onnx to a checked plan: built, kept, found, loaded, run and refused, on a TensorRT that computes on the CPU."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from typed_emulator import Emulator

from fusedx.engine.encoder import onnx_file
from fusedx.engine.encoder import tensorrt as package
from fusedx.engine.encoder.tensorrt import PlanCache, Platform, WrongPlanError, open_plan
from fusedx.engine.encoder.tensorrt.typed import typed
from fusedx.engine.errors import ConfigError, UnavailableError

H100 = Platform("NVIDIA H100 80GB HBM3", "9.0", "580.65.06", "13.0")
BUCKETS = (1, 2, 4, 8)


@pytest.fixture(scope="module")
def reference(toy_encoder):
    return Emulator(typed(onnx_file.read(toy_encoder), "fp32")).run


@pytest.fixture
def opened(toy_encoder, reference, make_run, fakes, tmp_path):
    """open_plan with everything filled in; keywords change it."""

    def run(platform=H100, **more):
        more = {"buckets": BUCKETS, "cache": PlanCache(tmp_path)} | more
        return open_plan(toy_encoder, "a" * 64, platform, make_run, reference, **more)

    return run


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_built_then_found(precision, opened, fakes, make_run, reference, caplog):
    caplog.set_level(logging.INFO, "fusedx")
    first = opened(precision=precision)
    assert "cache miss, the cache holds no plans" in caplog.text
    second = opened(precision=precision)
    assert "cache hit" in caplog.text and fakes.machine.calls.count("build") == 1
    images = np.random.default_rng(1).normal(size=(4, 3, 224, 224)).astype(np.float32)
    one, other = make_run(first)(images), make_run(second)(images)
    for name, rows in reference(images).items():
        assert np.array_equal(one[name], other[name])
        if name in ("saliency", "y_global", "feature"):
            np.testing.assert_allclose(one[name], rows, atol=0.06 * np.abs(rows).max())
    assert set(one) == set(reference(images))


def test_what_the_builder_was_told(opened, fakes, full):
    opened(precision="fp16")
    (config,) = fakes.machine.configured
    flag = full.BuilderFlag
    assert config._flags == {flag.DISTRIBUTIVE_INDEPENDENCE}  # and TF32, which is on by default, cleared
    assert config._profiles == [(b, 3, 224, 224) for b in BUCKETS]
    assert config._limits == {full.MemoryPoolType.WORKSPACE: 4 << 30}
    assert fakes.machine.calls[0] == "create_network(0)"


def test_strongly_typed_by_flag_on_release_10(opened, fakes, full):
    fakes.full.__version__ = "10.13.0"
    opened()
    assert fakes.machine.calls[0] == f"create_network({1 << int(full.NetworkDefinitionCreationFlag.STRONGLY_TYPED)})"


def test_a_changed_driver_is_a_miss_that_says_so(opened, fakes, caplog):
    caplog.set_level(logging.INFO, "fusedx")
    opened()
    opened(platform=Platform(H100.gpu, H100.compute_capability, "590.1", H100.cuda))
    assert "driver is '590.1' and was '580.65.06'" in caplog.text and fakes.machine.calls.count("build") == 2


def test_the_timing_cache_comes_back(opened, fakes, tmp_path):
    opened(precision="fp16")
    (file,) = (tmp_path / "tensorrt").glob("timing-*.cache")
    assert file.read_bytes() == b"timed:"
    opened(precision="bf16")
    assert file.read_bytes() == b"timed:timed:"
    file.write_bytes(b"not a timing cache")
    opened(precision="fp32")
    assert file.read_bytes() == b"timed:"


def test_a_plan_that_cannot_be_kept_is_used(opened, fakes, monkeypatch, caplog):
    def full_disk(*where, **named):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("fusedx.engine.cache_folder.tempfile.mkstemp", full_disk)
        assert opened().buckets == BUCKETS
    assert "not kept" in caplog.text and "No space left on device; free some space or set FUSEDX_CACHE" in caplog.text
    opened()
    assert fakes.machine.calls.count("build") == 2


def test_lean_runs_what_full_built_and_builds_nothing(opened, fakes, caplog):
    with pytest.raises(UnavailableError, match="lean runtime cannot build one"):
        fakes.remove(fakes.libraries.FULL)
        opened()
    assert "build" not in fakes.machine.calls


def test_lean_loads_a_version_compatible_plan(opened, fakes, full):
    opened(version_compatible=True)
    (config,) = fakes.machine.configured
    assert {full.BuilderFlag.VERSION_COMPATIBLE, full.BuilderFlag.EXCLUDE_LEAN_RUNTIME} <= config._flags
    fakes.remove(fakes.libraries.FULL)
    fakes.lean.__version__ = "11.9.0"
    opened(platform=Platform(H100.gpu, H100.compute_capability, "600.1", "13.4"))
    assert "load into lean" in fakes.machine.calls and fakes.machine.calls.count("build") == 1


def test_a_plan_that_does_not_load_is_built_again(opened, fakes, tmp_path, caplog):
    opened()
    cache = PlanCache(tmp_path)
    (key,) = cache._entries()
    plan = json.loads(cache.find(key)) | {"version": "11.0.0"}
    cache.store(key, json.dumps(plan).encode())
    opened()
    assert "cannot be used" in caplog.text and fakes.machine.calls.count("build") == 2


def swap(out, bucket):
    if bucket == 4:
        out["feature"][[1, 2]] = out["feature"][[2, 1]]
    return out


@pytest.mark.parametrize("when", ["built", "loaded"])
def test_a_wrong_plan_is_refused_and_forgotten(when, opened, fakes, tmp_path):
    if when == "loaded":
        opened()
    fakes.machine.fault = swap
    with pytest.raises(WrongPlanError, match="batch of 4, row 1, feature.*it is the result of row 2's image") as caught:
        opened()
    assert (caught.value.bucket, caught.value.row, caught.value.output) == (4, 1, "feature")
    assert not list((tmp_path / "tensorrt").glob("*.json"))
    fakes.machine.fault = None
    opened()


def test_what_cannot_be_parsed_or_built(opened, fakes):
    fakes.machine.parse_error = "unsupported"
    with pytest.raises(UnavailableError, match="cannot parse the encoder: Conv a_node: unsupported"):
        opened()
    fakes.machine.parse_error, fakes.machine.build_fails = None, True
    with pytest.raises(UnavailableError, match="cannot build the encoder: no tactic left"):
        opened()


@pytest.mark.parametrize("buckets", [(), (2, 1), (1, 1), (0, 1)])
def test_impossible_buckets(buckets, opened):
    with pytest.raises(ConfigError, match="ascending"):
        opened(buckets=buckets)


def test_unknown_precision(opened):
    with pytest.raises(UnavailableError, match="'int8' is not available; there is: fp32, fp16, bf16"):
        opened(precision="int8")


def test_why_not(fakes):
    def no_driver(name):
        raise OSError(name)

    assert package.why_not(lambda name: None) is None
    assert "no NVIDIA driver" in package.why_not(no_driver)
    fakes.remove(fakes.libraries.FULL)
    assert package.why_not(lambda name: None) is None
    fakes.remove(fakes.libraries.LEAN)
    assert package.why_not(lambda name: None) == (
        "tensorrt is not installed; tensorrt_lean is not installed (pip install 'fusedx[tensorrt]')"
    )
