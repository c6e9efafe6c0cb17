"""A small denoiser with realistic numbers, and the fake GPU that runs its chain kernel by emulation on the CPU."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import numpy as np
from fake_driver import FakeDriver

from fusedx.engine.backends.python import PythonDenoiser
from fusedx.engine.chain_runner import HostChains
from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.manifest import MAP_POINTS, Network
from fusedx.engine.schedule import Schedule
from fusedx.kernels import chain


@dataclass
class Emulator:
    """Runs launches on the fake driver by tests/cuda_on_cpu.  ``rows`` of every launch; ``status``: written instead of running."""

    fake: FakeDriver
    library: ctypes.CDLL
    seed: int = 1
    status: int = 0
    result: int = 0
    rows: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fake.on_launch(self.launch, {f"fusedx_chain_{name}": [ctypes.sizeof(chain.ChainParams)] for name in chain.FORMATS})

    def launch(self, symbol, grid, block, shared, arguments, cooperative) -> int:  # noqa: ANN001
        """See fake_driver.Launcher."""
        params = chain.ChainParams.from_address(arguments[0])
        assert cooperative and block == (256, 1, 1) and grid[1:] == (1, 1)
        self.rows.append(params.rows)
        if self.status:
            chain.ChainControl.from_address(params.control).status = self.status
        if self.status or self.result:
            return self.result
        code = chain.FORMATS[symbol.removeprefix("fusedx_chain_")].code
        return 719 if self.library.fx_chain_emulate(ctypes.byref(params), code, grid[0], shared, self.seed) else 0


def network(family: str = "diffmic-v1", *, classes: int = 5, width: int = 100, **more: object) -> Network:
    vit = {"vit_width": 64, "vit_depth": 1} if family == "diffmic-v2" else {}
    return Network(family, classes, width, "resnet18", "resnet18", 8, **vit, **more)


def schedule(steps: int) -> Schedule:
    return Schedule("linear", 1e-4, 0.02, 1000, steps)


def tables(shape: Network, steps: int, seed: int = 0) -> DenoiserTables:
    """Inputs of a layer are softplus values, all positive, so weights of mean zero keep its sums near one."""
    f, c, rng = shape.feature_dim, shape.num_classes, np.random.default_rng(seed)

    def normal(*size: int, spread: float = 1.0, mean: float = 0.0) -> np.ndarray:
        return (mean + spread * rng.normal(size=size)).astype(np.float32)

    arrays = {"weight_y": normal(f, c), "weight_p": normal(f, c), "weight2": normal(f, f, spread=f**-0.5)}
    arrays |= {"weight3": normal(f, f, spread=f**-0.5), "weight4": normal(c, f, spread=f**-0.5), "bias4": normal(c, spread=0.1)}
    for k in (1, 2, 3):
        arrays |= {f"scale{k}": normal(steps, f, spread=0.2, mean=1.0), f"shift{k}": normal(steps, f, spread=0.2)}
    return DenoiserTables(**arrays)


def encoded(shape: Network, images: int, seed: int = 0) -> dict[str, np.ndarray]:
    """What an encoder gives the chain."""
    rng = np.random.default_rng(seed)
    feature = rng.normal(size=(images, shape.feature_dim)).astype(np.float32)
    if shape.family == "diffmic-v2":
        ends = rng.normal(size=(2, images, shape.num_classes)).astype(np.float32)
        return {"y_global": ends[0], "y_local": ends[1], "fused_feature": feature}
    prior = rng.dirichlet(np.ones(shape.num_classes), images).astype(np.float32)
    return {"prior": prior, "feature": feature}


def noise(shape: Network, steps: int, draws: int, images: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed + 100)
    if shape.family == "diffmic-v2":
        return rng.random((2, draws, images, shape.num_classes))
    return rng.normal(size=(steps, draws, images, shape.num_classes))


def states(shape: Network, images: int, seed: int = 0) -> np.ndarray:
    """y as ``eps`` takes it."""
    points = (MAP_POINTS,) if shape.family == "diffmic-v2" else ()
    return np.random.default_rng(seed + 200).normal(size=(images, *points, shape.num_classes))


def reference(shape: Network, steps: int, weights: DenoiserTables) -> HostChains:
    """The same chain in float64 on the host."""
    wide = DenoiserTables(**{name: array.astype(np.float64) for name, array in weights.arrays().items()})
    return HostChains(shape, schedule(steps), PythonDenoiser(wide))
