"""The chain kernel (kernels/chain) of one model on one GPU: weights packed, buffers of a launch allocated once, launches checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusedx.engine.cuda import binaries, driver
from fusedx.engine.cuda.device import GPU
from fusedx.engine.cuda.memory import Buffer, DeviceMemory
from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.errors import DeviceError
from fusedx.engine.memory import release_pages
from fusedx.kernels import chain
from fusedx.kernels.conditional_layer.formats import store

SOURCE = binaries.KERNELS / "chain" / "chain.cu"


@dataclass(frozen=True, slots=True)
class DeviceRows:
    """float32 rows on the device: address of the first one, and bytes from one to the next."""

    pointer: int
    stride: int


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a chain is conditioned on: M of them, F = feature_dim, C = classes.

    constant float32 [M,F] = W1_p p.  mean float64 [M,C], of the posterior; None for zero.  feature: float32 [M / shared, F] on the
    host, or rows on the device; ``shared`` neighbouring conditions have the same feature (DiffMIC-v2's map points).
    """

    constant: np.ndarray
    mean: np.ndarray | None
    feature: np.ndarray | DeviceRows
    shared: int = 1


@dataclass(frozen=True, slots=True)
class Program:
    """What the steps of a chain are, on the device.  ``table_row`` int32 [steps], ``coefficients`` float64 [table rows, 6]."""

    family: str
    steps: int
    table_row: Buffer
    coefficients: Buffer


