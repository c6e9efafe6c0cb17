"""The parallel sampler of the GPU engine on host tensors, its kernels interpreted.  Run by test_cuda_parallel.py with TRITON_INTERPRET=1.

Compiled layers give a row the same bits in any company (tests/gpu); interpreted ones do not, their matrix product being numpy's.  So
here the hidden layers take the rows one by one: everything else is as on a GPU.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small_chain
import torch

from fusedx import golden
from fusedx.compiler import compile_checkpoint
from fusedx.engine.compiled import CompiledModel, open_model
from fusedx.engine.cuda import parallel
from fusedx.engine.cuda.chains import CudaChains
from fusedx.engine.cuda.context import Context
from fusedx.engine.cuda.denoiser import DeviceDenoiser, Layers
from fusedx.engine.cuda.engine import CudaEngine
from fusedx.engine.errors import ConfigError, DeviceError
from fusedx.engine.manifest import Network
from fusedx.engine.sampler import SEQUENTIAL, Plan
from fusedx.engine.sampling import Sampler
from fusedx.verify import relative_error

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
CPU = torch.device("cpu")


def one_by_one(self: DeviceDenoiser, memory: Layers, t: torch.Tensor) -> None:
    """Layers 2 and 3 in numpy, each row by itself, in the formats that the device has."""
    w, rows = self._tables, []
    matrices = [m.float().numpy() for m in (w.weight2, w.weight3, w.weight4)]
    for row, step in zip(memory.u1, t.tolist(), strict=True):
        u = row.float().numpy()
        for k, (scale, shift) in enumerate(((w.scale2, w.shift2), (w.scale3, w.shift3))):
            u = np.logaddexp(np.float32(0), scale[step].numpy() * (matrices[k] @ u) + shift[step].numpy())
        padded = np.pad(u, (0, -len(u) % memory.variant.partial_out)).reshape(-1, memory.variant.partial_out)
        weights = np.pad(matrices[2], ((0, 0), (0, padded.size - len(u)))).reshape(-1, *padded.shape)
        rows.append((weights * padded).sum(axis=-1).T)
    memory.partial.copy_(torch.from_numpy(np.array(rows)))


def row_kernels(self: DeviceDenoiser, memory: Layers, t: torch.Tensor) -> None:
    """The layers' own kernels, launched for one row after the other."""
    for r in range(len(memory.u1)):
        row = slice(r, r + 1)
        hidden(self, Layers(memory.u1[row], memory.u2[row], memory.partial[row], self.variant(1)), t[row].contiguous())


hidden = DeviceDenoiser.hidden


@pytest.fixture(autouse=True)
def alone(monkeypatch) -> None:
    monkeypatch.setattr(DeviceDenoiser, "hidden", one_by_one)


def small(network: Network, steps: int, precision: str = "fp32") -> CudaChains:
    tables = small_chain.tables(network, steps)
    return CudaChains(network, small_chain.schedule(steps), tables, Context(CPU, capture=True), 90, precision)


def both(chains: CudaChains, network: Network, steps: int, draws: int, images: int, rows: int, *, keep: bool = True):
    """(sequential, parallel) of the same request."""
    encoded, noise = small_chain.encoded(network, images), small_chain.noise(network, steps, draws, images)
    return (chains.run(encoded, noise, keep=keep, plan=plan) for plan in (SEQUENTIAL, Plan(rows)))


@pytest.fixture(scope="module")
def golden_model(tmp_path_factory):
    sys.path.insert(0, str(GOLDEN))
    import make_checkpoint

    sys.path.remove(str(GOLDEN))

    def model(name: str) -> CompiledModel:
        folder = tmp_path_factory.mktemp(name)
        make_checkpoint.write(json.loads((GOLDEN / f"{name}.json").read_text()), folder / "checkpoint")
        compile_checkpoint(folder / "checkpoint", folder / f"{name}.fusedx")
        return open_model(folder / f"{name}.fusedx")

    return model


