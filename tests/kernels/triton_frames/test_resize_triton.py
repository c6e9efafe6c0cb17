"""The Triton resize without a GPU: semantics under the interpreter, and machine code for every target."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from fusedx.kernels.target import TARGETS

pytest.importorskip("torch", reason="needs torch")
triton = pytest.importorskip("triton", reason="needs triton")

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def cold_cache(tmp_path, monkeypatch):
    """What an earlier run compiled must not stand in for a source that no longer compiles."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))


@pytest.mark.parametrize("interpreted_file", sorted(Path(__file__).parent.glob("interpreted_*.py")), ids=lambda file: file.name)
def test_under_the_interpreter(interpreted_file, beside):
    beside.check(interpreted_file)


FRAME = {"pixels": "*u8", "image_stride": "i64", "row_stride": "i64", "column_stride": "i64", "channel_stride": "i64"}
TAPS = {"side": "i32", "first": "*i32", "weight": "*i32", "most": "i32"}
OUTPUT = {"values": "*fp32", "out": "*fp32", "image_stride": "i64", "channel_stride": "i64", "row_stride": "i64", "column_stride": "i64"}
SIGNATURES = {
    "across_kernel": FRAME | TAPS | {"narrow": "*u8"},
    "down_kernel": {"narrow": "*u8"} | TAPS | OUTPUT,
}


@pytest.mark.parametrize("name", SIGNATURES)
@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda t: t.arch)
def test_compiles_small_and_without_spills(target, name, tmp_path):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fusedx.kernels.resize import triton as kernels

    constants = {"SIZE": 224, "BLOCK": 256, "ROWS": kernels.ROWS}
    signature = SIGNATURES[name] | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=getattr(kernels, name), signature=signature, constexprs=constants)
    options = {"num_warps": kernels.WARPS, "enable_fp_fusion": False}
    made = triton.compile(source, target=GPUTarget("cuda", target.cc, 32), options=options)
    assert made.metadata.shared == 0  # lanes run along the lines from load to store: no exchange between them

    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(made.asm["cubin"])
    usage = subprocess.run([triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True)
    found = {key: int(number) for key, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage.stdout)}
    assert found.keys() == {"REG", "STACK", "LOCAL"}, usage.stdout
    assert found["STACK"] == found["LOCAL"] == 0  # no spills
    assert found["REG"] * 32 * kernels.WARPS * 4 <= target.registers_per_sm  # four programs a processor, to hide the latency of loads


@pytest.mark.parametrize("name", SIGNATURES)
def test_one_variant_serves_everything(name):
    """No argument is specialised: a new size, stride or address must not compile in the middle of serving."""
    from fusedx.kernels.resize import triton as kernels

    arguments = [p for p in getattr(kernels, name).params if not p.is_constexpr]
    assert [p.name for p in arguments] == list(SIGNATURES[name])
    assert all(p.do_not_specialize for p in arguments)
    integers = {p.name: p.annotation_type for p in arguments if p.annotation_type}  # without a type it would go by the value
    assert integers == {k: v for k, v in SIGNATURES[name].items() if not v.startswith("*")}
