"""``fusedx verify``."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

from fusedx.cli import exits, progress
from fusedx.cli.options import device_options, json_option
from fusedx.cli.text import table

if TYPE_CHECKING:
    from fusedx.verify import Report


@click.command("verify", short_help="Recompute results another way and compare.")
@click.argument("model")
@click.option("--golden", metavar="CASE.json", help="Compare with a golden case: outputs of the original code.")
@click.option("--checkpoint", metavar="SOURCE", help="Compare with the checkpoint's own weights in float64 (needs torch).")
@device_options
@json_option
@click.pass_context
def command(ctx: click.Context, model: str, golden: str | None, checkpoint: str | None, as_json: bool, **choices: Any) -> None:
    """Recompute a model's results another way and compare, stage by stage.

    Without --golden or --checkpoint, the reference is the compiled weights in float64 arithmetic on synthetic images.
    Exit status: 0 within tolerance, 1 out of tolerance, 2 could not run.

    \b
    fusedx verify aptos.fusedx
    fusedx verify aptos.fusedx --checkpoint checkpoints/aptos
    fusedx verify v1-small.fusedx --golden tests/golden/v1-small.json --json
    fusedx verify aptos.fusedx --device cuda --precision bf16
    """
    from fusedx.verify import verify

    with progress.stages("verify") as stage:
        report = verify(model, golden, checkpoint, progress=stage, **choices)
    click.echo(json.dumps(document(report), indent=1) if as_json else describe(report))
    ctx.exit(exits.DONE if report.ok else exits.SOME_FAILED)


def document(report: Report) -> dict[str, Any]:
    """Plain JSON types; an error that is not a number is null."""
    rows = [
        {"stage": r.stage, "error": r.error if math.isfinite(r.error) else None, "tolerance": r.tolerance, "ok": r.ok} for r in report.rows
    ]
    equal, images = report.label_agreement
    return {"ok": report.ok, "reference": report.reference, "rows": rows, "labels_equal": equal, "ties": report.ties, "images": images}


def describe(report: Report) -> str:
    """The table for people."""
    rows = [(r.stage, f"{r.error:.1e}", f"{r.tolerance:.0e}", "ok" if r.ok else "OUT OF TOLERANCE") for r in report.rows]
    equal, images = report.label_agreement
    return "\n".join(
        [
            f"compared with {report.reference}",
            "",
            table(("stage", "largest error", "tolerance", "verdict"), rows, right=(1, 2)),
            "",
            f"labels: {equal} of {images} agree" + (f", {report.ties} within tolerance of a tie" if report.ties else ""),
            f"verdict: {'within tolerance' if report.ok else 'OUT OF TOLERANCE'}",
        ]
    )
