"""``classify`` of one decoded frame from end to end: what the host adds to the time of the device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

import fusedx
from fusedx.verify import relative_error
from gpu_bench import plain
from gpu_bench.figures import Row
from gpu_bench.setting import Setting
from gpu_bench.timing import Clock, device_time
from turns import alternate

SIDE = 512
#: Seconds in which the host certainly queues either stretch: what it is late by would be counted as the device's.
_HEAD_START = 0.01


def measure(setting: Setting, precision: str, backend: str) -> list[Row]:
    """A frame on the host and the same frame on the device, by one model, warm."""
    model = fusedx.load(setting.compiled.path, str(setting.device), precision, backend, encoder="torch", verify=False)
    model.warmup([1])
    frame = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    frames = {"host frame": frame, "device frame": torch.from_numpy(frame).to(setting.device)}
    expected = exact(setting, model, frame)
    contenders: dict[str, Callable[[], float]] = {}
    for kind, source in frames.items():
        contenders[f"{kind} wall"] = _wall(model, source)
        contenders[f"{kind} device"] = _device(setting, model, source)
        contenders[f"{kind} wall"]()
    seconds = alternate(contenders, max(20, 3 * setting.rounds))
    rows = []
    for kind, source in frames.items():
        row = Row(
            part="classify",
            name=f"{precision} {backend}, {kind}",
            batch=1,
            seconds=seconds[f"{kind} wall"],
            moved=0,
            operations=0,
            error=relative_error(model.classify(source).scores, expected),
            against="float64",
            l2="warm",
            device_seconds=seconds[f"{kind} device"],
            note=f"device {statistics.median(seconds[f'{kind} device']) * 1e3:.3f} ms",
        )
        setting.report(row)
        rows.append(row)
    return rows


def exact(setting: Setting, model: fusedx.Model, frame: np.ndarray) -> np.ndarray:
    """The frame's scores [C] by plain torch in float64, from the checkpoint's own tensors."""
    picture, m = model.read(frame), model.manifest
    x, noise = model.preprocess(picture)[None], model.noise(picture.sha256)
    return plain.exact_scores(setting.checkpoint, m.network, m.schedule, x, noise, setting.device)[0]


def _wall(model: fusedx.Model, source: object) -> Callable[[], float]:
    def run() -> float:
        started = time.perf_counter()
        model.classify(source)  # returns host arrays, so the device is done
        return time.perf_counter() - started

    return run


def _device(setting: Setting, model: fusedx.Model, source: object) -> Callable[[], float]:
    """The two stretches that the device works without the host: frame to encoding, and encoding to final state."""
    engine, preparation, options = model._engine, model._preparation, model.read_options
    clocks: list[Clock] = [setting.clock(engine.context.stream), setting.clock(_chain_stream(engine))]
    noise = model.noise(model.classify(source).image_sha256)[:, :, None]
    last = {}

    def encode() -> None:
        images, _ = preparation.stage([preparation.item(source, options, ahead=False)])
        last["encoded"] = engine.encoder.run(images)

    def run() -> float:
        first = device_time(encode, clocks[0], head_start=_HEAD_START)
        with engine.context.working():
            _ = last["encoded"]["prior"]  # on the host, as the chain wants it, before its time starts
        return first + device_time(lambda: engine.chains.run(last["encoded"], noise, keep=False), clocks[1], head_start=_HEAD_START)

    return run


def _chain_stream(engine: object) -> int:
    """Of the persistent chain's memory, or of the context."""
    memory = getattr(engine.chains, "_memory", None)  # type: ignore[attr-defined]
    return engine.context.stream if memory is None else memory.stream  # type: ignore[attr-defined]
