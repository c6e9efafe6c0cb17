"""``fusedx compile``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fusedx.cli import progress
from fusedx.cli.text import facts, size
from fusedx.engine.limits import SAMPLER_KINDS

if TYPE_CHECKING:
    from fusedx.compiler import CompileReport

_MANY = 12


@click.command("compile", short_help="Turn a published checkpoint into a compiled model.")
@click.argument("source")
@click.option("-o", "--output", metavar="NAME.fusedx", required=True, help="Folder to make.")
@click.option("--family", metavar="NAME", help="diffmic-v1 or diffmic-v2.  [default: found out]")
@click.option(
    "--classes",
    metavar="aptos|isic2018|pmg|FILE",
    help="Class names in order; FILE has one a line.  [default: by the checkpoint's dataset]",
)
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Sampling steps.  [default: the checkpoint's; diffmic-v2: 10]")
@click.option(
    "--precision", default="fp32", show_default=True, metavar="NAME",
    help="Denoiser's weights: fp32, bf16, fp16, int8, int4; auto chooses by --calibration.",
)  # fmt: skip
@click.option(
    "--encoder-precision", metavar="NAME",
    help="Encoder: fp32, or int8 with --calibration.  [default: fp32; with --precision auto, chosen too]",
)  # fmt: skip
@click.option(
    "--calibration", metavar="DIR", help="Pictures like those to come: they set an int8 encoder's ranges, and judge --precision auto."
)
@click.option(
    "--max-label-change", type=float, metavar="SHARE",
    help="With --precision auto: the largest share of labels that may differ from fp32's.  [default: 0.001]",
)  # fmt: skip
@click.option(
    "--max-probability-shift", type=float, metavar="SHIFT",
    help="With --precision auto: by how much a probability may differ on average.  [default: 0.01]",
)  # fmt: skip
@click.option("--task", type=click.Choice(["multiclass", "multilabel"]), default="multiclass", show_default=True, help="What scores mean.")
@click.option(
    "--exif-orientation", type=click.Choice(["ignore", "apply"]), default="ignore", show_default=True,
    help="Turn photographs upright by their EXIF tag; published: ignore.",
)  # fmt: skip
@click.option(
    "--sampler", type=click.Choice(SAMPLER_KINDS), default="auto", show_default=True,
    help="Steps of a chain one by one, or many at a time, where a request names none; changes no bit of a result.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace the compiled model when it exists.")
def command(source: str, output: str, **options: Any) -> None:
    """Turn a published checkpoint into a compiled model.

    SOURCE is a DiffMIC folder (ckpt_best.pth, aux_ckpt_best.pth, config.yml) or a DiffMIC-v2 .ckpt file. Nothing in it is
    executed. The model appears whole or not at all. Needs: pip install 'fusedx[compile]'.

    --precision auto takes the cheapest precisions of weights and encoder that DIR's pictures prove, with 95 % confidence, to answer as
    fp32 does: 0.001 takes 2995 pictures or more. It refuses with the figures of every candidate where none passes.

    \b
    fusedx compile checkpoints/aptos -o aptos.fusedx
    fusedx compile last.ckpt -o placenta.fusedx --classes pmg --steps 10
    fusedx compile checkpoints/aptos -o aptos-int8.fusedx --precision int8 --encoder-precision int8 --calibration pictures/
    fusedx compile checkpoints/aptos -o aptos-auto.fusedx --precision auto --calibration pictures/ --max-label-change 0.001
    """
    with progress.stages("compile") as stage:
        stage("loading torch and onnx")
        from fusedx.compiler import compile_checkpoint

        report = compile_checkpoint(source, output, progress=stage, **options)
    click.echo(summary(report))


def summary(report: CompileReport) -> str:
    """What was made, for people."""
    from fusedx.engine.compiled import MANIFEST, sha256_file

    m = report.manifest
    taken = sum(entry.bytes for entry in m.files.values())
    notes = [note for note in m.notes if note.removeprefix("ignored ") not in set(report.ignored)]
    pairs = [
        ("model", str(report.path)),
        ("family", f"{m.family}, {m.task}"),
        ("precision", f"denoiser {m.precision}, encoder {m.encoder_precision}"),
        *([("chosen by", m.precision_evidence.report())] if m.precision_evidence else []),
        ("classes", ", ".join(m.classes)),
        ("", f"({m.class_source})"),
        ("steps", f"{m.schedule.steps} of {m.schedule.train_timesteps}"),
        ("ignored", listed(report.ignored, "tensors") or "nothing"),
        ("notes", "\n".join(notes) or "none"),
        ("size", f"{size(taken)} in {len(m.files)} files"),
        ("digest", sha256_file(report.path / MANIFEST)),
    ]
    return facts(pairs)


def listed(names: list[str], what: str) -> str:
    """One name a line, the first dozen."""
    more = [f"and {len(names) - _MANY} more {what}; info lists them"] if len(names) > _MANY else []
    return "\n".join([*names[:_MANY], *more])