class ChainKernel:
    """``rows``: the most chains of one launch.  Not thread-safe; call everything inside ``memory.exclusive()``."""

    def __init__(
        self, tables: DenoiserTables, gpu: GPU, memory: DeviceMemory, precision: str, most_steps: int, watchdog_s: float
    ) -> None:
        """Raises ValueError where the kernel cannot run this network or format (it says what to use instead), DeviceError,
        UnavailableError where the kernel is not compiled and cannot be."""
        f, c = tables.weight2.shape[0], tables.bias4.shape[0]
        self._f, self._c, self._memory, self._format, self._watchdog_s = f, c, memory, precision, watchdog_s
        self.rows = chain.plan(gpu.target, precision, f, c, chain.MAX_ROWS).rows
        # A launch of fewer rows leaves more shared memory to weights.  The arithmetic of a row is the same in every plan.
        self._plans = {rows: chain.plan(gpu.target, precision, f, c, rows) for rows in range(1, self.rows + 1)}
        self._constants = self._upload(tables)
        self._allocate(most_steps)
        module = driver.Module(binaries.load(SOURCE, gpu.target), SOURCE.name)
        shared = max(plan.shared_bytes for plan in self._plans.values())
        self._function = module.function(self._plans[1].entry_point, dynamic_shared=shared)

    def describe(self) -> str:
        """One line for the log: the plan of one row."""
        return self._plans[1].describe()

    def program(self, family: str, table_row: np.ndarray, coefficients: np.ndarray) -> Program:
        """Upload the steps of a chain: the row of the tables that each step uses, and the coefficients of every row [T, <= 6]."""
        padded = np.zeros((len(coefficients), 6))
        padded[:, : coefficients.shape[1]] = coefficients
        return Program(family, len(table_row), self._memory.upload(table_row.astype(np.int32)), self._memory.upload(padded))

    def run(self, program: Program, start: np.ndarray, noise: np.ndarray | None, conditions: Conditions, entry: np.ndarray) -> None:
        """Queue R <= ``rows`` chains: start float64 [R,C], noise float64 [steps,R,C] or None, entry [R]: each row's condition."""
        m, rows = self._memory, len(start)
        used, slots = np.unique(entry, return_inverse=True)
        self._load(conditions, used)
        m.write(self._entry, slots.astype(np.int32))
        m.write(self._states, start.astype(np.float64, copy=False))
        if noise is not None:
            m.write(self._noise, noise.astype(np.float64, copy=False))
        m.zero(self._control)
        plan = self._plans[rows]
        pointers = self._constants_of(program)
        pointers["noise"] = 0 if noise is None else self._noise.pointer
        pointers["mean"] = 0 if conditions.mean is None else self._mean.pointer
        params = chain.chain_params(
            plan, pointers, family=program.family, steps=program.steps, rows=rows, watchdog_s=self._watchdog_s
        )
        self._function.launch(
            [params],
            grid=(plan.blocks, 1, 1),
            block=(plan.threads, 1, 1),
            stream=m.stream,
            shared=plan.shared_bytes,
            cooperative=True,
        )

    def states(self, rows: int, steps: int, *, keep: bool) -> np.ndarray:
        """Wait for the last :meth:`run` and read float64 [steps + 1,R,C], or the last state alone [1,R,C]."""
        control = self._memory.read(self._control, np.uint64, (2,))
        problem = chain.failure(int(control[1]))
        if problem is not None:
            raise DeviceError(f"{problem}. The model remains usable; the layer-by-layer kernels (triton) do not wait for each other")
        first = 0 if keep else steps
        shape = (steps + 1 - first, rows, self._c)
        return self._memory.read(self._states, np.float64, shape, offset=first * rows * self._c * 8)

    def _upload(self, tables: DenoiserTables) -> dict[str, tuple[Buffer, ...]]:
        """Everything that never changes, by its name in ChainParams."""
        put = self._memory.upload
        weights, scales = [], [tables.scale1]
        for weight, scale in ((tables.weight2, tables.scale2), (tables.weight3, tables.scale3)):
            stored = store(weight, self._format)
            weights.append(put(chain.pack_weight(stored.bits, self._format)))
            scales.append(scale if stored.scale is None else scale * stored.scale)
            release_pages(weight)
        return {
            "weight": tuple(weights),
            "scale": tuple(put(self._padded(scale)) for scale in scales),
            "shift": tuple(put(self._padded(shift)) for shift in (tables.shift1, tables.shift2, tables.shift3)),
            "weight_y": (put(self._padded(tables.weight_y.T)),),
            "weight4": (put(self._padded(tables.weight4)),),
            "bias4": (put(tables.bias4.astype(np.float64)),),
        }

    def _padded(self, table: np.ndarray) -> np.ndarray:
        return chain.pad(table, self._format)

    def _allocate(self, most_steps: int) -> None:
        """Buffers of one launch of ``rows`` rows.  A condition is a row of K floats, zero beyond F; nothing writes there."""
        m, rows, c = self._memory, self.rows, self._c
        largest = self._plans[rows]
        self._row_bytes = largest.shape.k * 4
        self._constant, self._feature = m.empty(rows * self._row_bytes), m.empty(rows * self._row_bytes)
        m.zero(self._constant)
        m.zero(self._feature)
        self._mean, self._entry = m.empty(rows * c * 8), m.empty(rows * 4)
        self._noise, self._states = m.empty(most_steps * rows * c * 8), m.empty((most_steps + 1) * rows * c * 8)
        self._hidden, self._partial, self._control = m.empty(largest.hidden_bytes), m.empty(largest.partial_bytes), m.empty(16)

    def _constants_of(self, program: Program) -> dict[str, int | tuple[int, ...]]:
        pointers: dict[str, int | tuple[int, ...]] = {}
        for name, buffers in self._constants.items():
            addresses = tuple(buffer.pointer for buffer in buffers)
            pointers[name] = addresses if len(addresses) > 1 else addresses[0]
        pointers |= {"table_row": program.table_row.pointer, "coefficients": program.coefficients.pointer}
        for name in ("constant", "feature", "entry", "states", "hidden", "partial", "control"):
            pointers[name] = getattr(self, f"_{name}").pointer
        return pointers

    def _load(self, conditions: Conditions, used: np.ndarray) -> None:
        """Put the conditions of a launch into the first places of the buffers."""
        m, size = self._memory, self._f * 4
        for slot, condition in enumerate(used):
            at = slot * self._row_bytes
            m.write(self._constant, conditions.constant[condition], at)
            row, feature = condition // conditions.shared, conditions.feature
            if isinstance(feature, DeviceRows):
                m.copy(self._feature, feature.pointer + int(row) * feature.stride, size, at)
            else:
                m.write(self._feature, feature[row], at)
        if conditions.mean is not None:
            m.write(self._mean, conditions.mean[used])
