"""The plan cache: what makes another plan, what is logged, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import threading

import pytest

from fusedx.engine.encoder.tensorrt.cache import PlanCache, PlanKey
from fusedx.engine.encoder.tensorrt.platform import Platform, driver_release
from fusedx.engine.errors import UnavailableError

KEY = PlanKey("a" * 64, "NVIDIA H100", "9.0", "580.65.06", "11.4.0.106", "13.0", "fp16", (1, 2, 4), False)
CHANGED = {
    "model": "b" * 64, "gpu": "NVIDIA L40S", "compute_capability": "8.9", "driver": "590.1", "tensorrt": "11.5.0.1", "cuda": "13.1",
    "precision": "bf16", "buckets": (1, 2), "version_compatible": True, "builder": KEY.builder + 1,
}  # fmt: skip


@pytest.fixture
def cache(tmp_path, caplog):
    caplog.set_level(logging.INFO, "fusedx")
    return PlanCache(tmp_path / "cache")


def test_found_again_by_another_process(cache, caplog):
    assert cache.find(KEY) is None and "the cache holds no plans" in caplog.text
    cache.store(KEY, b"plan")
    assert PlanCache(cache.folder.parent).find(dataclasses.replace(KEY)) == b"plan"
    assert f"cache hit, {KEY.name()}" in caplog.text
    assert not [f for f in cache.folder.iterdir() if f.name.startswith(".")]


def test_every_field_is_part_of_the_key():
    assert set(CHANGED) == {f.name for f in dataclasses.fields(PlanKey)}
    names = {dataclasses.replace(KEY, **{field: value}).name() for field, value in CHANGED.items()}
    assert len(names) == len(CHANGED) and KEY.name() not in names


@pytest.mark.parametrize("field", CHANGED)
def test_a_miss_names_the_field(field, cache, caplog):
    cache.store(KEY, b"plan")
    assert cache.find(dataclasses.replace(KEY, **{field: CHANGED[field]})) is None
    assert f"differs: {field} is {CHANGED[field]!r} and was {getattr(KEY, field)!r}\n" in caplog.text


def test_the_nearest_entry_is_of_the_same_model(cache, caplog):
    cache.store(dataclasses.replace(KEY, model="b" * 64), b"near in all but the model")
    cache.store(dataclasses.replace(KEY, driver="1", cuda="12.0"), b"the same model")
    assert cache.find(KEY) is None
    assert "driver is '580.65.06' and was '1'; cuda is '13.0' and was '12.0'" in caplog.text


@pytest.mark.parametrize(
    ("built", "running", "runs"),
    [
        ("11.4.0.106", "11.4.0.106", True), ("11.4.0.106", "11.5.0.1", True), ("11.4.0.106", "11.10.0.1", True),
        ("11.5.0.1", "11.4.0.106", False), ("10.16.0.1", "11.4.0.106", False), ("11.4.0.106", "12.0.0.1", False),
    ],
)  # fmt: skip
def test_version_compatible_plans_run_on_the_same_or_a_later_release(built, running, runs, cache, caplog):
    key = dataclasses.replace(KEY, version_compatible=True)
    cache.store(dataclasses.replace(key, tensorrt=built, driver="570.1", cuda="12.9"), b"plan")
    found = cache.find(dataclasses.replace(key, tensorrt=running))
    assert found == (b"plan" if runs else None)
    if runs:
        assert "built with driver 570.1, running 580.65.06" in caplog.text
    assert cache.find(dataclasses.replace(key, tensorrt=running, gpu="NVIDIA L40S")) is None
    assert cache.find(dataclasses.replace(KEY, tensorrt=running)) is None


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"", lambda b: b"X" + b[1:]])
def test_a_damaged_plan_is_refused(damage, cache, caplog):
    cache.store(KEY, b"plan" * 1000)
    (file,) = cache.folder.glob("*.plan")
    file.write_bytes(damage(file.read_bytes()))
    assert cache.find(KEY) is None and "refused" in caplog.text
    cache.store(KEY, b"new")
    assert cache.find(KEY) == b"new" and len(list(cache.folder.glob("*.plan"))) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.pop("plan"), lambda e: e.update(plan="../../etc/passwd"), lambda e: e.update(plan="none.plan"),
        lambda e: e.update(bytes="many"), lambda e: e.update(plan=None), lambda e: e.pop("key"), lambda e: e["key"].update(more=1),
        lambda e: e.update(key=[]), lambda e: e["key"].update(buckets=7),
    ],
)  # fmt: skip
def test_a_damaged_entry_is_a_miss(change, cache):
    cache.store(KEY, b"plan")
    (file,) = cache.folder.glob("*.json")
    entry = json.loads(file.read_text())
    change(entry)
    file.write_text(json.dumps(entry))
    assert cache.find(KEY) is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"null"])
def test_an_entry_that_is_no_json(text, cache):
    cache.store(KEY, b"plan")
    next(cache.folder.glob("*.json")).write_bytes(text)
    assert cache.find(KEY) is None


def test_an_interrupted_write_leaves_the_old_plan(cache, monkeypatch):
    cache.store(KEY, b"old")

    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(UnavailableError, match="No space left.*FUSEDX_CACHE"):
        cache.store(KEY, b"new")
    assert cache.find(KEY) == b"old" and len(list(cache.folder.iterdir())) == 2


def test_writers_at_once_leave_a_whole_plan(cache):
    plans = [bytes([i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=cache.store, args=(KEY, plan)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.find(KEY) in (*plans, None)  # None: the last entry's plan was cleared by a slower writer, and is built again


def test_a_folder_that_anyone_may_write_to(cache):
    cache.store(KEY, b"plan")
    assert cache.folder.stat().st_mode & 0o077 == 0
    cache.folder.chmod(0o777)
    with pytest.raises(UnavailableError, match="plans are code"):
        cache.find(KEY)
    with pytest.raises(UnavailableError, match="plans are code"):
        cache.store(KEY, b"plan")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for use in (lambda cache: cache.store(KEY, b"plan"), lambda cache: cache.find(KEY)):
        with pytest.raises(UnavailableError, match="FUSEDX_CACHE"):
            use(PlanCache(tmp_path / "file"))


def test_discard_forgets_what_would_be_found(cache):
    compatible = dataclasses.replace(KEY, version_compatible=True)
    cache.store(compatible, b"plan")
    cache.store(KEY, b"other")
    cache.discard(dataclasses.replace(compatible, tensorrt="11.9.0"))
    assert cache.find(compatible) is None and cache.find(KEY) == b"other"
    assert len(list(cache.folder.glob("*.plan"))) == 1


def test_timing_is_shared_by_models_and_not_by_machines(cache):
    assert cache.timing(KEY) == b""
    cache.store_timing(KEY, b"timing")
    for field, value in CHANGED.items():
        shared = field in ("model", "precision", "buckets", "version_compatible")
        assert cache.timing(dataclasses.replace(KEY, **{field: value})) == (b"timing" if shared else b""), field


def test_where_the_cache_is(tmp_path):
    assert PlanCache(environment={"FUSEDX_CACHE": str(tmp_path)}).folder == tmp_path / "tensorrt"


class FakeManagement:
    """NVML: fills the buffer, or fails with a status."""

    def __init__(self, status: int = 0) -> None:
        self.status, self.open = status, 0

    def nvmlInit_v2(self) -> int:
        self.open += 1
        return 0

    def nvmlSystemGetDriverVersion(self, buffer, size: int) -> int:
        buffer.value = b"580.65.06"[: size - 1]
        return self.status

    def nvmlShutdown(self) -> None:
        self.open -= 1


def test_the_driver_s_release():
    library = FakeManagement()
    assert driver_release(lambda name: library) == "580.65.06" and library.open == 0
    with pytest.raises(UnavailableError, match="NVML gives status 9"):
        driver_release(lambda name: FakeManagement(9))
    with pytest.raises(UnavailableError, match="cannot be read"):
        driver_release(lambda name: (_ for _ in ()).throw(OSError("libnvidia-ml.so.1: no such file")))


def test_the_platform_of_a_gpu():
    from fusedx.engine.cuda.device import GPU
    from fusedx.kernels.target import TARGETS

    gpu = GPU(0, "NVIDIA H100", TARGETS[90], 80 << 30, "13.0")
    assert Platform.of(gpu, lambda name: FakeManagement()) == Platform("NVIDIA H100", "9.0", "580.65.06", "13.0")
