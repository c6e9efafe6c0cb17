"""``fusedx info``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from fusedx.cli.options import json_option
from fusedx.cli.text import facts, size

if TYPE_CHECKING:
    from fusedx.engine.compiled import CompiledModel
    from fusedx.engine.manifest import Manifest, SelfTest


@click.command("info", short_help="Say what a compiled model is.")
@click.argument("model")
@json_option
def command(model: str, as_json: bool) -> None:
    """Say what a compiled model is, and check that its files are unchanged.

    --json prints the manifest with "digest" (the SHA-256 that results carry as model_sha256) and "path".

    \b
    fusedx info aptos.fusedx
    fusedx info aptos.fusedx --json
    """
    from fusedx.engine.compiled import open_model

    compiled = open_model(model)
    if as_json:
        document = json.loads(compiled.manifest.to_json()) | {"digest": compiled.digest, "path": str(compiled.path.resolve())}
        click.echo(json.dumps(document, indent=1))
    else:
        click.echo(describe(compiled))


def describe(compiled: CompiledModel) -> str:
    """The manifest for people."""
    m, n, s = compiled.manifest, compiled.manifest.network, compiled.manifest.schedule
    shape = f"prior {n.prior_arch}, feature {n.feature_arch}, backbone width {n.backbone_width}, feature dimension {n.feature_dim}"
    if n.vit_depth:
        shape += f", ViT {n.vit_width} wide and {n.vit_depth} deep"
    pairs = [
        ("model", str(compiled.path)),
        ("digest", compiled.digest),
        ("family", f"{m.family}, {m.task}, format {m.format_version}"),
        ("precision", f"denoiser {m.precision}, encoder {m.encoder_precision}"),
        *([("chosen by", m.precision_evidence.report())] if m.precision_evidence else []),
        ("network", shape),
        ("classes", "\n".join(f"{i}  {name}" for i, name in enumerate(m.classes))),
        ("", f"({m.class_source})"),
        ("sampling", f"{s.steps} steps of {s.train_timesteps}, beta {s.beta_schedule} {s.beta_start:g} to {s.beta_end:g}"),
        ("defaults", f"draws {m.default_draws}, seed {m.default_seed}, sampler {m.default_sampler}"),
        ("self test", _self_test(m.self_test)),
        ("devices", f"{_cpu(m)}\n{_gpu(m)}"),
        ("probability", m.probabilities),
        *([("temperature", m.temperature.report())] if m.temperature else []),
        ("input", f"{m.preprocessing.size} x {m.preprocessing.size}; crop: {m.preprocessing.crop}"),
        ("", f"resize: {m.preprocessing.resize}"),
        ("", f"scale: {m.preprocessing.scale}"),
        ("", f"EXIF orientation: {m.preprocessing.exif_orientation}"),
        ("files", "\n".join(f"{name}  {size(entry.bytes)}" for name, entry in m.files.items()) + "\n(every SHA-256 matches the manifest)"),
        ("made from", "\n".join(f"{name}  {size(entry.bytes)}  sha256 {entry.sha256}" for name, entry in m.source.items())),
        ("made by", ", ".join(f"{name} {version}" for name, version in m.versions.items())),
        ("notes", "\n".join(m.notes) or "none"),
        ("metrics", "\n".join(f"{name}: {_plain(value)}" for name, value in m.metrics.items()) or "none"),
    ]
    return facts(pairs)


def _self_test(record: SelfTest | None) -> str:
    if record is None:
        return "none recorded"
    said = " ".join(f"{p:.4f}" for p in record.probabilities[:12]) + (" .." if len(record.probabilities) > 12 else "")
    return f"{said}, within {record.tolerance:g} (seed {record.seed}, {record.draws} draws; fusedx verify compares)"


def _cpu(m: Manifest) -> str:
    """The precisions that the model can be loaded in on a processor, with the bytes that a step reads of the two large matrices."""
    import numpy as np

    from fusedx.engine.denoiser import LARGE
    from fusedx.engine.manifest import PRECISIONS
    from fusedx.engine.safetensors import DTYPES
    from fusedx.kernels.conditional_layer.packed import shapes

    sizes = []
    for name in PRECISIONS if m.precision == "fp32" else (m.precision,):
        try:
            arrays = shapes(name, m.network.feature_dim, m.network.feature_dim).values()
        except ValueError:  # too wide for it
            continue
        sizes.append(f"{name} {size(len(LARGE) * sum(int(np.prod(shape)) * DTYPES[dtype].itemsize for shape, dtype in arrays))}")
    return f"cpu: {', '.join(sizes)} for the two large matrices of a step"


def _gpu(m: Manifest) -> str:
    """What a GPU would hold of this model's chain, and whether there is one."""
    import numpy as np

    from fusedx.engine.cuda import device
    from fusedx.kernels.conditional_layer.formats import FORMATS

    here = device.why_not() or ", ".join(str(gpu) for gpu in device.find_all())
    if (m.precision, m.encoder_precision) != ("fp32", "fp32"):
        return f"cuda: no, it needs a model compiled in fp32\n(GPU here: {here})"
    matrices = {name: 2 * m.network.feature_dim**2 * np.dtype(stored).itemsize for name, (stored, _) in FORMATS.items()}
    sizes = ", ".join(f"{name} {size(count)}" for name, count in matrices.items())
    return f"cuda: {sizes} for the two large matrices of a step\n(GPU here: {here})"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
