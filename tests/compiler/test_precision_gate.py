"""``--precision auto``: chosen by what pictures prove, refused with the figures, and the evidence is what anyone can measure again."""

from __future__ import annotations

import json
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fusedx
import tiny
from fusedx.compiler import compile as compiling
from fusedx.compiler import compile_checkpoint, gate_pictures, paired, precision_gate
from fusedx.compiler.bounds import fewest_for_mean, mean_bound, rate_bound
from fusedx.compiler.candidates import Candidate, candidates, large_bytes
from fusedx.compiler.paired import Answers
from fusedx.engine.backends import available
from fusedx.engine.compiled import open_model
from fusedx.engine.encoder.graph import Graph
from fusedx.engine.errors import ConfigError, ModelFormatError, UnavailableError
from fusedx.engine.manifest import Manifest, Network
from fusedx.engine.precision_evidence import PrecisionEvidence

native = pytest.mark.skipif(available()["native"] is not None, reason=f"native: {available()['native']}")
needs_nncf = pytest.mark.skipif(find_spec("nncf") is None, reason="needs nncf: pip install 'fusedx[quantize]'")
PICTURES = 40
#: A gate that forty pictures can pass.
LOOSE = {"precision": "auto", "max_label_change": 0.6, "max_probability_shift": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pictures")
    for seed in range(PICTURES):
        small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(small).resize((96, 80), Image.Resampling.BICUBIC).save(out / f"{seed:02}.png")
    (out / "README.txt").write_text("not a picture")
    return out


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return tiny.write_v1(tmp_path_factory.mktemp("v1"))


def refused(kind: type[BaseException], match: str | None, source, tmp_path, **settings) -> str:
    """Compiling raises, and neither the output nor anything temporary is left."""
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(kind, match=match) as caught:
        compile_checkpoint(source, out / "m.fusedx", **settings)
    assert not os.listdir(out)
    return str(caught.value)


# Settings.


@pytest.mark.parametrize(
    "settings, kind, match",
    [
        ({"precision": "auto"}, ConfigError, "needs a calibration folder"),
        ({"precision": "int8", "max_label_change": 0.1}, ConfigError, "max_label_change: only precision .auto. is chosen by it"),
        ({"max_probability_shift": 0.1, "max_label_change": 0.1}, ConfigError, "max_label_change and max_probability_shift"),
        ({**LOOSE, "encoder_precision": "int4", "calibration": "."}, UnavailableError, "there is: fp32, int8"),
        ({"precision": "automatic"}, UnavailableError, "int4, auto"),
        *(({**LOOSE, "calibration": ".", "max_label_change": bad}, ConfigError, "max_label_change must be a number")
          for bad in (0, 1, -0.1, 2, float("nan"), float("inf"), "0.1", True, 1e-9)),
        ({**LOOSE, "calibration": ".", "max_probability_shift": 0.0}, ConfigError, "max_probability_shift must be a number"),
    ],
)  # fmt: skip
def test_impossible_settings(settings, kind, match, tmp_path):
    refused(kind, match, "/nowhere", tmp_path, **settings)


@native
def test_too_few_pictures_are_refused_with_the_figure_before_any_work(folder, tmp_path):
    """The source does not even exist."""
    for settings, match in (
        ({"precision": "auto"}, "max_label_change 0.001 with 95% .* at least 2995 different pictures"),
        ({**LOOSE, "max_probability_shift": 0.01}, f"max_probability_shift 0.01 with 95% .* at least {fewest_for_mean(0.01)} different"),
    ):
        refused(ConfigError, match, "/nowhere", tmp_path, **settings, calibration=folder)
    refused(ConfigError, "not a folder", "/nowhere", tmp_path, **LOOSE, calibration=folder / "README.txt")


@native
def test_too_few_different_pictures(source, tmp_path):
    """As many files as it takes, but not as many pictures."""
    where = tmp_path / "copies"
    where.mkdir()
    for i in range(20):
        Image.fromarray(np.full((30, 30, 3), 100 + (i == 7), np.uint8)).save(where / f"{i}.png")
    refused(ConfigError, "has 2 different pictures, 18 further ones", source, tmp_path, **LOOSE, calibration=where)


def test_without_the_native_module(source, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(precision_gate, "backends", lambda: {"native": "it was not built", "python": None})
    refused(UnavailableError, "python rounds no activation .*: it was not built", source, tmp_path, **LOOSE, calibration=folder)


# Candidates.


def graph(count: int) -> Graph:
    return Graph([], [], constants={"w": np.zeros(count, np.uint8)})


def network(family: str, feature_dim: int) -> Network:
    return Network(family, 7, feature_dim, "resnet50", "resnet18", 64, **({"vit_width": 384, "vit_depth": 12} if family[-1] == "2" else {}))


def names(found: list[Candidate]) -> list[str]:
    return [f"{c.precision} {c.encoder_precision}" for c in found]


def test_many_steps_make_weights_decide():
    found = candidates(network("diffmic-v1", 6144), 250, {"fp32": graph(247_000_000), "int8": graph(140_000_000)})
    assert names(found) == [
        "int4 int8", "int4 fp32", "int8 int8", "int8 fp32", "fp16 int8", "bf16 int8", "fp16 fp32", "bf16 fp32", "fp32 int8",
    ]  # fmt: skip
    assert large_bytes(network("diffmic-v1", 6144), "fp32") == 2 * 4 * 6144**2


def test_few_steps_let_the_encoder_decide():
    """fp16 in front of bf16: the same bytes, more digits."""
    found = names(candidates(network("diffmic-v2", 6144), 10, {"fp32": graph(320_000_000), "int8": graph(180_000_000)}))
    assert found.index("fp16 int8") < found.index("int4 fp32") and found.index("fp16 int8") < found.index("bf16 int8")
    assert found[-1] in ("bf16 fp32", "fp32 int8") and "fp32 fp32" not in found and len(found) == 9


def test_cost_never_falls_along_the_list():
    for steps in (1, 10, 1000):
        found = candidates(network("diffmic-v1", 100), steps, {"fp32": graph(4000), "int8": graph(1000)})
        assert [c.cost_bytes for c in found] == sorted(c.cost_bytes for c in found) and len(found) == 9


def test_weights_too_wide_for_integers_are_no_candidates():
    found = candidates(network("diffmic-v1", 1 << 17), 2, {"fp32": graph(10)})
    assert names(found) == ["fp16 fp32", "bf16 fp32"]


# Judging.

CANDIDATE = Candidate("int8", "fp32", 1)


def answered(probabilities, task="multiclass", finite=None) -> Answers:
    p = np.asarray(probabilities, float)
    labels = p > 0.5 if task == "multilabel" else p.argmax(axis=1)[:, None]
    return Answers(p, labels, np.ones(len(p), bool) if finite is None else np.asarray(finite))


def test_figures():
    right = answered([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]])
    got = answered([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.5, 0.5]])
    f = paired.judge(CANDIDATE, [got], right, 0.9, 0.9)
    assert (f.pictures, f.label_changes, f.largest_shift, f.mean_shift) == (4, 1, pytest.approx(0.2), pytest.approx(0.075))
    assert f.label_change_bound == rate_bound(1, 4) and f.mean_shift_bound == pytest.approx(mean_bound(np.array([0, 0.2, 0.1, 0])))
    assert f.verdict == "passed" and paired.judge(CANDIDATE, [got], right, 0.9, 0.2).verdict == "failed"


