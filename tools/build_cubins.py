"""Compile every CUDA kernel for every supported GPU: python tools/build_cubins.py OUT_DIR.  Needs nvcc 12.8 or newer.

The files are named by a digest of their sources, so that an installation finds them only if they are its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

from fusedx.engine.cuda import binaries  # noqa: E402
from fusedx.engine.errors import UnavailableError  # noqa: E402
from fusedx.kernels.target import TARGETS, Target  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("*.cubin"):
        stale.unlink()

    def build(job: tuple[Path, Target]) -> None:
        source, target = job
        started = time.perf_counter()
        path = out / binaries.file_name(source, target)
        path.write_bytes(binaries.compile_cuda(source, target))
        print(f"{path.name}  {path.stat().st_size} bytes  {time.perf_counter() - started:.1f} s", flush=True)

    jobs = [(source, target) for source in sorted(binaries.KERNELS.glob("*/*.cu")) for target in TARGETS.values()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            list(pool.map(build, jobs))
        except UnavailableError as error:
            raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
