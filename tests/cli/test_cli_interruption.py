"""Ctrl-C, SIGTERM, a killed process, a reader that goes away: what was written stays valid, and --resume goes on."""

from __future__ import annotations

import csv
import fcntl
import json
import signal
import time

import pytest
from click.testing import CliRunner

from fusedx.cli import commands
from fusedx_process import PICTURE, many, start


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < end, "it did not get that far"
        time.sleep(0.005)


def sources(path) -> list[str]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [row["source"] for row in csv.DictReader(file, strict=True)]
    return [json.loads(line)["source"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_interrupted_rows_stay_valid_and_resume_completes(run, small_model, tmp_path, kind, number):
    manifest, out = many(tmp_path / "list.csv", 5000), tmp_path / f"out.{kind}"
    process = start("classify", small_model, manifest, "-o", out, "--batch-size", 2)
    wait_for(lambda: out.exists() and out.read_bytes().count(b"\n") > 4, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and b"Traceback" not in errors, errors
    assert b"interrupted: " in errors and b"--resume continues" in errors
    raw = out.read_bytes()
    assert raw.endswith(b"\n")
    done = len(sources(out))
    assert 4 <= done < 5000 and f"{done} images done".encode() in errors

    many(manifest, done + 3)
    assert run("classify", small_model, manifest, "-o", out, "--resume").returncode == 0
    assert out.read_bytes().startswith(raw) and len(sources(out)) == done + 3


def test_interrupted_parquet_has_its_footer(small_model, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out.parquet"
    process = start("classify", small_model, many(tmp_path / "list.csv", 5000), "-o", out, "--batch-size", 1)
    wait_for(lambda: list(tmp_path.glob(".out.parquet.*.part")), process)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and b"--resume" not in errors
    assert f"{pq.read_metadata(out).num_rows} rows in".encode() in errors
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_resume_cuts_a_torn_line_and_gives_the_uninterrupted_table(invoke, small_model, folder, tmp_path, kind):
    out = tmp_path / f"out.{kind}"
    assert invoke("classify", small_model, folder, "-o", out).exit_code == 1
    whole = out.read_bytes()
    for kept in (0, 5, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)):
        out.write_bytes(whole[:kept])
        done = invoke("classify", small_model, folder, "-o", out, "--resume")
        assert done.exit_code == 1, "failed rows count, also those that were there already"
        assert out.read_bytes() == whole, kept


def test_resume_of_a_table_that_does_not_exist_starts_it(invoke, small_model, tmp_path):
    assert invoke("classify", small_model, PICTURE, "-o", tmp_path / "new.csv", "--resume").exit_code == 0
    assert len(sources(tmp_path / "new.csv")) == 1


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_resume_refuses_what_is_not_the_same_run(invoke, small_model, tmp_path, kind):
    out = tmp_path / f"out.{kind}"
    invoke("classify", small_model, PICTURE, "-o", out)
    before = out.read_bytes()
    for change, words in (
        (["--seed", 7], "seed"),
        (["--draws", 2], "draws_setting"),
        (["--draws", "auto"], "this run has auto, at most 64"),
        (["--start", "mean"], "start"),
        (["--topk", 1], "columns"),
        (["--backend", "python"], "backend"),
    ):
        done = invoke("classify", small_model, PICTURE, "-o", out, "--resume", *change)
        assert done.exit_code == 2 and words in done.stderr and "left alone" in done.stderr
    other = before.replace(json.loads((small_model / "manifest.json").read_text())["classes"][0].encode(), b"another class")
    digest_changed = before.replace(b"fp32", b"fp16")
    for content in (other, digest_changed, b"precious, but no table", b"a,b\r\n1,2\r\n", b"{}\n"):
        out.write_bytes(content)
        assert invoke("classify", small_model, PICTURE, "-o", out, "--resume").exit_code == 2
        assert out.read_bytes() == content


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_resume_goes_by_the_setting_and_not_by_what_an_image_got(invoke, small_model, tmp_path, kind):
    """With --draws auto every row has its own number of draws; a smaller cap is another setting."""
    out, auto = tmp_path / f"out.{kind}", ["--draws", "auto", "--max-draws", 8]
    assert invoke("classify", small_model, PICTURE, "-o", out, *auto).exit_code == 0
    before = out.read_bytes()
    assert invoke("classify", small_model, PICTURE, PICTURE, "-o", out, "--resume", *auto).exit_code == 0
    assert out.read_bytes().startswith(before) and len(out.read_bytes()) > len(before)
    for other in (["--draws", "auto"], ["--draws", 8]):
        done = invoke("classify", small_model, PICTURE, "-o", out, "--resume", *other)
        assert done.exit_code == 2 and "computed with draws_setting auto, at most 8, this run has" in done.stderr


def test_resume_and_parquet_do_not_go_together(invoke, small_model, tmp_path):
    done = invoke("classify", small_model, PICTURE, "-o", tmp_path / "x.parquet", "--resume")
    assert done.exit_code == 2 and "cannot be continued" in done.stderr


def test_broken_pipe_ends_quietly(small_model, tmp_path):
    process = start("classify", small_model, many(tmp_path / "list.csv", 5000), "--batch-size", 1)
    assert process.stdout.readline().startswith(b"source,")
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141 and errors == b""


@pytest.mark.parametrize("how", ["--resume", "--overwrite"])
def test_a_second_run_into_the_same_table_is_refused(how, small_model, tmp_path):
    """Both would write at their own offsets and destroy each other's rows."""
    table = tmp_path / "t.csv"
    arguments = ["classify", str(small_model), str(PICTURE), "-o", str(table)]
    assert CliRunner().invoke(commands, arguments).exit_code == 0
    before = table.read_bytes()
    with table.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = CliRunner().invoke(commands, [*arguments, how])
    assert done.exit_code == 2 and "another run" in done.stderr and table.read_bytes() == before
    assert CliRunner().invoke(commands, [*arguments, how]).exit_code == 0
