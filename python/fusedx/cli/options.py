"""Options that several commands share, and the one place that opens a model for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fusedx.engine.limits import (
    AUTO_DRAWS,
    DEFAULT_MAX_DRAWS,
    FIRST_LOOK,
    MAX_DRAWS,
    MAX_SEED,
    MAX_SOLVER_STEPS,
    SAMPLER_KINDS,
    SOLVERS,
    STARTS,
)

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


class Draws(click.ParamType):
    """A number of draws, or "auto"."""

    name = "draws"
    _number = click.IntRange(1, MAX_DRAWS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == AUTO_DRAWS:
            return AUTO_DRAWS
        try:
            int(value)
        except ValueError:
            self.fail(f"{value!r:.100} is neither a number from 1 to {MAX_DRAWS} nor {AUTO_DRAWS!r}.", param, ctx)
        return self._number.convert(value, param, ctx)


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
#: The options below, by the names that ``Model.classify`` has for them.
SAMPLING = ("draws", "max_draws", "seed", "start", "solver", "solver_steps", "calibrated")
noise_options = stacked(
    click.option(
        "--draws", type=Draws(), metavar="N|auto",
        help="Independent chains to average, 1 as published; auto: as many as the label of each image needs.  [default: the model's]",
    ),
    click.option(
        "--max-draws", type=click.IntRange(FIRST_LOOK, MAX_DRAWS), metavar="N",
        help=f"Where --draws auto gives up and says so.  [default: {DEFAULT_MAX_DRAWS}]",
    ),
    click.option("--seed", type=click.IntRange(0, MAX_SEED), metavar="N", help="Seed of the noise.  [default: the model's]"),
    click.option(
        "--start", type=click.Choice(STARTS),
        help="Where a DiffMIC chain starts: the prior with unit noise; with as much as its schedule has; or alone.  [default: published]",
    ),
    click.option(
        "--solver", type=click.Choice(SOLVERS),
        help="Whose steps: the published chain's, or on a CPU fewer ones that approximate it.  [default: published]",
    ),
    click.option(
        "--solver-steps", type=click.IntRange(1, MAX_SOLVER_STEPS), metavar="N", help="How many; needed with a solver but the published.",
    ),
    click.option(
        "--calibrated", is_flag=True, help="Apply the temperature that `fusedx calibrate --store` left in the model.",
    ),
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