@pytest.mark.parametrize(("name", "precision"), [("v1-small", "fp32"), ("v1-noise-prior", "bf16"), ("v2-small", "fp32")])
def test_golden_tables(golden_model, name, precision):
    """States equal to the last bit, and near the original authors'."""
    case, compiled = golden.load(GOLDEN / f"{name}.json"), golden_model(name)
    m = compiled.manifest
    chains = CudaChains(m.network, m.schedule, compiled.denoiser(), Context(CPU, capture=True), 90, precision)
    names = ("y_global", "y_local", "fused_feature") if name == "v2-small" else ("prior", "feature")
    encoded, noise = {n: case.expected[n][:1] for n in names}, case.noise[:, None, :1]
    a, b = (chains.run(encoded, noise, keep=True, plan=plan) for plan in (SEQUENTIAL, Plan(32)))
    assert a.states.tobytes() == b.states.tobytes() and a.scores.tobytes() == b.scores.tobytes()
    expected = case.expected["prediction" if name == "v2-small" else "y_final"][:1]
    assert relative_error(b.scores[0], expected) < (1e-4 if precision == "fp32" else 2e-2)
    assert chains.residual(encoded, noise, b.states).max() == 0.0
    points = 6 if name == "v2-small" else 1
    assert (a.work.sweeps == m.schedule.steps).all() and (a.work.sequential_steps == points * m.schedule.steps).all()
    assert (b.work.sweeps <= m.schedule.steps).all() and (b.work.rows >= b.work.sweeps).all() and not b.work.sequential_steps.any()


def test_the_layers_own_kernels(golden_model, monkeypatch):
    """Every kernel that a GPU runs."""
    monkeypatch.setattr(DeviceDenoiser, "hidden", row_kernels)
    network = small_chain.network(classes=4, width=96)
    a, b = both(small(network, 6), network, 6, 1, 1, 4)
    assert a.states.tobytes() == b.states.tobytes()


@pytest.mark.parametrize(("family", "classes", "draws", "images", "rows", "keep"), [
    ("diffmic-v1", 2, 1, 1, 64, False), ("diffmic-v1", 15, 3, 1, 16, True), ("diffmic-v2", 4, 1, 1, 16, False),
    ("diffmic-v1", 5, 1, 3, 2, True),
])  # fmt: skip
def test_rows_that_fill_no_bucket(family, classes, draws, images, rows, keep):
    network = small_chain.network(family, classes=classes, width=24)
    a, b = both(small(network, 5, "fp16"), network, 5, draws, images, rows, keep=keep)
    assert a.states.shape == b.states.shape and len(b.states) == (6 if keep else 2)
    assert a.states.tobytes() == b.states.tobytes() and a.scores.tobytes() == b.scores.tobytes()
    assert b.work.sweeps.shape == (draws, images)


def test_several_pieces(monkeypatch):
    """Five chains, four at most at once: draws of an image run in different pieces."""
    network = small_chain.network(classes=3, width=24)
    monkeypatch.setattr("fusedx.engine.cuda.chains._STATE_BYTES", 4 * 8 * 3 * 6 * 4)
    a, b = both(small(network, 6), network, 6, 5, 1, 16)
    assert a.states.tobytes() == b.states.tobytes() and b.work.rows.shape == (5, 1)


def test_the_same_memory_serves_the_next_call():
    network = small_chain.network(classes=3, width=24)
    chains, encoded = small(network, 6), small_chain.encoded(network, 2)
    expected = [chains.run(encoded, small_chain.noise(network, 6, 1, 2, seed), keep=True) for seed in (1, 2)]
    for seed in (1, 2, 1):
        got = chains.run(encoded, small_chain.noise(network, 6, 1, 2, seed), keep=True, plan=Plan(16))
        assert got.states.tobytes() == expected[seed - 1].states.tobytes()
    one = {name: x[1:] for name, x in encoded.items()}
    got = chains.run(one, small_chain.noise(network, 6, 1, 2, 1)[:, :, 1:], keep=True, plan=Plan(16))
    assert got.states.tobytes() == expected[0].states[:, :, 1:].tobytes()


