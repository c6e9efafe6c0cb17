"""One small chain of every weight format and two frames, for compute-sanitizer to watch; or a chain with a broken pointer: MODEL [--break].

A process of its own, because a kernel that fails takes the process's GPU with it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from golden_chains import PRECISIONS, open_chains, torch_memory

from fusedx.engine.cuda import device
from fusedx.engine.cuda.device import GPU
from fusedx.engine.edge.frames import FrameResizer
from fusedx.engine.errors import DeviceError
from fusedx.engine.preprocess import SIZE, normalize, to_square_uint8


def main(path: Path, *, broken: bool) -> None:
    gpu = device.find_all()[0]
    rng = np.random.default_rng(0)
    for precision in ("fp32",) if broken else PRECISIONS:
        chains = open_chains(path, gpu, torch_memory(gpu), precision, watchdog_s=600.0)  # the sanitizer is slow
        width, classes = chains._weight_p.shape
        encoded = {"prior": rng.dirichlet(np.ones(classes), 3), "feature": rng.normal(size=(3, width)).astype(np.float32)}
        if broken:
            chains._kernel._hidden = replace(chains._kernel._hidden, pointer=1 << 46)
        scores = chains.run(encoded, rng.normal(size=(chains._steps, 3, 3, classes)), keep=False).scores
        assert np.isfinite(scores).all()
        print(precision, "done")
    if not broken:
        resize(gpu, rng)


def resize(gpu: GPU, rng: np.random.Generator) -> None:
    """One frame that shrinks and one that grows; a result that is not the host's is an error too."""
    memory = torch_memory(gpu)
    with memory.exclusive():
        resizer, out = FrameResizer(memory, gpu), memory.empty(3 * SIZE * SIZE * 4)
        for shape in ((257, 300, 3), (5, 3, 3)):
            frame = rng.integers(0, 256, shape, np.uint8)
            resizer.run(frame, out.pointer)
            assert np.array_equal(memory.read(out, np.float32, (3, SIZE, SIZE)), normalize(to_square_uint8(frame)))
    print("resize done")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), broken="--break" in sys.argv)
    except DeviceError as error:
        sys.exit(f"DeviceError: {error}")