def test_any_label_of_several_counts():
    right = answered([[0.9, 0.9, 0.1], [0.4, 0.6, 0.0]], "multilabel")
    got = answered([[0.9, 0.8, 0.2], [0.4, 0.5, 0.0]], "multilabel")
    assert paired.judge(CANDIDATE, [got], right, 0.99, 0.9).label_changes == 1


def test_no_answer_counts_as_the_worst_one():
    right = answered(np.tile([0.9, 0.1], (10, 1)))
    got = np.tile([0.9, 0.1], (10, 1))
    got[3] = np.nan
    f = paired.judge(CANDIDATE, [answered(got, finite=np.arange(10) != 3)], right, 0.9, 0.9)
    assert (f.label_changes, f.largest_shift) == (1, 1.0) and np.isfinite(f.mean_shift_bound)


@pytest.mark.parametrize("limits", [(0.2, 0.9), (0.9, 0.0101)])
def test_hopeless_candidates_are_stopped_and_never_hopeful_ones(limits):
    """Stopped as soon as nothing could help, and only then: the same limits judged to the end never say passed."""
    rng = np.random.default_rng(0)
    right = answered(np.tile([0.9, 0.1], (400, 1)))
    for share in (0.0, 0.001, 0.02, 0.2, 0.9):
        flip = rng.random(400) < share
        parts = [answered(np.where(flip[i : i + 10, None], [0.1, 0.9], [0.9, 0.1])) for i in range(0, 400, 10)]
        taken = iter(parts)
        f = paired.judge(CANDIDATE, taken, right, *limits)
        whole = rate_bound(int(flip.sum()), 400) <= limits[0] and mean_bound(flip * 0.8) <= limits[1]
        assert (f.verdict == "passed") == whole
        assert (f.verdict == "stopped") == (f.pictures < 400) == bool(list(taken))


