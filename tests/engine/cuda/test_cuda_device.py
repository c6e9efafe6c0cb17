"""Which GPU a device string means, on machines that there may be."""

from __future__ import annotations

import pytest

from fusedx.engine.cuda import device
from fusedx.engine.errors import ConfigError, UnavailableError


@pytest.mark.parametrize(("text", "index"), [("cpu", None), ("cuda", 0), ("cuda:0", 0), ("cuda:17", 17)])
def test_parse(text: str, index: int | None) -> None:
    assert device.parse(text) == index


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:-1", "cuda:1 ", "cuda:1\n", "CUDA", "cuda:1000", "cuda:\u0661", None, 0])
def test_parse_refuses(text: object) -> None:
    with pytest.raises(ConfigError, match="device must be cpu, cuda or cuda:N"):
        device.parse(text)  # type: ignore[arg-type]


def test_the_driver_replaces_the_tables_numbers(fake) -> None:
    fake.set(sms=78, shared_per_block=111 << 10, shared_per_sm=112 << 10, l2=7 << 20, memory=5 << 30, version=13010)
    gpu = device.find(0)
    t = gpu.target
    assert (t.cc, t.arch, t.sms, t.shared_per_block, t.shared_per_sm, t.l2) == (90, "sm_90a", 78, 111 << 10, 112 << 10, 7 << 20)
    assert (gpu.memory, gpu.driver, gpu.compute_capability) == (5 << 30, "13.1", "9.0")
    assert str(gpu) == "cuda:0 Fake GPU 0, compute capability 9.0, 78 SMs, 5 GiB"


@pytest.mark.parametrize(("cc", "arch"), [("8.0", "sm_80"), ("8.7", "sm_87"), ("8.8", "sm_87"), ("10.3", "sm_100"), ("12.1", "sm_120")])
def test_newer_minor_versions_run_the_nearest_binaries(fake, cc: str, arch: str) -> None:
    major, minor = cc.split(".")
    fake.set(major=int(major), minor=int(minor))
    assert device.find(0).target.arch == arch


@pytest.mark.parametrize(("major", "minor"), [(7, 5), (11, 0), (13, 0)])
def test_other_generations_are_refused_by_name(fake, major: int, minor: int) -> None:
    fake.set(major=major, minor=minor)
    with pytest.raises(UnavailableError, match=rf"cuda:0 \(Fake GPU 0\) cannot be used: compute capability {major}\.{minor} is not"):
        device.find(0)
    assert device.find_all() == [] and "none of the 1 GPUs" in str(device.why_not())


def test_an_index_that_is_not_there(fake) -> None:
    fake.set(devices=2)
    with pytest.raises(UnavailableError, match=r"there is no cuda:2; .*: cuda:0 \(Fake GPU 0\), cuda:1 \(Fake GPU 1\)"):
        device.find(2)
    assert [gpu.index for gpu in device.find_all()] == [0, 1] and device.why_not() is None


def test_why_not(fake) -> None:
    fake.set(devices=0)
    assert device.why_not() == "the driver sees no GPU"
    with pytest.raises(UnavailableError, match="may see: none"):
        device.find(0)
