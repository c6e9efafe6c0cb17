"""``fusedx calibrate`` on the shipped model: what it writes, what it stores, and what it refuses."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fusedx
from fusedx.calibrate import answers, pictures, report
from fusedx.demo import IMAGES
from fusedx.engine.sampling import Sampling


@pytest.fixture(scope="module")
def photos(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 turned copies of the shipped drawings in two folders, a torn file, and labels, two in three of which are what the model says."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deeper").mkdir()
    drawings = sorted(IMAGES.glob("grade*.jpg"))
    rows = []
    for i in range(48):
        name = f"{'deeper/' if i % 2 else ''}{i:02d}.png"
        with Image.open(drawings[i % len(drawings)]) as drawing:
            drawing.resize((96, 96)).rotate(7 * i).save(folder / name)
        rows.append(name)
    said = fusedx.load(small_model).classify([folder / name for name in rows])
    labels = [p.label if i % 3 else str((p.index + 1) % 5) for i, p in enumerate(said)]
    (folder / "torn.png").write_bytes((folder / "00.png").read_bytes()[:200])
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("label", "path"), *zip(labels, rows, strict=True)])
    return folder


@pytest.fixture
def model_copy(small_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_model, tmp_path / "copy.fusedx"))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_curve_is_what_classify_says(small_model: Path, photos: Path, tmp_path: Path, invoke) -> None:
    out = tmp_path / "curve"
    done = invoke("calibrate", small_model, "--images", photos, "--solvers", "unipc,ddim", "--steps", "4,2", "-o", out, "--seed", 3)
    assert done.exit_code == 1 and "torn.png" in done.stderr, done.output  # one file could not be used
    assert {path.name for path in out.iterdir()} == {"curve.csv", "curve.json", "curve.png"}
    with Image.open(out / "curve.png") as picture:
        assert picture.size == (1400, 660)
    document = json.loads((out / "curve.json").read_text())
    rows = document["rows"]
    with open(out / "curve.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(r["solver"], int(r["steps"]), int(r["agreeing"])) for r in table] == [(r["solver"], r["steps"], r["agreeing"]) for r in rows]
    names = [(r["solver"], r["steps"]) for r in rows]
    assert names == [("published", 250), ("published, another seed", 250), ("unipc", 2), ("unipc", 4), ("ddim", 2), ("ddim", 4)]
    assert document["pictures"] == 48 and document["temperature"] is None and len(document["skipped"]) == 1
    model = fusedx.load(small_model)
    assert {name: document[name] for name in model.runtime} == model.runtime, "in int8 the curve is another one"
    paths = sorted(photos.rglob("[0-9]*.png"))
    published = model.classify(paths, seed=3)
    for settings, got in (({"seed": 4}, rows[1]), ({"seed": 3, "solver": "unipc", "solver_steps": 4}, rows[3])):
        other = model.classify(paths, **settings)
        shift = [np.abs(a.probabilities - b.probabilities).max() for a, b in zip(published, other, strict=True)]
        assert got["agreeing"] == sum(a.label == b.label for a, b in zip(published, other, strict=True))
        assert got["mean_shift"] == pytest.approx(np.mean(shift)) and got["shift_95"] == pytest.approx(np.quantile(shift, 0.95))
        assert got["low"] <= got["agreement"] <= got["high"]


def test_batches_change_nothing(small_model: Path, photos: Path) -> None:
    model = fusedx.load(small_model)
    chosen = report.settings(model, ["dpmpp-2m"], [3], draws=2, seed=0, start="matched")
    listed = pictures.find(photos, photos / "labels.csv", model.classes)
    one, many = (report.calibrate(model, chosen, listed, batch_size=size).to_dict() for size in (1, 64))
    assert one == many and one["start"] == "matched" and one["temperature"]["draws"] == 2


def test_a_temperature_is_stored_and_applied_only_where_asked(model_copy: Path, photos: Path, invoke) -> None:
    before, mode = digests(model_copy), stat.S_IMODE((model_copy / "manifest.json").stat().st_mode)
    plain = fusedx.load(model_copy).classify(photos / "00.png")
    with pytest.raises(fusedx.ConfigError, match="no temperature to calibrate with"):
        fusedx.load(model_copy).classify(photos / "00.png", calibrated=True)
    done = invoke(
        "calibrate", model_copy, "--images", photos, "--labels", photos / "labels.csv", "--solvers", "ddim", "--steps", 2, "--store"
    )
    after = digests(model_copy)
    assert done.exit_code == 1 and after["manifest.json"] in done.stderr, done.output
    assert set(before) == set(after) and {n for n in before if before[n] != after[n]} == {"manifest.json"}
    assert stat.S_IMODE((model_copy / "manifest.json").stat().st_mode) == mode
    model = fusedx.load(model_copy)
    t = model.manifest.temperature
    assert t is not None and (t.images, t.held_out) == (24, 24) and model.digest == after["manifest.json"]
    again = model.classify(photos / "00.png")
    assert again.probabilities.tobytes() == plain.probabilities.tobytes() and again.provenance["temperature"] is None
    calibrated = model.classify(photos / "00.png", calibrated=True)
    e = np.exp((plain.scores - plain.scores.max()) / t.value)
    np.testing.assert_allclose(calibrated.probabilities, e / e.sum(), rtol=1e-12)
    assert calibrated.provenance["temperature"] == t.value and calibrated.scores.tobytes() == plain.scores.tobytes()
    shown = invoke("info", model_copy).output
    assert "temperature" in shown and "calibration error" in shown
    done = invoke("classify", model_copy, photos / "00.png", "--calibrated")
    assert float(next(csv.DictReader(done.stdout.splitlines()))["temperature"]) == t.value and "other settings" not in done.stderr
    for other in (("--draws", 2), ("--draws", "auto"), ("--start", "matched"), ("--solver", "ddim", "--solver-steps", 3)):
        done = invoke("classify", model_copy, photos / "00.png", "--calibrated", *other)
        assert "fitted for other settings: the published chain, 1 draw" in done.stderr, "a temperature is for the settings it was fitted on"
    invoke("calibrate", model_copy, "--images", photos, "--labels", photos / "labels.csv", "--solvers", "ddim", "--steps", 2, "--store")
    assert digests(model_copy) == after  # the same measurement


def test_a_temperature_of_other_weights_is_not_stored(model_copy: Path, photos: Path, invoke) -> None:
    """Scores in int8 are not those of the fp32 weights that the manifest speaks for: refused before minutes of work."""
    before = digests(model_copy)
    done = invoke(
        "calibrate", model_copy, "--images", "/nowhere", "--labels", photos / "labels.csv", "--store", "--precision", "int8"
    )
    assert done.exit_code == 2 and "compiled in fp32" in done.output and digests(model_copy) == before


def test_a_manifest_that_changed_meanwhile_is_left_alone(model_copy: Path, photos: Path) -> None:
    model = fusedx.load(model_copy)
    listed = pictures.find(photos, photos / "labels.csv", model.classes)
    found = report.calibrate(model, report.settings(model, ["ddim"], [1], draws=None, seed=None, start=None), listed)
    text = (model_copy / "manifest.json").read_text()
    (model_copy / "manifest.json").write_text(text + "\n")
    with pytest.raises(fusedx.ModelFormatError, match="changed since the model was opened"):
        report.store(model, found.temperature)
    assert (model_copy / "manifest.json").read_text() == text + "\n" and len(list(model_copy.iterdir())) == 4


@pytest.mark.parametrize("fails", ["chart", "rename"])
def test_an_interrupted_write_leaves_nothing(fails: str, small_model: Path, photos: Path, tmp_path: Path, monkeypatch) -> None:
    model = fusedx.load(small_model)
    found = report.calibrate(
        model, report.settings(model, ["ddim"], [1], draws=None, seed=None, start=None), pictures.find(photos, None, model.classes)
    )
    from fusedx.calibrate import chart

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(*((chart, "draw", stop) if fails == "chart" else (Path, "rename", stop)))
    with pytest.raises(KeyboardInterrupt):
        report.write(found, tmp_path / "out", overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("path,label\n00.png,Grade X\n", "no class of the model"),
        ("path,label\n00.png,7\n", "no class of the model"),
        ("path,label\nnowhere.png,Mild\n", "no pictures below"),
        ("path,label\n00.png,Mild\n./00.png,0\n", "another label than before"),
        ("path,label\n", "has no labels"),
        ("path,label\n00.png,\n", "has no labels"),
        ("path,label\n" + "x" * 5000 + ",Mild\n", "is no file's name: File name too long"),
        ("path,label\na\0b.png,Mild\n", "is no file's name"),
        ("", "no column"),
        ("file,grade\n00.png,Mild\n", "no column 'path' or 'label'"),
        ("path,label\n00.png,Mild\n", "at least 40 different pictures with labels"),
    ],
)
def test_labels_that_cannot_be_used(rows: str, words: str, small_model: Path, photos: Path, tmp_path: Path, invoke) -> None:
    (tmp_path / "labels.csv").write_text(rows)
    few = ("--solvers", "ddim", "--steps", 1, "-o", tmp_path / "o")
    done = invoke("calibrate", small_model, "--images", photos, "--labels", tmp_path / "labels.csv", *few)
    assert done.exit_code == 2 and words in done.stderr.replace("\n", " "), done.stderr
    assert not (tmp_path / "o").exists() and "not a table in CSV" not in done.stderr, "each of these is one"


def test_what_cannot_run_is_said_before_any_work(small_model: Path, photos: Path, tmp_path: Path, invoke) -> None:
    def refused(*arguments: object) -> str:
        done = invoke("calibrate", small_model, "--images", photos, *arguments)
        assert done.exit_code == 2, done.output
        return done.stderr

    assert "needs --labels" in refused("--store")
    assert "needs -o" in refused("--overwrite")
    assert "solver_steps must be an integer from 1 to 250" in refused("--steps", 251)
    assert "not in the range" in refused("--steps", "5,0") and "'euler'" in refused("--solvers", "euler")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    for more in ((), ("--overwrite",)):
        assert "none of a calibration's files" in refused("-o", tmp_path / "full", *more)
    assert "not a folder of pictures" in invoke("calibrate", small_model, "--images", photos / "00.png").stderr
    (tmp_path / "few").mkdir()
    for i in range(9):  # the same picture nine times is one
        shutil.copy(photos / "00.png", tmp_path / "few" / f"{i}.png")
    done = invoke("calibrate", small_model, "--images", tmp_path / "few", "--steps", 1, "--solvers", "ddim")
    assert done.exit_code == 2 and "got 1; 8 were skipped" in done.stderr
    (tmp_path / "none").mkdir()
    assert "there is no picture in" in invoke("calibrate", small_model, "--images", tmp_path / "none").stderr


def test_too_few_labels_are_said_before_any_work(small_model: Path, photos: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "labels.csv").write_text("path,label\n00.png,Mild\n")
    model = fusedx.load(small_model)
    listed = pictures.find(photos, tmp_path / "labels.csv", model.classes)
    monkeypatch.setattr(report.answers, "collect", None)
    with pytest.raises(fusedx.ConfigError, match="at least 40 different pictures with labels .* got 1"):
        report.calibrate(model, report.settings(model, ["ddim"], [1], draws=None, seed=None, start=None), listed)


@pytest.mark.parametrize("labels", ["the model's", "another class"])
def test_the_curve_is_kept_where_no_temperature_fits(labels: str, model_copy: Path, photos: Path, tmp_path: Path, invoke) -> None:
    """Minutes of work are not thrown away for labels, which the curve does not need."""
    names = [f"{'deeper/' if i % 2 else ''}{i:02d}.png" for i in range(48)]
    said = fusedx.load(model_copy).classify([photos / name for name in names])
    given = [p.index if labels == "the model's" else int(np.argmin(p.scores)) for p in said]
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *zip(names, given, strict=True)])
    before, out = digests(model_copy), tmp_path / "curve"
    line = ("calibrate", model_copy, "--images", photos, "--labels", tmp_path / "labels.csv", "--solvers", "ddim", "--steps", 1)
    done = invoke(*line, "-o", out, "--store", "--json")
    words = "right about all of the 24" if labels == "the model's" else "no better than chance"
    assert done.exit_code == 2 and words in done.stderr and "stored" not in done.stderr and digests(model_copy) == before
    document = json.loads((out / "curve.json").read_text())
    assert len(document["rows"]) == 3 and document["temperature"] is None and words in document["no_temperature"]
    assert json.loads(done.stdout) == document and sorted(digests(out)) == ["curve.csv", "curve.json", "curve.png"]


def test_results_replace_results(small_model: Path, photos: Path, tmp_path: Path, invoke) -> None:
    out = tmp_path / "out"
    line = ("calibrate", small_model, "--images", photos, "--solvers", "ddim", "--steps", 1, "-o", out)
    assert invoke(*line).exit_code == 1
    first = digests(out)
    assert "choose another name or pass --overwrite" in invoke(*line).stderr
    (out / "curve.csv").write_text("old")
    assert invoke(*line, "--overwrite").exit_code == 1 and digests(out) == first
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_one_picture_with_two_labels_is_refused(small_model: Path, photos: Path, tmp_path: Path) -> None:
    for name in "ab":
        shutil.copy(photos / "00.png", tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("path,label\na.png,0\nb.png,1\n")
    model = fusedx.load(small_model)
    listed = pictures.find(tmp_path, tmp_path / "labels.csv", model.classes)
    with pytest.raises(fusedx.ConfigError, match="same pixels as another picture, and another label"):
        answers.collect(model, listed, [Sampling()], 16, lambda done: None)