# The whole gate.


def measured_again(source, model: Path, folder: Path, evidence: PrecisionEvidence, tmp_path, **settings) -> tuple[int, float]:
    """(label changes, largest shift) of a compiled model against fp32 by ``classify`` alone, on the pictures that the digests say."""
    right = fusedx.load(compile_checkpoint(source, tmp_path / "fp32.fusedx", **settings).path)
    got = fusedx.load(model)
    pictures = sorted(folder.glob("*.png"))
    digests = {right.read(p).sha256: p for p in pictures}
    judges = [digests[d] for d in sorted(digests)[evidence.range_pictures :]]
    assert len(judges) == evidence.pictures
    pairs = list(zip(right.classify(judges), got.classify(judges), strict=True))
    shifts = [float(np.abs(a.probabilities - b.probabilities).max()) for a, b in pairs]
    if settings.get("task") == "multilabel":
        return sum(bool(((a.probabilities > 0.5) != (b.probabilities > 0.5)).any()) for a, b in pairs), max(shifts)
    return sum(a.label != b.label for a, b in pairs), max(shifts)


@native
@pytest.mark.parametrize("family, task", [("v1", "multiclass"), ("v2", "multilabel")])
def test_passes_and_the_evidence_can_be_measured_again(family, task, source, folder, tmp_path, monkeypatch):
    source = source if family == "v1" else tiny.write_v2(tmp_path / "last.ckpt")
    monkeypatch.setattr(paired, "BATCH", 7)
    stages: list[str] = []
    settings = {**LOOSE, "encoder_precision": "fp32", "calibration": folder, "task": task}
    report = compile_checkpoint(source, tmp_path / "m.fusedx", progress=stages.append, **settings)
    m, evidence = report.manifest, report.manifest.precision_evidence
    assert evidence is not None and (evidence.draws, evidence.seed, evidence.range_pictures) == (m.default_draws, m.default_seed, 0)
    figures = evidence.chosen
    assert m.notes[-1] == "the precision was chosen on a folder of 40 different pictures, 1 file that could not be read"
    assert any("1 file that could not be read, the first: " in stage and "README.txt" in stage for stage in stages)
    assert figures is evidence.candidates[-1] and (m.precision, m.encoder_precision) == (figures.precision, "fp32")
    assert figures.pictures == PICTURES and "nncf" not in m.versions and open_model(report.path).manifest == m
    assert (figures.label_changes, figures.largest_shift) == measured_again(source, report.path, folder, evidence, tmp_path, task=task)
    assert figures.label_change_bound == rate_bound(figures.label_changes, PICTURES)
    assert f"judging weights in {m.precision}, encoder in fp32: 0 of 40 pictures" in stages
    text = evidence.report()
    assert "1 draw, seed 0" in text and f"{PICTURES} pictures judged" in text and evidence.pictures_sha256 in text and "passed" in text
    # The model itself is what compiling in that precision makes, and measuring again finds the same.
    plain = compile_checkpoint(source, tmp_path / "plain.fusedx", precision=m.precision, task=task)
    assert plain.manifest.files == m.files
    if family == "v1":
        assert compile_checkpoint(source, tmp_path / "again.fusedx", **settings).manifest == m


