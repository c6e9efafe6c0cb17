"""A loaded model: pictures in, predictions out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

import numpy as np

import fusedx
from fusedx.engine.compiled import MANIFEST, CompiledModel, open_model
from fusedx.engine.engine import Engine, Result
from fusedx.engine.errors import ConfigError, FusedxError, InputError, require_int
from fusedx.engine.limits import MAX_DRAWS, MAX_SEED
from fusedx.engine.manifest import Manifest
from fusedx.engine.sampling import Sampler, Sampling
from fusedx.engine.temperature import Temperature, tempered
from fusedx.inputs import Picture, ReadOptions, read
from fusedx.log import follow_environment, log
from fusedx.opening import find_device, open_engine
from fusedx.prediction import Failure, Prediction
from fusedx.preparation import Item, Preparation, preprocess
from fusedx.stream import in_batches

if TYPE_CHECKING:
    from PIL.Image import Image

    Source = str | os.PathLike[str] | Image | np.ndarray


def load(
    path: str | os.PathLike[str],
    device: str = "cpu",
    precision: str | None = None,
    backend: str = "auto",
    *,
    sampler: Sampler | str | None = None,
    encoder: str = "auto",
    encoder_threads: int | None = None,
    graphs: bool = True,
    batch_invariant: bool = True,
    read_options: ReadOptions | None = None,
    verify: bool = True,
) -> Model:
    """Open a compiled model.

    device: cpu, cuda or cuda:N.
    precision, of the denoiser's weights: None as compiled; a model compiled in fp32 may also be loaded in bf16, fp16, int8 or int4 on a
    CPU (int4 takes a while to pack: compile it so) and in bf16, fp16 or fp8 on a GPU, which takes no model compiled otherwise.
    backend, for the denoising chain: auto | native | python on a CPU, auto | triton | persistent on a GPU.
    encoder: auto | openvino | onnxruntime | torch | reference on a CPU, auto | tensorrt | torch | torch-eager (uncompiled) on a GPU.
    sampler, where a request names none: sequential | parallel | auto, or a :class:`fusedx.Sampler`; None as compiled.  It changes how
    long an answer takes, and not one bit of it.
    ``auto`` takes the first that is usable (``fusedx doctor`` says which are) and ``Model.runtime`` says which it was; nothing falls
    back to another device.

    encoder_threads: CPU threads a request may use, None for all; the native chain takes FUSEDX_THREADS.
    graphs: on a GPU, replay captured CUDA graphs; False launches the same kernels one by one.
    batch_invariant: a picture's bits do not depend on its batch; False lets a GPU choose faster forms by batch size.
    read_options: how pictures are read; an EXIF choice in it overrides the model's recipe.
    verify: check the SHA-256 of every file (sizes are always checked).

    Raises ModelFormatError (damaged, tampered with, newer), UnavailableError (the text lists what can run), ConfigError, DeviceError.
    """
    if encoder_threads is not None:
        encoder_threads = require_int("encoder_threads", encoder_threads, 1, 1 << 12)
    for name, value in (("graphs", graphs), ("batch_invariant", batch_invariant), ("verify", verify)):
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be True or False, got {value!r}")
    if not isinstance(read_options, (ReadOptions, NoneType)):
        raise ConfigError(f"read_options must be a fusedx.ReadOptions, got {type(read_options).__name__}")
    sampler = None if sampler is None else Sampler.of(sampler)
    follow_environment()
    gpu = find_device(device, precision)  # before the files are read: it is the quicker to fail
    compiled = open_model(path, verify=verify)
    engine, preparation = open_engine(
        compiled, gpu, precision=precision, backend=backend, encoder=encoder, encoder_threads=encoder_threads,
        graphs=graphs, batch_invariant=batch_invariant,
    )  # fmt: skip
    options = read_options or ReadOptions()
    if options.exif_orientation is None:
        options = replace(options, exif_orientation=compiled.manifest.preprocessing.exif_orientation)
    model = Model(compiled, engine, "cpu" if gpu is None else f"cuda:{gpu.index}", preparation, options, sampler)
    how = model.runtime
    log.info(
        "loaded %s: %s, encoder %s (%s), backend %s (%s)",
        compiled.path, gpu or "cpu", how["encoder"], how["encoder_precision"], how["backend"], how["precision"],
    )  # fmt: skip
    return model


class Settings(TypedDict, total=False):
    """What :meth:`Model.classify` and :meth:`Model.stream` take by name; None and what is left out are the model's own."""

    draws: int | str | None
    max_draws: int | None
    seed: int | None
    start: str | None
    sampler: Sampler | str | None
    solver: str | None
    solver_steps: int | None
    calibrated: bool | None


