"""``fusedx classify``: exit statuses, rows, sources and outputs."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil

import pytest

from fusedx.engine.errors import INPUT_REASONS
from fusedx_process import PICTURE, PICTURES


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_all_good_is_0_and_csv_goes_to_standard_output(run, small_model):
    done = run("classify", small_model, PICTURE, "--topk", 2, "--draws", 3, "--seed", 2**64 - 1)
    (row,) = rows_of(done.stdout)
    assert done.returncode == 0 and "1 image: 1 ok" in done.stderr
    names = [name.removeprefix("p:") for name in row if name.startswith("p:")]
    p = {name: float(row[f"p:{name}"]) for name in names}
    assert sum(p.values()) == pytest.approx(1) and row["label"] == max(p, key=p.get) == names[int(row["index"])]
    assert row["top1"] == row["label"] and float(row["top1_p"]) == p[row["top1"]] >= float(row["top2_p"])
    assert all(row[f"score:{name}"] and row[f"prior:{name}"] for name in names)
    assert (row["draws"], row["seed"], row["status"], row["reason"]) == ("3", str(2**64 - 1), "ok", "")
    assert (row["draws_setting"], row["start"], row["undecided"]) == ("3", "published", "false")
    assert all(float(row[f"se:{name}"]) > 0 for name in names)
    assert len(row["model_sha256"]) == len(row["image_sha256"]) == 64 and json.loads(row["input_notes"])["format"] == "PNG"


def test_bad_images_are_rows_and_1(run, small_model, folder):
    done = run("classify", small_model, folder, folder / "nope.png", folder / "notes.txt")
    rows = rows_of(done.stdout)
    assert done.returncode == 1
    assert [(os.path.basename(r["source"]), r["status"], r["reason"]) for r in rows] == [
        ("a.png", "ok", ""), ("b.jpg", "ok", ""), ("torn.png", "failed", "corrupt"), ("void.png", "failed", "empty"),
        ("nope.png", "failed", "not_found"), ("notes.txt", "failed", "unknown_format"),
    ]  # fmt: skip
    assert all(
        r["reason"] in INPUT_REASONS and r["message"] and not r["label"] and r["model_sha256"] for r in rows if r["status"] == "failed"
    )
    assert "4 failed (corrupt 1, empty 1, not_found 1, unknown_format 1)" in done.stderr


def test_three_formats_have_equal_content(invoke, small_model, folder, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    from fusedx.results.csv import value_of

    for kind in ("csv", "jsonl", "parquet"):
        assert invoke("classify", small_model, folder, "--recursive", "-o", tmp_path / f"out.{kind}", "--topk", 1).exit_code == 1
    table = pq.read_table(tmp_path / "out.parquet")
    kinds = {"string": "text", "int64": "int", "uint64": "uint64", "double": "float", "bool": "bool"}
    by_parquet = table.to_pylist()
    by_jsonl = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    text = rows_of((tmp_path / "out.csv").read_bytes().decode())
    by_csv = [{name: value_of(cell, kinds[str(table.schema.field(name).type)]) for name, cell in row.items()} for row in text]
    assert by_csv == by_jsonl == by_parquet and len(by_csv) == 5
    assert list(by_csv[0]) == list(by_jsonl[0]) == table.column_names


def test_odd_names_do_not_break_tables(invoke, small_model, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    odd = tmp_path / "odd"
    odd.mkdir()
    names = [
        b'quote".png',
        b"comma,.png",
        b"new\nline.png",
        b"=1+1.png",
        b"\x1b[31mred.png",
        "größe 眼.png".encode(),
        b"[bold]x.png",
        b"bytes\xff.png",
    ]
    for name in names:
        shutil.copyfile(PICTURE, os.fsencode(odd) + b"/" + name)
    expected = [f"{odd}/{os.fsdecode(n)}".replace("\udcff", "\\xff") for n in sorted(names, key=os.fsdecode)]
    for kind in ("csv", "jsonl", "parquet"):
        done = invoke("classify", small_model, odd, "-o", tmp_path / f"out.{kind}")
        assert done.exit_code == 0, done.stderr
    assert [r["source"] for r in rows_of((tmp_path / "out.csv").read_bytes().decode())] == expected
    assert [json.loads(line)["source"] for line in (tmp_path / "out.jsonl").read_bytes().splitlines()] == expected
    assert pq.read_table(tmp_path / "out.parquet")["source"].to_pylist() == expected
    again = invoke("classify", small_model, odd, "-o", tmp_path / "out.csv", "--resume")
    assert again.exit_code == 0 and "0 images" in again.stderr


def test_manifests(invoke, small_model, folder):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (folder / "list.csv").write_text("grade,path\n0,a.png\n1,deeper/c.png\n,\n")
    pq.write_table(pa.table({"path": ["a.png", "deeper/c.png", None], "x": [1, 2, 3]}), folder / "list.parquet")
    for name in ("list.csv", "list.parquet"):
        done = invoke("classify", small_model, folder / name)
        found = [(r["source"], r["status"]) for r in rows_of(done.stdout)]
        assert found == [(str(folder / "a.png"), "ok"), (str(folder / "deeper/c.png"), "ok"), ("", "failed")]


@pytest.mark.parametrize("header", ["file,grade", ""])
def test_manifest_without_path_column_is_2(invoke, small_model, tmp_path, header):
    (tmp_path / "list.csv").write_text(header + "\na.png,1\n")
    done = invoke("classify", small_model, tmp_path / "list.csv")
    assert done.exit_code == 2 and "no column 'path'" in done.stderr and not done.stdout
    assert not header or "'file', 'grade'" in done.stderr


def test_nothing_found_is_2(invoke, small_model, tmp_path):
    for source in (tmp_path, f"{tmp_path}/*.png"):
        done = invoke("classify", small_model, source)
        assert done.exit_code == 2 and "nothing to classify" in done.stderr and not done.stdout
    (tmp_path / "list.csv").write_text("path\n")
    assert invoke("classify", small_model, tmp_path / "list.csv").exit_code == 2


def test_unwritable_outputs_are_2_before_the_model_is_loaded(invoke, tmp_path):
    (tmp_path / "there.csv").write_text("precious")
    (tmp_path / "folder.csv").mkdir()
    cases = {
        "missing/x.csv": "No such file",
        "there.csv": "exists",
        "folder.csv": "not a file",
        "x.txt": "must end in",
        "/proc/x.csv": "cannot",
    }
    for name, words in cases.items():
        done = invoke("classify", "no-such-model", PICTURE, "-o", tmp_path / name)
        assert done.exit_code == 2 and words in done.stderr and "no-such-model" not in done.stderr, (name, done.stderr)
    assert (tmp_path / "there.csv").read_text() == "precious"
    done = invoke("classify", "no-such-model", PICTURE, "-o", tmp_path / "there.csv", "--overwrite")
    assert done.exit_code == 2 and (tmp_path / "there.csv").read_text() == "precious", (
        "a model that cannot load must not cost the old table"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.csv", "there.csv"]


def test_an_input_is_never_the_output(run, small_model, tmp_path):
    (tmp_path / "list.csv").write_text(f"path\n{PICTURE}\n")
    done = run("classify", small_model, tmp_path / "list.csv", "-o", tmp_path / "list.csv", "--overwrite")
    assert done.returncode == 2 and "one of the inputs" in done.stderr and (tmp_path / "list.csv").read_text().startswith("path\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_2(small_model):
    import subprocess

    from fusedx_process import command, environment

    with open("/dev/full", "wb") as full:
        done = subprocess.run(command("classify", small_model, PICTURE), env=environment(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "No space left" in done.stderr and "Traceback" not in done.stderr


def test_unavailable_choices_are_2_and_listed(invoke, small_model):
    for option in ("--device", "--precision", "--backend", "--encoder"):
        done = invoke("classify", small_model, PICTURE, option, "nonsense")
        assert done.exit_code == 2 and done.stderr.startswith("error: ") and "nonsense" in done.stderr
    assert invoke("classify", small_model, PICTURE, "--topk", 99).exit_code == 2
    assert invoke("classify", small_model, PICTURE, "--resume").exit_code == 2


def test_parquet_without_pyarrow_says_what_to_install(run, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import sys\nsys.modules['pyarrow'] = None\n")
    path = os.pathsep.join([str(tmp_path / "site"), str(PICTURES.parents[2] / "python")])
    done = run("classify", "no-such-model", PICTURE, "-o", tmp_path / "x.parquet", env={"PYTHONPATH": path})
    assert done.returncode == 2 and "pip install 'fusedx[parquet]'" in done.stderr


def test_csv_is_rfc_4180(small_model):
    import subprocess

    from fusedx_process import command, environment

    done = subprocess.run(command("classify", small_model, PICTURE), env=environment(), capture_output=True, check=True)
    assert done.stdout.count(b"\r\n") == done.stdout.count(b"\n") == 2 and not done.stdout.startswith(b"\xef\xbb\xbf")


def test_batch_size_changes_nothing(invoke, small_model, tmp_path):
    outputs = []
    for n in (1, 3, 16):
        assert invoke("classify", small_model, PICTURES, "--batch-size", n, "--draws", 2, "-o", tmp_path / f"{n}.csv").exit_code == 0
        outputs.append((tmp_path / f"{n}.csv").read_bytes().decode())
    assert outputs[0] == outputs[1] == outputs[2] and len(rows_of(outputs[0])) == 8


def test_terminal_gets_a_table(small_model, folder):
    pty = pytest.importorskip("pty")
    import subprocess

    from fusedx_process import command, environment

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command("classify", small_model, folder), env=environment(COLUMNS="80", TERM="xterm"), stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # the other end is closed
            pass
        assert process.wait() == 1
    os.close(ours)
    text = shown.decode()
    assert "prior says" in text and "failed: corrupt" in text and "4 images: 2 ok" in text and "p:" not in text


def test_draws_by_image_and_how_many_are_undecided(invoke, small_model, folder, tmp_path, monkeypatch):
    """The column draws is the image's own number; a failed image has none; the summary says whose label depends on the noise."""
    monkeypatch.setattr("fusedx.engine.draws.settled", lambda scores, risk: scores[0, 0] * 1e6 % 2 < 1)
    done = invoke(
        "classify", small_model, folder, PICTURES, "--draws", "auto", "--max-draws", 16, "--start", "matched", "-o", tmp_path / "t.jsonl"
    )
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    good = [row for row in rows if row["status"] == "ok"]
    assert {row["draws"] for row in good} == {8, 16} and {row["undecided"] for row in good} == {True, False}
    assert all(row["draws"] == 16 for row in good if row["undecided"])
    assert all(row["draws"] is row["undecided"] is None for row in rows if row["status"] == "failed") and len(rows) > len(good)
    assert {(row["draws_setting"], row["start"]) for row in rows} == {("auto, at most 16", "matched")}
    assert f"{len(good)} ok, {sum(row['undecided'] for row in good)} of them undecided" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--draws", "0"], "0 is not in the range"), (["--draws", "some"], "nor 'auto'"), (["--draws", ""], "nor 'auto'"),
        (["--max-draws", 64], "max_draws goes with draws='auto' alone"), (["--draws", "auto", "--max-draws", 7], "range"),
        (["--start", "middle"], "'published', 'matched', 'mean'"),
    ],
)  # fmt: skip
def test_impossible_draws_are_refused(invoke, small_model, options, words):
    done = invoke("classify", small_model, PICTURE, *options)
    assert done.exit_code == 2 and words in done.stderr.replace("\n", " ") and not done.stdout


