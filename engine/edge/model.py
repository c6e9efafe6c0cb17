"""A compiled model for programs that already have decoded frames: a camera's, a workstation's, in host or GPU memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from fusedx.engine.choice import require_usable
from fusedx.engine.compiled import CompiledModel, open_model
from fusedx.engine.cuda import device as devices
from fusedx.engine.cuda.arrays import device_array
from fusedx.engine.cuda.arrays.foreign_array import ForeignArray
from fusedx.engine.cuda.device import GPU
from fusedx.engine.cuda.memory import DeviceMemory
from fusedx.engine.cuda.persistent import PersistentChains
from fusedx.engine.cuda.precision import ENCODER_PRECISION
from fusedx.engine.edge.encoder import PlanEncoder, open_plan_encoder
from fusedx.engine.edge.frames import Frame, check_frame
from fusedx.engine.edge.requirements import why_not
from fusedx.engine.encoder.tensorrt import PRECISIONS as ENCODERS
from fusedx.engine.engine import Engine, Result
from fusedx.engine.errors import ConfigError, InputError, UnavailableError, require_int
from fusedx.engine.limits import MAX_SEED
from fusedx.engine.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Classified:
    """One frame's result; see :class:`fusedx.engine.engine.Result` for the arrays.

    label, index: the class of the largest score.  stability: share of draws whose own label it is.  image_sha256: of the frame's
    RGB bytes, which keys the noise.  timing: seconds by stage, a frame's share of its batch.
    """

    label: str
    index: int
    stability: float
    image_sha256: str
    result: Result
    timing: dict[str, float]


class EdgeModel:
    """Made by :meth:`open`.  May be shared between threads, which take turns."""

    def __init__(self, compiled: CompiledModel, gpu: GPU, memory: DeviceMemory, encoder: PlanEncoder, chains: PersistentChains) -> None:
        m = compiled.manifest
        self.compiled, self.gpu = compiled, gpu
        self.engine = Engine(m.network, m.schedule, m.task, encoder, chains)
        self._memory, self._frames = memory, encoder.resizer

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        device: str = "cuda:0",
        precision: str = "fp16",
        *,
        encoder_precision: str | None = None,
        version_compatible: bool = False,
        verify: bool = True,
    ) -> EdgeModel:
        """Open a compiled model.

        precision, of the denoiser's weights: fp32 | bf16 | fp16 | fp8.  encoder_precision: fp32 | bf16 | fp16; None follows it.
        version_compatible: build a plan that the lean runtime and later releases of TensorRT run too.  verify: see ``fusedx.load``.
        The first time, or after an update, building TensorRT's plan takes minutes; then it is kept.

        Raises UnavailableError (what is missing and how to get it), ConfigError, ModelFormatError, DeviceError.
        """
        index = devices.parse(device)
        if index is None:
            raise ConfigError("the edge runner runs on cuda:N; for the cpu use fusedx.load")
        require_usable("precision", precision, dict.fromkeys(ENCODER_PRECISION))
        chosen = ENCODER_PRECISION[precision] if encoder_precision is None else encoder_precision
        require_usable("encoder_precision", chosen, dict.fromkeys(ENCODERS))  # before the weights travel
        reason = why_not()
        if reason is not None:
            raise UnavailableError(f"the edge runner cannot run here: {reason}")
        from fusedx.engine.cuda.memory_pycuda import PyCUDAMemory

        compiled, gpu = open_model(path, verify=verify), devices.find(index)
        m, memory = compiled.manifest, PyCUDAMemory(index)
        try:
            chains = PersistentChains(m.network, m.schedule, compiled.denoiser(), gpu, memory, precision)
        except ValueError as error:  # weights that the format cannot hold, a network that the kernel does not fit
            raise ConfigError(f"{compiled.path} cannot run with precision {precision} on {gpu}: {error}") from error
        encoder = open_plan_encoder(compiled, gpu, memory, chosen, version_compatible=version_compatible)
        return cls(compiled, gpu, memory, encoder, chains)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of every [C] array."""
        return self.compiled.manifest.classes

    @property
    def stream(self) -> int:
        """The CUDA stream of all work, as an integer: frames that are produced on it need no further ordering."""
        return self._memory.stream

    @overload
    def classify(
        self, frame: list[Any] | tuple[Any, ...], *, draws: int | str | None = None, seed: int | None = None
    ) -> list[Classified]: ...
    @overload
    def classify(self, frame: Any, *, draws: int | str | None = None, seed: int | None = None) -> Classified: ...

    def classify(
        self, frame: Any, *, draws: int | str | None = None, seed: int | None = None
    ) -> Classified | list[Classified]:
        """Classify one frame, or a list of them: uint8 [H,W,3], RGB, a numpy array, or in this GPU's memory and read there without a
        copy: an array of PyCUDA, CuPy or another library that speaks ``__cuda_array_interface__`` or DLPack, or a ForeignArray.

        draws, seed: as ``fusedx.Model.classify``.  The same frame, draws and seed give the same bits alone and in any list.
        Raises InputError for a frame that cannot be used, ConfigError, DeviceError.
        """
        frames = [self._found(one) for one in (frame if isinstance(frame, (list, tuple)) else [frame])]
        if not frames:
            raise ConfigError("classify was given an empty list")
        m = self.compiled.manifest
        sampling = Sampling(m.default_draws if draws is None else draws, m.default_seed if seed is None else seed)
        for one in frames:
            check_frame(one, self.gpu.index)
        with self._memory.exclusive():  # the encoder's outputs are read here, before anyone else runs it
            digests = [self._frames.digest(one) for one in frames]
            results, seconds = self.engine.predict(frames, lambda: digests, sampling)  # type: ignore[arg-type]
        share = {stage: s / len(frames) for stage, s in seconds.items()}
        found = [self._classified(result, digest, share) for result, digest in zip(results, digests, strict=True)]
        return found if isinstance(frame, (list, tuple)) else found[0]

    def _found(self, frame: Any) -> Frame:
        """A frame where it lies; what is none is left for check_frame to refuse."""
        if isinstance(frame, (np.ndarray, ForeignArray)):
            return frame
        return device_array(frame, device=self.gpu.index, stream=self.stream) or frame

    def trace(
        self, x: np.ndarray, noise: np.ndarray | tuple[np.ndarray, np.ndarray] | None = None, *, seed: int = 0
    ) -> dict[str, np.ndarray]:
        """Every intermediate array of normalised images float32 [B,3,224,224]; see ``fusedx.Model.trace``."""
        with self._memory.exclusive():
            return self.engine.trace(x, noise, seed=require_int("seed", seed, 0, MAX_SEED))

    def _classified(self, result: Result, digest: str, timing: dict[str, float]) -> Classified:
        if not result.finite:
            raise InputError("not_finite", f"frame {digest[:12]}: the model's weights overflow on this image; there is no result")
        return Classified(self.classes[result.index], result.index, result.stability, digest, result, timing)