class Model:
    """Made by :func:`fusedx.load`.  May be shared between threads."""

    def __init__(
        self,
        compiled: CompiledModel,
        engine: Engine,
        device: str,
        preparation: Preparation,
        read_options: ReadOptions,
        sampler: Sampler | None = None,
    ) -> None:
        self._compiled = compiled
        self._engine = engine
        self._device = device
        self._preparation = preparation
        self._read_options = read_options
        self._sampler = Sampler(compiled.manifest.default_sampler) if sampler is None else sampler
        self._process = os.getpid()

    @property
    def manifest(self) -> Manifest:
        """What the compiled model says about itself."""
        return self._compiled.manifest

    @property
    def manifest_path(self) -> Path:
        """Where manifest.json is."""
        return self._compiled.path / MANIFEST

    @property
    def digest(self) -> str:
        """SHA-256 of manifest.json, which covers every file of the model."""
        return self._compiled.digest

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of every [C] array."""
        return self.manifest.classes

    @property
    def read_options(self) -> ReadOptions:
        """How pictures are read, the recipe's EXIF choice resolved."""
        return self._read_options

    @property
    def runtime(self) -> dict[str, str]:
        """What computes: device, precision of the denoiser's weights, encoder, its precision (int8 where it was compiled so), backend."""
        int8 = self.manifest.encoder_precision == "int8"
        return {
            "device": self._device,
            "precision": self._engine.chains.precision,
            "encoder": self._engine.encoder.name,
            "encoder_precision": "int8" if int8 else self._engine.encoder.precision,
            "backend": self._engine.chains.name,
        }

    @overload
    def classify(self, x: Source, **sampling: Unpack[Settings]) -> Prediction: ...  # type: ignore[overload-overlap]  # a str is a path here
    @overload
    def classify(self, x: Sequence[Source], **sampling: Unpack[Settings]) -> list[Prediction]: ...

    def classify(self, x: Any, **sampling: Unpack[Settings]) -> Prediction | list[Prediction]:
        """Classify one picture, or a list of them as one batch.

        x: a path, a PIL image, a uint8 array [H,W] or [H,W,3], or a list or tuple of these.  On a GPU also an array in its memory that
        has ``__dlpack__`` or ``__cuda_array_interface__``, read in place: leave it unchanged until the answer.
        draws: independent chains to average (None: the model's default, 1 as published).  "auto": 8, and more until the label can be
        told from the noise or ``max_draws`` (None: 64) are reached: then the prediction is ``undecided``.
        seed: of the noise, 0 to 2^64-1.
        start: of a DiffMIC chain: published, the prior plus unit noise; matched, the prior plus noise of the deviation that a diffused
        state has at the first step; mean, the prior itself.
        sampler: sequential | parallel | auto or a :class:`fusedx.Sampler`; the same answer in another time.
        solver: published, or ddim | dpmpp-2m | unipc, which on a CPU approximate the chain in ``solver_steps`` steps, one after the other
        whatever the sampler; the prediction says so (``fusedx calibrate`` measures how often the label stays).
        calibrated: probabilities are softmax(scores / temperature), with the temperature that ``fusedx calibrate --store`` left in the
        model.
        The same picture, seed and draws give the same bits alone and inside any batch.

        Raises InputError for a picture that cannot be used (see its ``reason``), ConfigError for an impossible setting.
        """
        settings = self.sampling(**sampling)
        if isinstance(x, (list, tuple)):
            if not x:
                raise ConfigError("classify was given an empty list")
            return self._predict([self._item(source) for source in x], settings)
        return self._predict([self._item(x)], settings)[0]

    def stream(
        self, sources: Iterable[Source], batch_size: int = 16, **sampling: Unpack[Settings]
    ) -> Iterator[Prediction | Failure]:
        """Classify any number of pictures, in order; the next batch is read while this one is computed.

        A picture that cannot be used becomes a :class:`Failure` in its place and stops nothing; if ``sources`` itself raises, what
        it gave before is yielded first.  Up to two batches are taken from ``sources`` before the first result appears, and no more
        than two are held, however long it is; for a live source use ``batch_size=1``.
        """
        batch_size = require_int("batch_size", batch_size, 1, 1 << 20)
        if isinstance(sources, (str, bytes, bytearray, os.PathLike, np.ndarray)):
            raise ConfigError("stream takes an iterable of pictures; use classify for one")
        settings = self.sampling(**sampling)
        return in_batches(iter(sources), batch_size, self._item_or_failure, lambda batch: self._answers(batch, settings))

    def trace(
        self,
        x: np.ndarray,
        noise: np.ndarray | tuple[np.ndarray, np.ndarray] | None = None,
        *,
        seed: int | None = None,
        sampler: Sampler | str = "sequential",
        solver: str = "published",
        solver_steps: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Every intermediate array of the computation, by the names of tests/golden/README.md.

        x: float32 [B,3,224,224], already normalised; on a GPU also in its memory.  noise: [T,B,C] (diffmic-v1) or
        [2,B,C] = (u_global, u_local) (diffmic-v2); None draws it from ``seed`` and the bytes of each x.  ``trajectory`` is the start
        and the state after every step: [T+1,B,C], v2 [steps+1,B,C,6,6].  With another sampler the same arrays, and ``sweeps``, ``rows``,
        ``sequential_steps`` int64 [B] and ``residual`` float64 [B], the largest |y - G(y before)| of any step and class, with every eps
        evaluated anew.  With a solver, which runs one step at a time whatever the sampler, the trajectory is that of its ``solver_steps``
        steps and there are none of those.  Raises ConfigError for arrays of a wrong shape
        or with NaN.
        """
        self._check_process()
        return self._engine.trace(
            self._preparation.images(x), noise, seed=self._seed(seed), sampler=Sampler.of(sampler), solver=solver, solver_steps=solver_steps
        )

    @property
    def ready(self) -> bool:
        """Whether a picture can be classified without compiling or capturing anything first; always true on a CPU."""
        return self._engine.ready

    def warmup(
        self, batch_sizes: Sequence[int] = (1,), *, draws: int | str | None = None, progress: Callable[[int, int, str], None] | None = None
    ) -> None:
        """Prepare everything that batches of these sizes will run, so that the first of them is as fast as the rest.

        On a GPU: compile kernels and capture graphs of the buckets that hold the sizes, with ``draws`` chains a picture ("auto": for any
        number of the batch's pictures that may still be undecided).
        progress: called as ``progress(done, total, what)`` before each part and when all are done.
        """
        if not isinstance(batch_sizes, Iterable):
            raise ConfigError(f"batch_sizes must be integers, such as [1, 16]; got {batch_sizes!r}")
        sizes = [require_int("batch size", size, 1, 1 << 20) for size in batch_sizes]
        self._check_process()
        sampling = self.sampling(draws=draws)
        self._engine.warm_up(sizes, sampling.draws, progress or (lambda done, total, what: None), sampling.sampler)

    def read(self, source: Source) -> Picture:
        """Read a picture as ``classify`` does."""
        return read(source, self._read_options)

    def preprocess(self, picture: Picture) -> np.ndarray:
        """float32 [3,224,224], as ``trace`` takes it."""
        return preprocess(picture)

    def noise(self, image_sha256: str, *, draws: int = 1, seed: int | None = None, start: str | None = None) -> np.ndarray:
        """The noise that ``classify`` uses for an image: float64 [T,draws,C] (v1) or [2,draws,C] (v2).  Draw k is the same whatever
        their number."""
        wish = self.sampling(seed=seed, start=start)
        return self._engine.noise(image_sha256, seed=wish.seed, draws=self._draws(draws), start=wish.start)

    def sampling(self, **given: Unpack[Settings]) -> Sampling:
        """Settings of a request, checked; what is not given, or None, is the model's."""
        if unknown := set(given) - set(Settings.__annotations__):
            raise ConfigError(f"there is no setting {', '.join(sorted(unknown))}; there is: {', '.join(Settings.__annotations__)}")
        wish: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        defaults: dict[str, Any] = {"draws": self.manifest.default_draws, "seed": self.manifest.default_seed, "sampler": self._sampler}
        wish = defaults | wish
        sampling = Sampling(**wish | {"sampler": Sampler.of(wish["sampler"])})
        self._engine.check(sampling.start)
        self._engine.check_solver(sampling)
        self._temperature(sampling)
        return sampling

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise FusedxError("this model was loaded before a fork, and its threads did not come along: load it in the child process")

    def _draws(self, draws: int | None) -> int:
        return require_int("draws", self.manifest.default_draws if draws is None else draws, 1, MAX_DRAWS)

    def _seed(self, seed: int | None) -> int:
        return require_int("seed", self.manifest.default_seed if seed is None else seed, 0, MAX_SEED)

    def _item(self, source: Source) -> Item:
        return self._preparation.item(source, self._read_options, ahead=False)

    def _item_or_failure(self, source: Source) -> Item | Failure:
        try:
            return self._preparation.item(source, self._read_options, ahead=True)
        except (InputError, MemoryError) as error:
            name = os.fsdecode(source) if isinstance(source, (str, os.PathLike)) else type(source).__name__
            if isinstance(error, MemoryError):
                return Failure(name, "too_large", f"{name}: not enough memory to decode it")
            return Failure(name, error.reason, str(error))

    def _temperature(self, sampling: Sampling) -> Temperature | None:
        """What probabilities are calibrated by; None where that was not asked for."""
        if not sampling.calibrated:
            return None
        if self.manifest.temperature is None:
            raise ConfigError(
                f"{self._compiled.path} has no temperature to calibrate with: fusedx calibrate MODEL --images DIR --labels FILE --store"
            )
        return self.manifest.temperature

    def _predict(self, items: list[Item], sampling: Sampling) -> list[Prediction]:
        predictions = []
        for result in self._results(items, sampling):
            if isinstance(result, Failure):
                raise InputError(result.reason, result.message)
            predictions.append(result)
        return predictions

    def _answers(self, batch: list[Item | Failure], sampling: Sampling) -> list[Prediction | Failure]:
        """What a picture was read as -> what is said of it, each in its place."""
        good = [item for item in batch if isinstance(item, Item)]
        results = iter(self._results(good, sampling) if good else ())
        return [item if isinstance(item, Failure) else next(results) for item in batch]

    def _results(self, items: list[Item], sampling: Sampling) -> list[Prediction | Failure]:
        self._check_process()
        images, digests = self._preparation.stage(items)
        digests = cache(digests)
        results, seconds = self._engine.predict(images, digests, sampling)
        share = {stage: s / len(items) for stage, s in seconds.items()}
        return [
            self._prediction(item, sha256, result, share, sampling)
            for item, sha256, result in zip(items, digests(), results, strict=True)
        ]

    def _prediction(
        self, item: Item, sha256: str, r: Result, share: dict[str, float], sampling: Sampling
    ) -> Prediction | Failure:
        if not r.finite:
            return Failure(item.source, "not_finite", f"{item.source}: the model's weights overflow on this image; there is no result")
        temperature = self._temperature(sampling)
        return Prediction(
            source=item.source,
            label=self.classes[r.index],
            index=r.index,
            probabilities=r.probabilities if temperature is None else tempered(r.scores, temperature.value),
            scores=r.scores,
            prior=r.prior,
            classes=self.classes,
            draws=len(r.draw_scores),
            stability=r.stability,
            standard_error=r.standard_error,
            undecided=r.undecided,
            image_sha256=sha256,
            patch_locations=r.patch_locations,
            saliency=r.saliency,
            timing=item.timing | share | r.work,
            provenance={
                "model": self._compiled.path.name,
                "model_sha256": self.digest,
                "fusedx": fusedx.__version__,
                "family": self.manifest.family,
                "task": self.manifest.task,
                "seed": sampling.seed,
                "draws": sampling.draws_setting,
                "start": sampling.start,
                "approximate": {"solver": sampling.solver, "steps": sampling.solver_steps} if sampling.approximate else None,
                "temperature": temperature and temperature.value,
                **self.runtime,
                "input": item.notes,
            },
        )
