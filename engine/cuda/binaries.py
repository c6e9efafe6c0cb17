"""Compiled CUDA kernels for one architecture: shipped with the package, or compiled once by nvcc and kept.

A binary is looked for by a digest of everything that decides its content: every source file of its folder, the flags, and the
architecture.  So a changed source never runs an old binary, and a build machine and a user agree on the name.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from fusedx import kernels
from fusedx.engine.cache_folder import anyone_may_write, cache_folder, write_whole
from fusedx.engine.errors import UnavailableError
from fusedx.kernels.target import Target

log = logging.getLogger("fusedx")

KERNELS = Path(kernels.__file__).parent
SHIPPED = KERNELS / "cubin"
#: Files of a kernel's folder that decide its binary.
SOURCES = (".cu", ".cuh")
_DIGEST = hashlib.sha256().digest_size
#: A fused multiply-add is written where it is meant, so that a kernel rounds alike on every target.
FLAGS = ("-std=c++17", "-O3", "-cubin", "--fmad=false")


def file_name(source: Path, target: Target) -> str:
    """Name of the binary of ``source``, such as ``chain-sm_90a-0123456789abcdef.cubin``."""
    digest = hashlib.sha256(repr((FLAGS, target.arch)).encode())
    for file in sorted(f for f in source.parent.iterdir() if f.suffix in SOURCES):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return f"{source.stem}-{target.arch}-{digest.hexdigest()[:16]}.cubin"


def load(source: Path, target: Target) -> bytes:
    """The binary of a .cu file.  Raises UnavailableError where it is neither shipped nor kept and nvcc is absent or fails."""
    name = file_name(source, target)
    kept = cache_folder() / "kernels" / name
    shipped = SHIPPED / name
    if shipped.is_file():
        log.info("%s for %s: hit, shipped binary %s", source.name, target.arch, name)
        return shipped.read_bytes()
    binary = _kept(kept)
    if binary is not None:
        log.info("%s for %s: hit, kept binary %s", source.name, target.arch, name)
        return binary
    log.info("%s for %s: miss, no binary %s is shipped or kept; compiling", source.name, target.arch, name)
    binary = compile_cuda(source, target)
    _keep(kept, binary)
    return binary


def nvcc() -> str | None:
    """Path of the CUDA compiler: FUSEDX_NVCC, the path, then the toolkit's usual places."""
    chosen = os.environ.get("FUSEDX_NVCC")
    if chosen:
        return chosen if os.path.isfile(chosen) and os.access(chosen, os.X_OK) else None
    toolkits = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    return shutil.which("nvcc") or next((p for t in toolkits if t and (p := shutil.which("nvcc", path=f"{t}/bin"))), None)


def compile_cuda(source: Path, target: Target) -> bytes:
    """Run nvcc; UnavailableError with its own words where it fails."""
    compiler = nvcc()
    if compiler is None:
        chosen = os.environ.get("FUSEDX_NVCC")
        missing = f"FUSEDX_NVCC={chosen} is not a program" if chosen else "nvcc is not installed"
        raise UnavailableError(
            f"this installation holds no {source.name} for {target.arch} and {missing}: install the CUDA toolkit 12.8 or newer, name its "
            "compiler in FUSEDX_NVCC, or use a wheel that ships the kernels"
        )
    arch = target.arch.removeprefix("sm_")
    with tempfile.TemporaryDirectory(prefix="fusedx-nvcc-") as folder:
        out = Path(folder) / "out.cubin"
        command = [compiler, *FLAGS, f"-gencode=arch=compute_{arch},code=sm_{arch}", str(source), "-o", str(out)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise UnavailableError(f"nvcc cannot be run: {compiler}: {error.strerror}") from None
        if done.returncode or not out.is_file():
            said = next((line for line in done.stderr.splitlines() if "error" in line.lower()), done.stderr.strip()[:300] or "no output")
            raise UnavailableError(f"nvcc cannot compile {source.name} for {target.arch}: {said}")
        return out.read_bytes()


def _kept(path: Path) -> bytes | None:
    """A kept binary, without the SHA-256 that follows it; None where there is none or it is damaged."""
    try:
        if anyone_may_write(path.parent):
            log.warning("anyone may write to %s, and kernels are code: none there is used; chmod o-w it, or set FUSEDX_CACHE", path.parent)
            return None
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s cannot be read: %s", path.name, error)
        return None
    binary, digest = data[:-_DIGEST], data[-_DIGEST:]
    if hashlib.sha256(binary).digest() == digest:
        return binary
    log.warning("%s is damaged and is made again", path.name)
    return None


def _keep(path: Path, binary: bytes) -> None:
    """A cache that cannot be written costs time, not results."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, binary + hashlib.sha256(binary).digest())
    except OSError as error:
        log.warning("%s is not kept: %s", path.name, error)
