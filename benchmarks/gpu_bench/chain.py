"""The chain alone, from (prior, feature, noise) on the host to the final state on the host: every engine and plain torch.

Of a fusedx contender the upload of its inputs and the download of the result are in the time; of plain torch the graph alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from fusedx.engine.chain_runner import ChainRunner
from fusedx.engine.sampler import SEQUENTIAL, Plan, Work
from fusedx.verify import relative_error
from gpu_bench import plain
from gpu_bench.figures import NOT_INVARIANT, PARALLEL, Row, chain_bytes, chain_operations, extrapolated
from gpu_bench.setting import Setting
from gpu_bench.timing import device_time
from turns import alternate

#: Steps that the released semantics are timed for in a quick run.
QUICK_STEPS = 25


@dataclass(frozen=True, slots=True)
class Problem:
    """R rows = draws x images.  prior, feature [B,...] as golden; noise float64 [T,D,B,C], its first draw golden; the rest random."""

    x: np.ndarray
    encoded: dict[str, np.ndarray]
    noise: np.ndarray

    @property
    def rows(self) -> int:
        """D x B."""
        return self.noise.shape[1] * self.noise.shape[2]

    def per_row(self, array: np.ndarray) -> np.ndarray:
        """[B,...] -> [R,...], in the order of the noise."""
        return np.concatenate([array] * self.noise.shape[1])


def problem(setting: Setting, rows: int) -> Problem:
    """One image for one row, otherwise as many draws of the case's images as make ``rows``."""
    case = setting.case
    images = 1 if rows == 1 else len(case.x)
    if rows % images:
        raise ValueError(f"rows must be 1 or a multiple of {images}, got {rows}")
    noise = np.random.default_rng(0).standard_normal((len(case.noise), rows // images, images, case.noise.shape[-1]))
    noise[:, 0] = case.noise[:, :images]
    return Problem(case.x[:images], {name: case.expected[name][:images] for name in ("prior", "feature")}, noise)


@dataclass(slots=True)
class Contender:
    """``time``: one run, seconds.  ``scores``: float64 [B,C] of the last run's first draw after ``steps`` steps.

    ``work``: of the last run by the parallel sampler; None of all others.
    """

    weight: str
    time: Callable[[], float]
    scores: Callable[[], np.ndarray]
    steps: int
    work: Callable[[], Work | None] = lambda: None


class Opened:
    """Chain runners, opened once and used at every size."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._tables = setting.compiled.denoiser()
        self._runners: dict[str, tuple[ChainRunner, int]] = {}

    def runner(self, name: str) -> tuple[ChainRunner, int]:
        """``triton bf16``, ``triton bf16, not invariant`` -> the runner and its stream's handle."""
        if name not in self._runners:
            backend, precision = name.removesuffix(NOT_INVARIANT).split()
            invariant = not name.endswith(NOT_INVARIANT)
            self._runners[name] = self._triton(precision, invariant) if backend == "triton" else self._persistent(precision)
        return self._runners[name]

    def _triton(self, precision: str, invariant: bool) -> tuple[ChainRunner, int]:
        from fusedx.engine.cuda.chains import CudaChains
        from fusedx.engine.cuda.context import Context

        s, m = self._setting, self._setting.compiled.manifest
        context = Context(s.device, capture=True)
        with context.working():
            chains = CudaChains(m.network, m.schedule, self._tables, context, s.gpu.target.cc, precision, batch_invariant=invariant)
        return chains, context.stream

    def _persistent(self, precision: str) -> tuple[ChainRunner, int]:
        from fusedx.engine.cuda.memory_torch import TorchMemory
        from fusedx.engine.cuda.persistent import PersistentChains

        s, m = self._setting, self._setting.compiled.manifest
        memory = TorchMemory(s.gpu.index)
        return PersistentChains(m.network, m.schedule, self._tables, s.gpu, memory, precision), memory.stream


def measure(setting: Setting, opened: Opened, rows: int, names: Iterable[str]) -> list[Row]:
    """The named contenders, taking turns; each is reported as it is known."""
    given = problem(setting, rows)
    contenders = {}
    for name in names:
        try:
            contenders[name] = _contender(setting, opened, given, name)
        except Exception as error:  # a format that does not fit, a compiler that fails
            setting.leave_out(f"{setting.part}, {rows} rows, {name}", error)
    seconds = alternate({name: c.time for name, c in contenders.items()}, setting.rounds)
    return [_row(setting, given, name, c, seconds[name]) for name, c in contenders.items()]


def _contender(setting: Setting, opened: Opened, given: Problem, name: str) -> Contender:
    if name.startswith("torch.compile"):
        return _plain(setting, given, released="released" in name)
    runner, stream = opened.runner(name.removesuffix(PARALLEL))
    plan, clock, last = _plan(name), setting.clock(stream), {}

    def run() -> None:
        last["chains"] = runner.run(given.encoded, given.noise, keep=False, plan=plan)

    run()  # compiles and captures
    head_start = _head_start(given.rows)
    time = lambda: device_time(run, clock, head_start=head_start, prepare=setting.cold)  # noqa: E731
    work = (lambda: None) if plan.sequential else (lambda: last["chains"].work)
    weight = name.removesuffix(NOT_INVARIANT).removesuffix(PARALLEL).split()[1]
    return Contender(weight, time, lambda: last["chains"].scores[0], setting.steps, work)


def _plan(name: str) -> Plan:
    if not name.endswith(PARALLEL):
        return SEQUENTIAL
    from fusedx.engine.cuda.parallel import SWEEP_ROWS

    return Plan(SWEEP_ROWS)


def _plain(setting: Setting, given: Problem, *, released: bool) -> Contender:
    """In bf16, state and coefficients in float64 as everywhere."""
    m, device = setting.compiled.manifest, setting.device
    steps = QUICK_STEPS if released and setting.quick else setting.steps
    model = plain.open_denoiser(setting.checkpoint, m.network, device, torch.bfloat16)
    step = plain.make_step(model, plain.step_table(m.schedule, device), released=released)
    if setting.compiler is not None:
        step = torch.compile(step, backend=setting.compiler, fullgraph=True, dynamic=False)
    condition = torch.from_numpy(given.per_row(given.x if released else given.encoded["feature"])).to(device, torch.bfloat16)
    if released:
        condition = condition.contiguous(memory_format=torch.channels_last)
    prior = torch.from_numpy(given.per_row(given.encoded["prior"])).to(device)
    noise = torch.from_numpy(given.noise.reshape(len(given.noise), given.rows, -1)).to(device)
    chain = plain.PlainChain(step, prior, condition, noise, steps)
    replay = chain.record()
    clock, head_start = setting.clock(chain.stream.cuda_stream if chain.stream else 0), _head_start(given.rows)
    time = lambda: device_time(replay, clock, head_start=head_start, prepare=setting.cold)  # noqa: E731
    return Contender("bf16", time, lambda: chain.final[: len(given.x)].cpu().numpy(), steps)


def _head_start(rows: int) -> float:
    """Seconds in which the host certainly queues a chain of so many rows.

    The largest graph, the released semantics, has tens of thousands of nodes, and rows have their noise copied to page-locked memory.
    """
    return 0.03 + 50e-6 * rows


def _row(setting: Setting, given: Problem, name: str, c: Contender, seconds: list[float]) -> Row:
    whole, f = setting.steps, setting.compiled.manifest.network.feature_dim
    work, note = c.work(), "" if c.steps == whole else f"from its first {c.steps} steps"
    passes = whole if work is None else int(work.sweeps.max())  # over the weights
    if work is not None:
        note = f"{passes} sweeps, {int(work.rows.sum())} rows"
    row = Row(
        part=setting.part,
        name=name,
        batch=given.rows,
        seconds=[extrapolated(s, c.steps, whole) for s in seconds],
        moved=chain_bytes(f, c.weight, passes),
        operations=chain_operations(given.rows, f, whole),
        error=relative_error(c.scores(), _expected(setting, c.steps)[: len(given.x)]),
        against="golden",
        l2="cold",
        note=note,
    )
    setting.report(row)
    return row


def _expected(setting: Setting, steps: int) -> np.ndarray:
    """The golden state [B,C] after so many steps, which must be one that the case keeps."""
    expected = setting.case.expected
    return expected["trajectory"][steps // int(expected["trajectory_stride"])]
