"""The denoiser of one model on one GPU: its tables, and its layers as launches on static memory.

A row is evaluated at a timestep and an entry of its own; an entry is what a chain is conditioned on, an image (DiffMIC-v2: one of its
six map points).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fusedx.engine.cuda.context import Context
from fusedx.engine.cuda.precision import GRID_BITS
from fusedx.engine.cuda.tables import DeviceTables
from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.manifest import Network
from fusedx.engine.schedule import Schedule, chain_program
from fusedx.kernels.conditional_layer import variants
from fusedx.kernels.conditional_layer.triton import conditional_layer, projected_layer
from fusedx.kernels.step import triton as step_kernel


@dataclass(slots=True)
class Inputs:
    """Static memory of R chains: what one call's chains start from and are conditioned on."""

    noise: torch.Tensor  # [T,R,C] float64: the starting draw, then the draw used at each step; DiffMIC-v2 [1,R,C], the start alone
    start: torch.Tensor  # [R,C] float64
    prior: torch.Tensor  # [R,C] float64, of each entry; also the mean of the chain, unless that is zero
    feature: torch.Tensor  # [R,F] float32, of each entry
    constant: torch.Tensor  # [R,F] float32: W1_p p of each entry
    entry: torch.Tensor  # [R] int32


@dataclass(slots=True)
class Layers:
    """Static memory between the layers of R rows."""

    u1: torch.Tensor  # [R,F]
    u2: torch.Tensor  # [R,F]
    partial: torch.Tensor  # [R,tiles,C] float32
    variant: variants.Variant


class DeviceDenoiser:
    """``order``: the row of the timestep tables that each step of the chain uses.  Call everything inside ``context.working()``."""

    def __init__(
        self, network: Network, schedule: Schedule, tables: DenoiserTables, context: Context, cc: int, precision: str, *, invariant: bool
    ) -> None:
        self.context, self.precision = context, precision
        self.v2 = network.family == "diffmic-v2"
        self.steps, self.classes = schedule.steps, network.num_classes
        self.bits = GRID_BITS[precision]
        self._network, self._cc, self._invariant = network, cc, invariant
        self._tables = DeviceTables.upload(tables, precision, context.device)
        program = chain_program(schedule, v2=self.v2)
        self.family, self.order = program.family, program.order.tolist()
        self._coefficients = torch.from_numpy(program.coefficients).to(context.device)

    def variant(self, rows: int) -> variants.Variant:
        """The form of the layers for so many rows."""
        return variants.choose(self._cc, self.precision, rows, invariant=self._invariant, classes=self.classes)

    def describe(self, rows: int) -> str:
        """That choice in a line."""
        return variants.describe("layer", self._cc, self.precision, rows, invariant=self._invariant, classes=self.classes)

    def zeros(self, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """On the device."""
        return torch.zeros(shape, dtype=dtype, device=self.context.device)

    def inputs(self, count: int) -> Inputs:
        """Memory for so many chains."""
        c, f = self.classes, self._network.feature_dim
        return Inputs(
            noise=self.zeros(1 if self.v2 else self.steps, count, c),
            start=self.zeros(count, c),
            prior=self.zeros(count, c),
            feature=self.zeros(count, f, dtype=torch.float32),
            constant=self.zeros(count, f, dtype=torch.float32),
            entry=self.zeros(count, dtype=torch.int32),
        )

    def layers(self, rows: int) -> Layers:
        """Memory for so many rows."""
        f, activations, variant = self._network.feature_dim, self._tables.activations, self.variant(rows)
        return Layers(
            u1=self.zeros(rows, f, dtype=activations),
            u2=self.zeros(rows, f, dtype=activations),
            partial=self.zeros(rows, variant.partial_tiles(f), self.classes, dtype=torch.float32),
            variant=variant,
        )

    def prepare(self, x: Inputs) -> None:
        """The start states, and W1_p p of each entry: summed class by class in float64, as on the host, whatever the other entries."""
        total = x.prior[:, :1] * self._tables.weight_p[0]
        for c in range(1, self.classes):
            total = total + x.prior[:, c : c + 1] * self._tables.weight_p[c]
        x.constant.copy_(total)
        from_zero = self.v2 or self._network.noise_prior
        torch.add(x.noise[0], 0.0 if from_zero else x.prior[x.entry], out=x.start)

    def first(self, x: Inputs, memory: Layers, *, bits: int) -> step_kernel.FirstLayer:
        """Layer 1, its input on a grid of so many bits; 0 where it is already."""
        w = self._tables
        return step_kernel.FirstLayer(w.weight_y, w.scale1, w.shift1, x.constant, x.feature, memory.u1, bits)

    def hidden(self, memory: Layers, t: torch.Tensor) -> None:
        """Layers 2 and 3 at rows t int32 [R] of the tables, from layer 1's output to layer 4's partial sums."""
        w, variant = self._tables, memory.variant
        conditional_layer(memory.u1, w.weight2, w.scale2, w.shift2, t, out=memory.u2, variant=variant)
        projected_layer(memory.u2, w.weight3, w.scale3, w.shift3, t, w.weight4, partial=memory.partial, variant=variant)

    def update(self, x: Inputs, memory: Layers) -> step_kernel.Update:
        """The state's update from those partial sums."""
        mean = None if self.v2 or self._network.noise_prior else x.prior
        return step_kernel.Update(self.family, self._coefficients, self._tables.bias4, memory.partial, mean)

    def eps(self, x: Inputs, memory: Layers, y: torch.Tensor, step: int, *, bits: int) -> torch.Tensor:
        """The denoiser alone at row ``step`` of the tables, for the state y float64 [R,C] -> float64 [R,C]."""
        self._evaluate(x, memory, y, self._rows(step, y), bits=bits)
        return memory.partial.double().sum(dim=1) + self._tables.bias4

    def step(self, x: Inputs, memory: Layers, y: torch.Tensor, i: int) -> torch.Tensor:
        """One step of the chain by itself: the state y float64 [R,C] before step i -> the state after it."""
        t, out, update = self._rows(self.order[i], y), torch.empty_like(y), self.update(x, memory)
        self._evaluate(x, memory, y, t, bits=self.bits)
        if i + 1 == self.steps:
            step_kernel.last(y, t=t, image=x.entry, update=update, y_out=out)
        else:
            z, first = None if self.v2 else x.noise[i + 1], self.first(x, memory, bits=self.bits)
            step_kernel.middle(y, t=t, t_next=t, image=x.entry, update=update, first=first, y_out=out, z=z)
        return out

    def _evaluate(self, x: Inputs, memory: Layers, y: torch.Tensor, t: torch.Tensor, *, bits: int) -> None:
        step_kernel.start(y, t_next=t, image=x.entry, first=self.first(x, memory, bits=bits))
        self.hidden(memory, t)

    @staticmethod
    def _rows(step: int, y: torch.Tensor) -> torch.Tensor:
        return torch.tensor([step], dtype=torch.int32, device=y.device).expand(len(y))
