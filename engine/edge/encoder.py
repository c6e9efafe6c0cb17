"""The encoder as a TensorRT plan on a :class:`DeviceMemory`, one image a run, so that its bits do not depend on the batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from fusedx.engine.compiled import CompiledModel
from fusedx.engine.cuda.device import GPU
from fusedx.engine.cuda.memory import Buffer, DeviceArray, DeviceMemory, DeviceOutputs
from fusedx.engine.edge.frames import Frame, FrameResizer
from fusedx.engine.encoder import Encoder, available, open_encoder
from fusedx.engine.encoder.tensorrt import Plan, Platform, open_plan
from fusedx.engine.encoder.tensorrt.runner import INPUT

log = logging.getLogger("fusedx")

#: Plans are checked against one of these on the host, the fastest that is installed.
_REFERENCES = ("openvino", "onnxruntime", "reference")


class PlanEncoder:
    """See :class:`fusedx.engine.encoder.Encoder`; frames as well as normalised images come in, outputs stay on the device.

    What ``run`` returns is valid until the next run: the arrays are the object's own.
    """

    name = "tensorrt"

    def __init__(self, plan: Plan, memory: DeviceMemory, resizer: FrameResizer, precision: str) -> None:
        self.precision = precision
        self.resizer = resizer
        self._memory = memory
        with memory.exclusive():
            self._execution = plan.execution(1, memory.stream)
            self._buffers = {name: memory.empty(tensor.nbytes) for name, tensor in self._execution.tensors.items()}
            self._scratch = memory.empty(max(self._execution.scratch_bytes, 1))
            self._execution.bind({name: buffer.pointer for name, buffer in self._buffers.items()}, self._scratch.pointer)
        self._outputs = [tensor for name, tensor in self._execution.tensors.items() if name != INPUT]
        self._batch: dict[str, Buffer] = {}
        self._most = 0

    def run(self, images: np.ndarray | Sequence[Frame]) -> DeviceOutputs:
        """images: frames, or float32 [B,3,224,224], normalised."""
        with self._memory.exclusive():
            self._grow(len(images))
            for row, image in enumerate(images):
                self._put(image)
                self._execution.enqueue(self._memory.stream)
                for tensor in self._outputs:
                    self._memory.copy(self._batch[tensor.name], self._buffers[tensor.name].pointer, tensor.nbytes, row * tensor.nbytes)
        arrays = {t.name: DeviceArray(self._batch[t.name], t.dtype, (len(images), *t.shape[1:])) for t in self._outputs}
        return DeviceOutputs(self._memory, arrays)

    def run_on_garbage(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """``run`` with outputs that hold NaN before, copied to the host: what a check of the plan needs."""
        with self._memory.exclusive():
            for tensor in self._outputs:
                self._memory.write(self._buffers[tensor.name], np.full(tensor.nbytes, 0xFF, np.uint8))
            return dict(self.run(images))

    def _put(self, image: Frame) -> None:
        """Queue what fills the plan's input."""
        if isinstance(image, np.ndarray) and image.dtype == np.float32:
            self._memory.write(self._buffers[INPUT], image)
        else:
            self.resizer.run(image, self._buffers[INPUT].pointer)

    def _grow(self, batch: int) -> None:
        if batch > self._most:
            self._batch = {tensor.name: self._memory.empty(batch * tensor.nbytes) for tensor in self._outputs}
            self._most = batch


def open_plan_encoder(
    compiled: CompiledModel, gpu: GPU, memory: DeviceMemory, precision: str, *, version_compatible: bool
) -> PlanEncoder:
    """A plan from the cache or built, checked here and now.  Raises UnavailableError, also for a plan that is wrong."""
    reference = _reference(compiled)
    made: list[PlanEncoder] = []
    with memory.exclusive():  # TensorRT works on the context that is current
        resizer = FrameResizer(memory, gpu)

        def make_run(plan: Plan):  # noqa: ANN202
            made[:] = [PlanEncoder(plan, memory, resizer, precision)]
            return made[0].run_on_garbage

        open_plan(
            compiled.encoder,
            compiled.encoder_digest,
            Platform.of(gpu),
            make_run,
            reference.run,
            precision=precision,
            buckets=(1,),
            version_compatible=version_compatible,
        )
    return made[0]


def _reference(compiled: CompiledModel) -> Encoder:
    choices = available()
    name = next(name for name in _REFERENCES if choices[name] is None)
    if name == "reference":
        log.warning("the TensorRT plan is checked against numpy, which takes minutes: pip install onnxruntime")
    return open_encoder(name, compiled.encoder)
