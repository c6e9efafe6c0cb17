"""The integer kernels give the same bits on instruction sets that this machine may not have.

    avxvnni          compiled as it ships; in the assembly, VEX spellings of vpdpbusd become EVEX ones, which AVX-512 machines run
    amx              the tile instructions in plain C++ (amx_emulated.hpp), everything else as it ships
    neon, neondot    cross-compiled, run by qemu-aarch64
    portable         plain vector arithmetic for any other processor, compiled for this one

How fast they are on processors of their own, nothing here says.
"""

import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from fusedx.kernels import native_module

ROOT = Path(__file__).resolve().parents[2]
LAYER = ROOT / "kernels" / "conditional_layer"
HERE = Path(__file__).parent
COMPILER, CROSS = shutil.which("g++"), shutil.which("aarch64-linux-gnu-g++")
ISAS = native_module.native.isas() if native_module.native else ()
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"]
LINES = 440

x86 = pytest.mark.skipif(COMPILER is None or platform.machine() != "x86_64", reason="needs g++ on x86-64")


def command(*arguments: object) -> str:
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{arguments[0]}: exit status {done.returncode}\n{done.stderr[-3000:]}"
    return done.stdout


def flags(isa: str) -> list[str]:
    return ["-std=c++20", "-O1", "-ffp-contract=off", "-Wno-psabi", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'kernels'}", f"-DFUSEDX_ISA={isa}"]


def build(out: Path, isa: str, *extra: object, compiler: object = None, kernel: Path = LAYER / "integer_panels.cpp") -> Path:
    """The program for one instruction set."""
    sources = [kernel, LAYER / "integer_sums.cpp", HERE / "integer_layer_bits.cpp"]
    command(compiler or COMPILER, *flags(isa), *extra, *sources, "-o", out)
    return out


@cache
def plain_bits(folder: Path) -> str:
    """The baseline's, in 128-bit vectors of this processor."""
    return command(build(folder / "baseline", "baseline"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("isas")


def check(folder: Path, text: str) -> None:
    expected, found = plain_bits(folder).splitlines(), text.splitlines()
    assert len(expected) == len(found) == LINES
    different = [line for line, other in zip(expected, found, strict=True) if line != other]
    assert not different, f"{len(different)} of {len(expected)} differ, first: {different[:5]}"


@x86
def test_portable(folder):
    check(folder, command(build(folder / "portable", "baseline", "-DFUSEDX_PORTABLE_DOT")))


@x86
@pytest.mark.skipif("avx512vnni" not in ISAS, reason="needs AVX-512 VNNI to run AVX-VNNI's arithmetic")
def test_avxvnni(folder):
    assembly = folder / "avxvnni.s"
    command(COMPILER, *flags("avxvnni"), *AVX2, "-mavxvnni", "-S", LAYER / "integer_panels.cpp", "-o", assembly)
    text, count = re.subn(r"\{vex\} vpdpbusd", "{evex} vpdpbusd", assembly.read_text())
    assert count > 100, "the kernel does not multiply by vpdpbusd"
    assembly.write_text(text)
    check(folder, command(build(folder / "avxvnni", "avxvnni", kernel=assembly)))


@x86
@pytest.mark.skipif("avx512vnni" not in ISAS, reason="needs AVX-512 VNNI for all but the tiles")
def test_amx(folder):
    emulated = ["-D__AMX_INT8__=1", "-include", HERE / "amx_emulated.hpp"]
    check(folder, command(build(folder / "amx", "amx", *AVX512, "-mavx512vnni", *emulated)))


@x86
@pytest.mark.skipif(not (CROSS and shutil.which("qemu-aarch64")), reason="needs an aarch64 cross compiler and qemu-aarch64")
@pytest.mark.parametrize("isa, extra", [("neon", []), ("neondot", ["-march=armv8.2-a+dotprod"])])
def test_aarch64(folder, isa, extra):
    program = build(folder / isa, isa, "-static", *extra, compiler=CROSS)
    check(folder, command("qemu-aarch64", program))
