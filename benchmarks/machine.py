"""What a measurement was taken on: machine, versions, commit.  Every benchmark prints it first."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fusedx.engine import processor


def describe() -> dict[str, str]:
    """Name -> text, in print order."""
    return {
        "processor": _processor(),
        "cores": str(processor.usable()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions("numpy", "torch", "openvino"),
        "commit": _commit(),
    }


def show() -> dict[str, str]:
    """Print and return :func:`describe`."""
    facts = describe()
    for name, text in facts.items():
        print(f"{name:10s} {text}")
    return facts


def gpu() -> dict[str, str]:
    """Name -> text of the first GPU as nvidia-smi and the driver report it; empty where neither does."""
    fields = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.draw", "power.limit", "temperature.gpu")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return {}
    found = dict(zip(fields, (text.strip() for text in out.split(",")), strict=False))
    clocks = f"SM {found.get('clocks.sm')} of {found.get('clocks.max.sm')}, memory {found.get('clocks.mem')}"
    power = f"{found.get('power.draw')} of {found.get('power.limit')}, {found.get('temperature.gpu')} C"
    return {"gpu": found["name"], "driver": found.get("driver_version", "unknown"), "clocks": clocks, "power": power}


def show_gpu() -> dict[str, str]:
    """Print and return :func:`gpu`, with what the CUDA driver says of its size and the versions of what runs on it."""
    from fusedx.engine.cuda import device

    found = device.find_all()[0]
    facts = {"gpu": found.name, **gpu(), "SMs": str(found.target.sms), "L2": f"{found.target.l2 / 2**20:.0f} MiB"}
    facts |= {"memory": f"{found.memory / 2**30:.0f} GiB", "CUDA": found.driver}
    facts["packages"] = versions("torch", "triton", "tensorrt", "tensorrt-lean-cu13", "onnxruntime")
    for name, text in facts.items():
        print(f"{name:10s} {text}")
    return facts


def versions(*packages: str) -> str:
    """Name and version of each, or that it is absent."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} absent")
    return ", ".join(found)


def _processor() -> str:
    have = processor.flags()
    flags = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f in have]
    name = processor.name()
    return f"{name} ({', '.join(flags)})" if name else platform.processor() or "unknown"


def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    try:
        head, dirty = (
            subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "not a checkout"
    return head + (" with local changes" if dirty else "")