@native
@needs_nncf
def test_int8_encoder_is_tried_and_judged_by_others(source, folder, tmp_path):
    report = compile_checkpoint(source, tmp_path / "m.fusedx", **LOOSE, calibration=folder)
    m, evidence = report.manifest, report.manifest.precision_evidence
    assert evidence is not None and (evidence.range_pictures, evidence.pictures) == (16, PICTURES - 16)
    assert evidence.candidates[0].encoder_precision == "int8" and not evidence.left_out
    if m.encoder_precision == "int8":  # a graph of width 8 shrinks little, and what is cheapest here is not the point
        assert "nncf" in m.versions and any("16 calibration images" in note for note in m.notes)
        assert any("calibration set: 16 pictures" in note for note in m.notes)
    figures = evidence.chosen
    assert figures is not None
    changes, largest = measured_again(source, report.path, folder, evidence, tmp_path)
    assert (figures.label_changes, figures.largest_shift) == (changes, largest)
    assert fusedx.load(report.path).runtime["encoder_precision"] == m.encoder_precision


@native
def test_without_nncf_the_encoder_stays_fp32_and_that_is_said(source, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "find_spec", lambda name: None if name == "nncf" else find_spec(name))
    report = compile_checkpoint(source, tmp_path / "m.fusedx", **LOOSE, calibration=folder)
    evidence = report.manifest.precision_evidence
    assert evidence is not None and report.manifest.encoder_precision == "fp32" and evidence.pictures == PICTURES
    assert "nncf" in evidence.left_out[0] and "left out: an int8 encoder needs nncf" in evidence.report()
    (tmp_path / "again").mkdir()
    settings = {**LOOSE, "encoder_precision": "int8", "calibration": folder}
    refused(UnavailableError, "fusedx\\[quantize\\]", source, tmp_path, **settings)


@native
@needs_nncf
def test_too_few_for_an_int8_encoder_beside_the_judges(source, folder, tmp_path):
    """Forty pictures, of which thirty must judge: asked for, an int8 encoder is refused; otherwise it is left out."""
    settings = {**LOOSE, "max_probability_shift": mean_bound(np.zeros(30)), "calibration": folder}
    why = "an int8 encoder needs 16 pictures that set its ranges and do not judge it, beside 30 that judge; there are 40"
    refused(ConfigError, why, source, tmp_path, encoder_precision="int8", **settings)
    evidence = compile_checkpoint(source, tmp_path / "m.fusedx", **settings).manifest.precision_evidence
    assert evidence is not None and evidence.left_out == (why,) and evidence.pictures == PICTURES


@native
def test_none_passes(folder, tmp_path):
    """Only forty answers without any shift could: every candidate's figures are in the text, and what cannot be packed is named."""
    model = tiny.tensors("v1-small", "model")
    model["lin2.lin.weight"][0, 0] = 1e5
    source = tiny.write_v1(tmp_path / "v1", model=model)
    limits = {"max_label_change": 0.9, "max_probability_shift": mean_bound(np.zeros(PICTURES))}
    settings = {"precision": "auto", "encoder_precision": "fp32", "calibration": folder, **limits}
    text = refused(ConfigError, "no precision below fp32 stays within the bounds, so nothing was written:\n", source, tmp_path, **settings)
    table = [line.split() for line in text.splitlines()]
    # In the order of their bytes: at a feature_dim of 16, integers are mostly padding.
    assert [row[0] for row in table if row[-1] in ("failed", "stopped")] == ["bf16", "int8", "int4"]
    assert "left out: weights in fp16, encoder in fp32: the denoiser does not fit fp16: weight2" in text
    assert "--max-label-change" in text


@native
def test_pictures_on_which_fp32_itself_overflows(folder, tmp_path):
    model = tiny.tensors("v1-small", "model")
    model["lin3.lin.weight"] = model["lin3.lin.weight"].sign() * 3e38
    source = tiny.write_v1(tmp_path / "v1", model=model)
    settings = {**LOOSE, "encoder_precision": "fp32", "calibration": folder}
    refused(ConfigError, r"\d\d.png: the model's own fp32 weights overflow", source, tmp_path, **settings)


