"""encoder.onnx by ONNX Runtime: one image a request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from fusedx.engine.errors import ModelFormatError


class ONNXRuntimeEncoder:
    """See :class:`fusedx.engine.encoder.Encoder`."""

    name = "onnxruntime"
    precision = "fp32"

    def __init__(self, path: Path, threads: int | None) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exception classes are not public
            raise ModelFormatError(f"ONNX Runtime cannot load {path}: {str(error).splitlines()[0]}") from None
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        rows = [self._session.run(self._names, {"image": np.ascontiguousarray(image[None], np.float32)}) for image in images]
        return {name: np.concatenate([row[i] for row in rows]) for i, name in enumerate(self._names)}


def open_file(path: Path, threads: int | None) -> ONNXRuntimeEncoder:
    """Encoder of the graph at ``path``; ``threads``: CPU threads a request may use, None for all."""
    return ONNXRuntimeEncoder(path, threads)