def test_a_residual_sees_one_changed_state():
    """The negative control of the residuals above."""
    network = small_chain.network(classes=3, width=24)
    chains, encoded, noise = small(network, 6), small_chain.encoded(network, 2), small_chain.noise(network, 6, 2, 2)
    states = chains.run(encoded, noise, keep=True, plan=Plan(16)).states
    states[3, 1, 0, 2] += 1e-9
    residual = chains.residual(encoded, noise, states)
    assert residual.shape == (2, 2) and np.flatnonzero(residual).tolist() == [2] and 1e-10 < residual[1, 0] < 1e-6


def test_the_denoiser_sees_the_grid_in_both_samplers(monkeypatch):
    """Without it nearly no guess would ever be right; the parallel sampler's rows are on it already."""
    seen: list[torch.Tensor] = []
    start = parallel.step_kernel.start
    monkeypatch.setattr(parallel.step_kernel, "start", lambda y, **more: (seen.append(y.clone()), start(y, **more)))
    network = small_chain.network(classes=3, width=24)
    chains, encoded, noise = small(network, 5, "bf16"), small_chain.encoded(network, 1), small_chain.noise(network, 5, 1, 1)
    expected = chains.run(encoded, noise, keep=True).states
    seen.clear()
    chains.run(encoded, noise, keep=True, plan=Plan(16))
    y = torch.cat(seen)
    assert torch.equal(y * 1024, (y * 1024).round())
    monkeypatch.setattr(chains._denoiser, "bits", 18)
    chains._made.clear()
    assert chains.run(encoded, noise, keep=True).states.tobytes() != expected.tobytes()


def test_the_host_looks_once_in_a_few_sweeps(monkeypatch):
    network = small_chain.network(classes=3, width=24)
    chains = small(network, 9)
    looks, record = [], chains._context.record

    def recorded(work):
        replay = record(work)
        return lambda: (looks.append(work.__name__), replay())

    monkeypatch.setattr(chains._context, "record", recorded)
    _, b = both(chains, network, 9, 1, 1, 16)
    sweeps = int(b.work.sweeps.max())
    assert looks == ["_launch", "_launch_begin", *["_launch_sweeps"] * -(-sweeps // parallel.SWEEPS)]


def test_a_chain_that_does_not_move_is_an_error(monkeypatch):
    """A broken kernel must not hang the program."""
    monkeypatch.setattr(parallel, "advance", lambda *args, **more: None)
    network = small_chain.network(classes=3, width=24)
    with pytest.raises(DeviceError, match="a chain of 6 steps stopped at step 0"):
        list(both(small(network, 6), network, 6, 1, 1, 16))


def engine(name: str) -> CudaEngine:
    network = SimpleNamespace(family="diffmic-v1")
    manifest = SimpleNamespace(network=network, schedule=None, task="multiclass")
    return CudaEngine(SimpleNamespace(manifest=manifest), None, Context(CPU, capture=True), None, SimpleNamespace(name=name))


def test_what_a_request_may_ask_for():
    triton, persistent = engine("triton"), engine("persistent")
    for each in (triton, persistent):
        assert each.plan(Sampler("auto"), 3).sequential and each.plan(Sampler("sequential"), 3).sequential
    assert triton.plan(Sampler("parallel"), 3).rows == parallel.SWEEP_ROWS and triton.plan(Sampler("parallel", rows=16), 1).rows == 16
    assert not triton.plan(Sampler("parallel", rows=1), 1).sequential
    with pytest.raises(ConfigError, match="does not run on backend 'persistent'; load with backend='triton'"):
        persistent.plan(Sampler("parallel"), 1)
    with pytest.raises(ConfigError, match="variant 'newton' does not run on a GPU"):
        triton.plan(Sampler("parallel", variant="newton"), 1)


def test_windows():
    """A power of two; no more than the chain has steps, as far as that goes; and any number of chains fits the largest bucket."""
    assert [parallel.window(chains, 250, 128) for chains in (1, 2, 4, 8, 64, 1024)] == [64, 64, 32, 16, 4, 4]
    assert [parallel.window(1, steps, 128) for steps in (1, 4, 10, 60, 1000)] == [4, 4, 16, 64, 64]
    assert [parallel.window(1, 250, rows) for rows in (2, 16, 17, 1 << 14)] == [4, 16, 16, 64]
    assert parallel.MOST_CHAINS * parallel.LEAST_WINDOW == 4096
