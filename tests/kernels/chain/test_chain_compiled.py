"""chain.cu through nvcc for every GPU: it compiles, spills nothing, fits the processor, and is made of the instructions it means to."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fusedx.engine.cuda.binaries import FLAGS, KERNELS, nvcc
from fusedx.kernels.chain import FORMATS, plan
from fusedx.kernels.target import TARGETS

NVCC = nvcc()
MMA = {"bf16": "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "fp16": "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"}
MMA["fp8"] = MMA["fp16"]


def compile_to(out: Path, cc: int) -> str:
    """With the engine's own flags, to what ``out`` ends in; what the assembler reports."""
    arch = TARGETS[cc].arch
    virtual = arch.replace("sm_", "compute_")
    flags = [f"-{out.suffix[1:]}" if flag == "-cubin" else flag for flag in FLAGS]
    generate = f"-gencode=arch={virtual},code={virtual if out.suffix == '.ptx' else arch}"
    source = str(KERNELS / "chain" / "chain.cu")
    command = [str(NVCC), *flags, "-Xptxas", "-v", generate, "-o", str(out), source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    return done.stderr


def disassembler() -> str | None:
    """cuobjdump of the toolkit, or the one that Triton brings."""
    triton = importlib.util.find_spec("triton")
    inside = Path(triton.origin).parent / "backends/nvidia/bin" if triton and triton.origin else Path()
    return shutil.which("cuobjdump") or shutil.which("cuobjdump", path=f"/usr/local/cuda/bin:{inside}")


def by_entry(text: str, start: str) -> dict[str, str]:
    """Format name -> its kernel's part of a listing."""
    parts = re.split(start + r"\s*fusedx_chain_(\w+)", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize("cc", TARGETS)
def test_compiles_within_the_gpus_limits(cc: int, tmp_path: Path) -> None:
    report = by_entry(compile_to(tmp_path / "chain.cubin", cc), r"Compiling entry function '")
    assert set(report) == set(FORMATS)
    for name, text in report.items():
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in text, name
        registers = int(re.search(r"Used (\d+) registers", text).group(1))
        assert registers * 256 <= TARGETS[cc].registers_per_sm and registers <= 255
        assert " smem" not in text  # no static shared memory: all of it is the plan's
        for rows in (1, 8):
            assert plan(TARGETS[cc], name, 6144, 7, rows).shared_bytes <= TARGETS[cc].shared_per_block
    if tool := disassembler():
        sass = subprocess.run([tool, "-sass", str(tmp_path / "chain.cubin")], capture_output=True, text=True).stdout
        check_machine_code(by_entry(sass, r"Function : "))


def check_machine_code(sass: dict[str, str]) -> None:
    assert set(sass) == set(FORMATS)
    for name, text in sass.items():
        assert not re.search(r"\b(LDL|STL)\b", text), f"{name} uses local memory"
        assert len(re.findall(r"LDGSTS\.E\.BYPASS\.128", text)) >= 4  # cp.async, past L1
        # Two layers of one stage each: four chunks, of two tensor core steps in fp8.
        assert len(re.findall(r"HMMA\.16816\.F32", text)) == {"fp32": 0, "bf16": 8, "fp16": 8, "fp8": 16}[name]


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
def test_is_made_of_the_instructions_it_means_to(tmp_path: Path) -> None:
    compile_to(tmp_path / "chain.ptx", 80)  # the oldest: what it has, all have
    for name, text in by_entry((tmp_path / "chain.ptx").read_text(), r"\.visible \.entry ").items():
        families = set(re.findall(r"mma\.sync\S*|wgmma\S*|tcgen05\S*", text))
        assert families == ({MMA[name]} if name in MMA else set())
        for needed in ("cp.async.cg.shared.global.L2::cache_hint", "cp.async.wait_group", "red.release.gpu", "ld.acquire.gpu"):
            assert needed in text, (name, needed)
        assert "fma.rn.f64" not in text  # double precision rounds as the CPU's
