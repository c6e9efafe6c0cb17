"""``fusedx compile``: what it says when it works, when it cannot, and when it is interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest
from click.testing import CliRunner

from fusedx.cli import commands
from fusedx_process import start


def test_compile_and_info(run, small_checkpoint, tmp_path):
    out = tmp_path / "m.fusedx"
    done = run("compile", small_checkpoint, "-o", out, "--steps", 7)
    assert done.returncode == 0 and "compile: reading the checkpoint\n" in done.stderr
    assert all(word in done.stdout for word in ("diffmic-v1", "Proliferative DR", "aptos", "7 of 1000", "--steps", "MB", "ignored"))
    digest = done.stdout.split("digest")[1].strip()
    assert digest in run("info", out).stdout
    done = run("compile", small_checkpoint, "-o", out)
    assert done.returncode == 2 and done.stderr.endswith("exists; choose another name or pass --overwrite\n")
    assert digest in run("info", out, "--json").stdout


def test_missing_tensors_are_listed_by_name(run, small_checkpoint, tmp_path):
    torch = pytest.importorskip("torch")
    broken = tmp_path / "broken"
    shutil.copytree(small_checkpoint, broken)
    saved = torch.load(broken / "ckpt_best.pth", weights_only=False)
    del saved[0]["lin4.weight"], saved[0]["unetnorm1.running_mean"]
    torch.save(saved, broken / "ckpt_best.pth")
    done = run("compile", broken, "-o", tmp_path / "m.fusedx")
    assert done.returncode == 2 and "lin4.weight" in done.stderr and "unetnorm1.running_mean" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["broken"]


def test_bad_arguments_are_2(invoke, small_checkpoint, tmp_path):
    for arguments, words in (
        ([tmp_path / "nowhere"], "does not exist"),
        ([small_checkpoint, "--classes", "isic2018"], "7 names"),
        ([small_checkpoint, "--family", "diffmic-v9"], "known: "),
        ([small_checkpoint, "--precision", "fp64"], "fp32"),
        ([small_checkpoint, "--steps", "100000"], "steps"),
    ):
        done = invoke("compile", *arguments, "-o", tmp_path / "m.fusedx")
        assert done.exit_code == 2 and words in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


def test_interrupted_compile_leaves_nothing(small_checkpoint, tmp_path):
    process = start("compile", small_checkpoint, "-o", tmp_path / "m.fusedx")
    end = time.monotonic() + 60
    while not os.listdir(tmp_path) and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and b"interrupted" in errors and b"Traceback" not in errors, errors
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("error, status", [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device", "x"), 2)])
def test_failed_compile_leaves_nothing(small_checkpoint, tmp_path, monkeypatch, error, status):
    from fusedx.engine.encoder import onnx_file

    def fail(*arguments):
        raise error

    monkeypatch.setattr(onnx_file, "write", fail)
    done = CliRunner().invoke(commands, ["compile", str(small_checkpoint), "-o", str(tmp_path / "m.fusedx")])
    assert done.exit_code == status and not os.listdir(tmp_path)


def test_bugs_show_their_traceback_and_do_not_look_like_failed_images(small_checkpoint, tmp_path, monkeypatch):
    from fusedx.engine.encoder import onnx_file

    monkeypatch.setattr(onnx_file, "write", lambda *a: 1 / 0)
    done = CliRunner().invoke(commands, ["compile", str(small_checkpoint), "-o", str(tmp_path / "m.fusedx")])
    assert done.exit_code == 2 and "ZeroDivisionError" in done.stderr and not os.listdir(tmp_path)
