"""The encoder by TensorRT beside torch: torch's memory and streams, a plan's kernels, captured in the same graphs."""

from __future__ import annotations

import numpy as np
import torch

from fusedx.engine.compiled import CompiledModel
from fusedx.engine.cuda.buckets import IMAGE_BUCKETS
from fusedx.engine.cuda.context import Context
from fusedx.engine.cuda.device import GPU
from fusedx.engine.cuda.encoder import Network
from fusedx.engine.encoder import open_encoder, tensorrt
from fusedx.engine.encoder.tensorrt import Execution, Plan
from fusedx.engine.encoder.tensorrt.runner import ALIGNMENT, INPUT

_TORCH = {np.dtype(np.float32): torch.float32, np.dtype(np.int64): torch.int64}


class _Bound:
    """One batch size on one branch: an execution, and the memory that it reads and writes."""

    def __init__(self, plan: Plan, batch: int, device: torch.device) -> None:
        stream = torch.cuda.current_stream()
        self._execution: Execution = plan.execution(batch, stream.cuda_stream)
        stream.synchronize()  # the choice of profile was queued
        self.tensors = {t.name: torch.empty(t.shape, dtype=_TORCH[t.dtype], device=device) for t in self._execution.tensors.values()}
        self._scratch = torch.empty(self._execution.scratch_bytes + ALIGNMENT, dtype=torch.uint8, device=device)
        start = self._scratch.data_ptr()
        addresses = {name: tensor.data_ptr() for name, tensor in self.tensors.items()}
        self._execution.bind(addresses, start + -start % ALIGNMENT)

    def run(self, images: torch.Tensor) -> None:
        """Queue one run on the current stream."""
        self.tensors[INPUT].copy_(images)
        self._execution.enqueue(torch.cuda.current_stream().cuda_stream)


class TensorRTNetwork:
    """images [B,3,224,224], branch -> outputs in the plan's own memory, overwritten by the next call of that batch and branch."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self._plan, self._device = plan, device
        self._bound: dict[tuple[int, int], _Bound] = {}

    def __call__(self, images: torch.Tensor, branch: int) -> tuple[torch.Tensor, ...]:
        bound = self._of(len(images), branch)
        bound.run(images)
        return tuple(bound.tensors[name] for name in self._plan.outputs)

    def checked_run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """One batch from the host and back, for the check of a plan; outputs that a run does not write stay NaN."""
        bound = self._of(len(images), 0)
        for name in self._plan.outputs:
            tensor = bound.tensors[name]
            tensor.fill_(float("nan") if tensor.is_floating_point() else -1)
        bound.run(torch.from_numpy(images).to(self._device))
        return {name: bound.tensors[name].cpu().numpy() for name in self._plan.outputs}

    def _of(self, batch: int, branch: int) -> _Bound:
        if (batch, branch) not in self._bound:
            self._bound[batch, branch] = _Bound(self._plan, batch, self._device)
        return self._bound[batch, branch]


def open_tensorrt(
    compiled: CompiledModel, gpu: GPU, context: Context, precision: str, *, batch_invariant: bool
) -> tuple[Network, list[str]]:
    """A checked plan of the model's encoder as a network, and the names of its outputs.

    batch_invariant: images are evaluated one by one, so the plan has the bucket of one alone.
    The reference that the plan is checked against is a host encoder in float32.
    """
    networks: list[TensorRTNetwork] = []

    def make_run(plan: Plan) -> tensorrt.Run:
        networks.append(TensorRTNetwork(plan, context.device))
        return networks[-1].checked_run

    plan = tensorrt.open_plan(
        compiled.encoder,
        compiled.encoder_digest,
        tensorrt.Platform.of(gpu),
        make_run,
        open_encoder("auto", compiled.encoder).run,
        precision=precision,
        buckets=(1,) if batch_invariant else IMAGE_BUCKETS,
    )
    return networks[-1], list(plan.outputs)