@native
def test_interrupted_anywhere(source, folder, tmp_path, monkeypatch):
    """Neither a model nor the pixels that were put aside are left."""
    aside = tmp_path / "tmp"
    aside.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(aside))
    monkeypatch.setattr(gate_pictures, "EVERY", 0.0)
    stages: list[str] = []
    settings = {**LOOSE, "encoder_precision": "fp32", "calibration": folder}
    compile_checkpoint(source, tmp_path / "whole.fusedx", progress=stages.append, **settings)
    for stage in ("reading the calibration", "fp32 encoder", "fp32 answers", "judging"):
        at = next(i for i, text in enumerate(stages) if text.startswith(stage))
        left = at + 1

        def stop(text: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise KeyboardInterrupt

        refused(KeyboardInterrupt, None, source, tmp_path, progress=stop, **settings)
        assert not os.listdir(aside)


@native
def test_no_room_for_the_pixels(source, folder, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gate_pictures, "read_pictures", full)
    refused(ConfigError, "No space left on device; TMPDIR", source, tmp_path, **LOOSE, encoder_precision="fp32", calibration=folder)


# What the manifest says.


@pytest.fixture(scope="module")
def document(source, folder, tmp_path_factory) -> dict:
    if available()["native"] is not None:
        pytest.skip("needs the native module")
    out = tmp_path_factory.mktemp("document") / "m.fusedx"
    return json.loads(compile_checkpoint(source, out, **LOOSE, encoder_precision="fp32", calibration=folder).manifest.to_json())


def changed(document: dict, **changes) -> str:
    copy = json.loads(json.dumps(document))
    for key, value in changes.items():
        place, _, name = key.rpartition("__")
        (copy["precision_evidence"]["candidates"][-1] if place == "last" else copy["precision_evidence"])[name] = value
    return json.dumps(copy)


def test_evidence_survives_the_manifest(document):
    assert json.loads(Manifest.from_json(json.dumps(document)).to_json()) == document
    assert Manifest.from_json(json.dumps({k: v for k, v in document.items() if k != "precision_evidence"})).precision_evidence is None


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"pictures_sha256": "zz"}, "not a SHA-256"),
        ({"pictures": 0}, "pictures must be"),
        ({"pictures": 39}, "more pictures than there were"),
        ({"pictures": 41}, "verdict is not what its figures say"),
        ({"draws": 0}, "draws must be"),
        ({"seed": -1}, "seed must be"),
        ({"confidence": 1.5}, "confidence must be from 0 to 1"),
        ({"max_label_change": 1e-9}, "verdict is not what its figures say"),
        ({"max_probability_shift": 0.0}, "verdict is not what its figures say"),
        ({"candidates": []}, "it chose nothing"),
        ({"candidates": 3}, "must be a list"),
        ({"candidates": [3]}, "must be an object"),
        ({"unknown": 3}, "unknown key 'unknown'"),
        ({"last__verdict": "failed"}, "verdict is not what its figures say"),
        ({"last__verdict": "splendid"}, "verdict must be one of"),
        ({"last__precision": "fp8"}, "no such precisions"),
        ({"last__precision": "fp32"}, "it chose fp32 and fp32"),
        ({"last__encoder_precision": "int8"}, "not that of a model"),
        ({"last__label_changes": 41}, "label_changes must be from 0"),
        ({"last__label_changes": -1}, "label_changes must be from 0"),
        ({"last__mean_shift": -0.1}, "mean_shift must be from 0 to 1"),
        ({"last__cost_bytes": -1}, "cost_bytes"),
        ({"last__pictures": True}, "must be int"),
    ],
)  # fmt: skip
def test_impossible_evidence_is_refused(changes, match, document):
    with pytest.raises(ModelFormatError, match=match):
        Manifest.from_json(changed(document, **changes))


# The command line.


@native
def test_command_and_info(source, folder, tmp_path):
    from click.testing import CliRunner

    from fusedx.cli import commands

    def run(*arguments: object):
        return CliRunner().invoke(commands, [str(a) for a in arguments])

    out = tmp_path / "m.fusedx"
    options = ["--precision", "auto", "--calibration", folder, "--encoder-precision", "fp32"]
    done = run("compile", source, "-o", out, *options)
    assert done.exit_code == 2 and "at least 2995 different pictures" in done.stderr and not out.exists()
    done = run("compile", source, "-o", out, *options, "--max-label-change", "0.6", "--max-probability-shift", "0.5")
    assert done.exit_code == 0 and "chosen by" in done.stdout and "judging" in done.stderr, done.stderr
    shown = run("info", out).stdout
    assert all(word in shown for word in ("chosen by", "mean shift", "passed", "40 pictures judged", "allowed: labels changed 0.6"))
    assert json.loads(run("info", out, "--json").stdout)["precision_evidence"]["candidates"][-1]["verdict"] == "passed"
    assert run("compile", source, "-o", tmp_path / "x", "--max-label-change", "0.1").exit_code == 2
