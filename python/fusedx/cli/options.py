"""Options that several commands share, and the one place that opens a model for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fusedx.engine.limits import MAX_DRAWS, MAX_SEED, SAMPLER_KINDS

if TYPE_CHECKING:
    from fusedx.model import Model

F = TypeVar("F", bound=Callable[..., Any])


def stacked(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several click decorators as one, shown in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


device_options = stacked(
    click.option("--device", default="cpu", show_default=True, metavar="NAME", help="Where to compute: cpu, cuda, cuda:N."),
    click.option(
        "--precision", metavar="NAME",
        help="Weights: fp32, bf16, fp16; int8, int4 on a CPU; fp8 on a GPU.  [default: as compiled]",
    ),
    click.option(
        "--backend", default="auto", show_default=True, metavar="NAME",
        help="Who runs the denoising chain: auto; native, python on a CPU; triton, persistent on a GPU.",
    ),
    click.option(
        "--encoder", default="auto", show_default=True, metavar="NAME",
        help="Who runs the encoder: auto; openvino, onnxruntime, torch, reference on a CPU; tensorrt, torch, torch-eager on a GPU.",
    ),
    click.option(
        "--sampler", type=click.Choice(SAMPLER_KINDS),
        help="Steps of a chain one by one, or many at a time; changes the time, no bit of a result.  [default: the model's]",
    ),
)  # fmt: skip
noise_options = stacked(
    click.option(
        "--draws", type=click.IntRange(1, MAX_DRAWS), metavar="N",
        help="Independent chains to average, 1 as published.  [default: the model's]",
    ),
    click.option("--seed", type=click.IntRange(0, MAX_SEED), metavar="N", help="Seed of the noise.  [default: the model's]"),
)  # fmt: skip
picture_options = stacked(
    click.option("--frame", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Which frame of an image, from 0."),
    click.option(
        "--exif-orientation", type=click.Choice(["ignore", "apply"]),
        help="Turn photographs upright by their EXIF tag, or not.  [default: the model's choice]",
    ),
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


def open_model(
    path: str,
    *,
    device: str,
    precision: str | None,
    backend: str,
    encoder: str,
    sampler: str | None = None,
    frame: int = 0,
    exif_orientation: str | None = None,
) -> Model:
    """``fusedx.load`` with the picture options of the command line."""
    import fusedx

    reading = fusedx.ReadOptions(exif_orientation=exif_orientation, frame=frame)
    return fusedx.load(path, device, precision, backend, encoder=encoder, sampler=sampler, read_options=reading)
