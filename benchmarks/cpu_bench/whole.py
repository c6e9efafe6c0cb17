"""One image end to end: the released semantics, which run the image encoder at every step, against fusedx."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import fusedx
import torch_diffmic as plain
from cpu_bench.problem import relative_error
from cpu_bench.results import Results, Row
from fusedx.golden import GoldenCase
from turns import alternate

PART, RELEASED = "end to end", "released semantics, torch eager fp32"


def name(precision: str, encoder: str) -> str:
    """Of a row."""
    return f"fusedx chain {precision}, encoder {encoder}"


def measure(results: Results, checkpoint: Path, case: GoldenCase, models: dict[str, fusedx.Model], rounds: int) -> None:
    """``models`` by row name.  fusedx classifies a decoded 224x224 picture; the released form starts from the prepared image.

    The released form gets the prior encoder once and the rest at every step, as published.
    """
    steps, batch = case.noise.shape[0], slice(0, 1)
    x, z = torch.from_numpy(case.x[batch]), torch.from_numpy(case.noise[:, batch])
    prior_encoder, denoiser = _released(checkpoint, case)
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)

    @torch.inference_mode()
    def released() -> np.ndarray:
        return plain.sample_released(denoiser, x, prior_encoder(x).prior, z).numpy()

    finals = {RELEASED: released}
    contenders: dict[str, Callable[[], object]] = {RELEASED: released}
    for key, model in models.items():
        contenders[key] = lambda model=model: model.classify(picture)
        finals[key] = lambda model=model: model.trace(case.x[batch], case.noise[:, batch])["y_final"]
    with torch.inference_mode():
        plain.sample_released(denoiser, x, prior_encoder(x).prior, z[-2:])  # warm: two steps of it
    for run in list(contenders.values())[1:]:
        run()
    answers: dict[str, np.ndarray] = {}

    def timed(key: str) -> Callable[[], float]:
        def run() -> float:
            time.sleep(0.1)
            if key != RELEASED:  # the released form runs for seconds: how it begins does not show
                contenders[key]()
            started = time.perf_counter()
            answer = contenders[key]()
            seconds = time.perf_counter() - started
            if isinstance(answer, np.ndarray):
                answers[key] = answer
            return seconds

        return run

    seconds = alternate({key: timed(key) for key in contenders}, rounds)
    for key, found in seconds.items():
        final = answers[key] if key in answers else finals[key]()
        error = relative_error(final, case.expected["y_final"][batch])
        library = "torch" if key == RELEASED else "fusedx"
        precision = "fp32" if key == RELEASED else models[key].runtime["precision"]
        results.add(Row(PART, key, library, precision, 1, [s * 1e3 for s in found], error=error, note=f"{steps} steps"))


def _released(checkpoint: Path, case: GoldenCase) -> tuple[plain.PriorEncoder, plain.ConditionalDenoiser]:
    classes, features = case.noise.shape[-1], case.expected["feature"].shape[-1]
    prior_encoder, denoiser = plain.PriorEncoder(classes), plain.ConditionalDenoiser(classes, features)
    for model, file in ((prior_encoder, "aux_ckpt_best.pth"), (denoiser, "ckpt_best.pth")):
        model.load_state_dict(torch.load(checkpoint / file, weights_only=True)[0], strict=model is denoiser)
        model.eval()
    return prior_encoder, denoiser
