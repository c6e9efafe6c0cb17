"""encoder.onnx by OpenVINO, the default on CPUs: one image a request, several requests in flight."""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path

import numpy as np
import openvino as ov

from fusedx.engine.encoder import onnx_file
from fusedx.engine.encoder.network import OUTPUTS
from fusedx.engine.errors import ModelFormatError
from fusedx.engine.manifest import IMAGE_SIZE
from fusedx.engine.memory import release_file_pages

PUBLISHED = {name for names in OUTPUTS.values() for name in names}


@cache
def _core() -> ov.Core:
    """One for the life of the process.

    Its plugin gives the thread a signal stack of its own, and takes it back when it is closed.  Two that are closed in the order in
    which they were opened leave the thread with a stack that is no longer there, and the next Ctrl-C ends the process.
    """
    return ov.Core()


class OpenVINOEncoder:
    """See :class:`fusedx.engine.encoder.Encoder`."""

    name = "openvino"
    precision = "fp32"

    def __init__(self, path: Path, threads: int | None) -> None:
        onnx_file.read(path)  # our own checks come before a parser that trusts its input
        core = _core()
        # Accuracy mode and an explicit float32 keep processors with bf16 units from rounding behind our back.
        settings = {"PERFORMANCE_HINT": "LATENCY", "EXECUTION_MODE_HINT": "ACCURACY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            model = core.read_model(path)
            model.reshape([1, 3, IMAGE_SIZE, IMAGE_SIZE])
            self._compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise ModelFormatError(f"OpenVINO cannot load {path}: {str(error).splitlines()[0]}") from None
        # The weights are packed now; the mapped originals would count twice.
        constants = [operation.data for operation in model.get_ops() if operation.get_type_name() == "Constant"]
        release_file_pages(onnx_file.data_file(path), constants)
        # OpenVINO keeps every name that a value had; the published one is among them.
        self._names = [next(name for name in sorted(output.get_names()) if name in PUBLISHED) for output in self._compiled.outputs]
        in_flight = max(2, self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._queue = ov.AsyncInferQueue(self._compiled, in_flight)
        self._lock = threading.Lock()

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        rows: list[list[np.ndarray]] = [[] for _ in images]

        def keep(request: ov.InferRequest, row: int) -> None:
            rows[row] = [tensor.data.copy() for tensor in request.output_tensors]

        with self._lock:
            self._queue.set_callback(keep)
            try:
                for row, image in enumerate(images):
                    self._queue.start_async({0: np.ascontiguousarray(image[None], np.float32)}, row)
            finally:  # an interruption must not leave requests in flight for the next caller to trip over
                self._queue.wait_all()
        return {name: np.concatenate([row[i] for row in rows]) for i, name in enumerate(self._names)}


def open_file(path: Path, threads: int | None) -> OpenVINOEncoder:
    """Encoder of the graph at ``path``; ``threads``: CPU threads a request may use, None for all."""
    return OpenVINOEncoder(path, threads)