def test_what_a_person_sees_of_draws():
    """Columns line up under their titles whatever was asked for; one draw shows none of it."""
    import dataclasses

    from rich.console import Console

    from fusedx.cli.terminal import TerminalWriter
    from fusedx.results import Run

    run = Run(("No", "Yes"), "1", 0, "published", "0" * 64, "0", "cpu", "python", "openvino", "fp32", "fp32", "ignore", 0)
    row = {
        "status": "ok", "source": "a.png", "label": "Yes", "p:Yes": 0.6, "p:No": 0.4, "prior:Yes": 0.3, "prior:No": 0.7,
        "se:Yes": 0.0123, "se:No": 0.01, "stability": 0.75, "draws": 64, "undecided": True,
        "top1": "Yes", "top1_p": 0.6, "top2": "No", "top2_p": 0.4,
    }  # fmt: skip
    for setting, topk, shown in (("1", 0, ()), ("8", 0, ("75%", "0.012")), ("auto, at most 64", 2, ("75%", "0.012", "64", "undecided"))):
        console = Console(record=True, width=120, file=io.StringIO())
        writer = TerminalWriter(console, dataclasses.replace(run, draws_setting=setting, topk=topk))
        writer.write(row | ({"se:Yes": None, "draws": 1, "undecided": False} if setting == "1" else {}))
        title, line = console.export_text().splitlines()
        assert [word for word in ("75%", "0.012", "64", "undecided") if word in line.split()] == list(shown)
        for column, value in (("stable", "75%"), ("\u00b1score", "0.012"), ("draws", "64")):
            if value in shown:
                assert title.index(column) + len(column) == line.index(value) + len(value)
        assert len(line) <= 120 and (topk == 0 or line.endswith("No 0.400"))
