"""The chain kernel compiled for this CPU, and launches of it on numpy arrays.

``library()`` compiles ``kernels/chain/chain.cu`` over the fibers beside this file, once a pytest process; ``run`` is one launch.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fusedx.kernels.chain import ChainControl, ChainParams, ChainPlan, chain_params
from fusedx.kernels.chain.reference import ChainInputs

HERE = Path(__file__).resolve().parent
CHAIN = HERE.parents[1] / "kernels" / "chain"
# -ffp-contract=off: products and sums round as they are written, as -fmad=false has it on the GPU.
# Fibers jump between stacks, which fortified longjmp refuses.
FLAGS = ["-std=c++20", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra", "-U_FORTIFY_SOURCE", "-DFUSEDX_CUDA_ON_CPU"]
SKIP = "no g++ to compile the CUDA kernels for the CPU with"


class Faults(ctypes.Structure):
    """``scheduler.hpp``: the seed of an interleaving, and what to leave out."""

    _fields_ = [
        ("seed", ctypes.c_uint64),
        *((name, ctypes.c_int32) for name in ("lost_block", "lost_at", "skipped_block_sync", "skipped_grid_barrier", "skip_copy_wait")),
    ]


class Report(ctypes.Structure):
    _fields_ = [("problem", ctypes.c_char * 256), ("sync_sites", ctypes.c_int32), ("kept", ctypes.c_int64), ("left", ctypes.c_int64)]


@functools.cache
def _compile(folder: Path) -> tuple[Path, str]:
    """The shared library, and what the compiler said where there is none."""
    out = folder / "libchain_on_cpu.so"
    sources = [str(HERE / name) for name in ("scheduler.cpp", "chain_on_cpu.cpp")]
    # fmaf is then one instruction instead of a library call, where the processor has it.
    native = ["-march=native"] if platform.machine() in ("x86_64", "aarch64") else []
    command = ["g++", *FLAGS, *native, f"-I{HERE}", f"-I{CHAIN}", "-o", str(out), *sources]
    return out, subprocess.run(command, capture_output=True, text=True).stderr


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="fusedx-chain-")


def library() -> ctypes.CDLL:
    """The emulator; skips the calling test where there is no compiler."""
    if shutil.which("g++") is None or platform.system() != "Linux":
        pytest.skip(SKIP)
    out, said = _compile(Path(_folder().name))
    assert out.exists(), said
    return _load(out)


@functools.cache
def _load(out: Path) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(out))
    launch = [ctypes.POINTER(ChainParams), ctypes.c_int, ctypes.c_int, ctypes.c_size_t]
    lib.fx_chain_emulate.argtypes = [*launch, ctypes.c_uint64]
    lib.fx_chain_emulate_with.argtypes = [*launch, ctypes.POINTER(Faults), ctypes.POINTER(Report)]
    lib.fx_chain_layout.restype = ctypes.c_char_p
    lib.fx_chain_shared_bytes.argtypes = [ctypes.POINTER(ChainParams), ctypes.c_int]
    lib.fx_chain_shared_bytes.restype = ctypes.c_size_t
    lib.fx_softplus.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    lib.fx_decode_fp8.argtypes = [ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p]
    for name, argument, result in (
        ("fx_to_bf16", ctypes.c_float, ctypes.c_uint16),
        ("fx_to_fp16", ctypes.c_float, ctypes.c_uint16),
        ("fx_from_fp16", ctypes.c_uint16, ctypes.c_float),
    ):
        getattr(lib, name).argtypes, getattr(lib, name).restype = [argument], result
    return lib


@dataclass(frozen=True)
class Outcome:
    """states float64 [T + 1, R, C]; problem: what the emulator noticed, or empty; status: what the kernel left.

    copied: bytes of weights that the L2 cache was asked to keep, and other bytes of weights.
    """

    states: np.ndarray
    problem: str
    status: int
    sync_sites: int
    copied: tuple[int, int]


def run(
    plan: ChainPlan,
    x: ChainInputs,
    *,
    family: str = "posterior",
    seed: int = 0,
    watchdog_s: float = 1000.0,
    lost_block: int = -1,
    lost_at: int = 0,
    skipped_block_sync: int = -1,
    skipped_grid_barrier: int = -1,
    skip_copy_wait: bool = False,
) -> Outcome:
    """One launch.  Scratch and states start as not-a-number, with guards around them."""
    rows, steps = len(x.start), len(x.table_row)
    states = Guarded((steps + 1, rows, plan.classes), np.float64)
    states.array[0] = x.start
    hidden = Guarded((rows * plan.shape.k * plan.format.activation_bytes,), np.uint8)
    partial = Guarded((rows, plan.classes, plan.shape.tiles), np.float32)
    arrays = {"weight": x.weight, "scale": x.scale, "shift": x.shift}
    arrays |= {n: getattr(x, n) for n in ("weight_y", "constant", "feature", "weight4", "bias4", "entry", "table_row", "coefficients")}
    arrays |= {n: getattr(x, n) for n in ("mean", "noise") if getattr(x, n) is not None}
    held = {name: tuple(Fenced(a) for a in v) if isinstance(v, tuple) else Fenced(v) for name, v in arrays.items()}
    pointers = {name: tuple(a.address for a in v) if isinstance(v, tuple) else v.address for name, v in held.items()}
    block = Fenced(np.frombuffer(bytes(ChainControl()), np.uint8))
    pointers |= {"states": states.address, "hidden": hidden.address, "partial": partial.address, "control": block.address}
    params = chain_params(plan, pointers, family=family, steps=steps, rows=rows, watchdog_s=watchdog_s)
    faults = Faults(seed, lost_block, lost_at, skipped_block_sync, skipped_grid_barrier, int(skip_copy_wait))
    report = Report()
    library().fx_chain_emulate_with(params, plan.format.code, plan.blocks, plan.shared_bytes, faults, report)
    problem = report.problem.decode() or " ".join(g.problem() for g in (states, hidden, partial)).strip()
    status = ChainControl.from_buffer_copy(block.array.tobytes()).status
    return Outcome(states.array.copy(), problem, status, report.sync_sites, (report.kept, report.left))


class Fenced:
    """A copy of an array, at a multiple of 16, whose last 16 bytes end where readable memory ends: a read beyond it is an error."""

    PROTECTION_NONE = 0

    def __init__(self, array: np.ndarray) -> None:
        inside = -(-max(array.nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        self.memory = mmap.mmap(-1, inside + mmap.PAGESIZE)
        whole = np.frombuffer(self.memory, np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        done = libc.mprotect(ctypes.c_void_p(whole.ctypes.data + inside), ctypes.c_size_t(mmap.PAGESIZE), self.PROTECTION_NONE)
        assert done == 0, "mprotect failed"
        start = inside - -(-array.nbytes // 16) * 16
        self.array = whole[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        self.array[...] = array
        self.address = self.array.ctypes.data


class Guarded:
    """Memory of not-a-number between two guards of 4 KB."""

    SIZE = 4096

    def __init__(self, shape: tuple[int, ...], dtype: type) -> None:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.raw = np.full(nbytes + 2 * self.SIZE + 16, 0xFF, np.uint8)
        self.start = -self.raw.ctypes.data % 16 + self.SIZE
        self.end = self.start + nbytes
        self.array = self.raw[self.start : self.end].view(dtype).reshape(shape)
        self.address = self.raw.ctypes.data + self.start

    def problem(self) -> str:
        whole = np.all(self.raw[: self.start] == 0xFF) and np.all(self.raw[self.end :] == 0xFF)
        return "" if whole else f"a write outside an array of {self.array.nbytes} bytes"
