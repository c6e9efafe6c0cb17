"""info, doctor, explain, verify and demo."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from fusedx.cli import commands
from fusedx_process import PICTURE, ROOT


def test_info(invoke, small_model, tmp_path):
    document = json.loads(invoke("info", small_model, "--json").stdout)
    assert document["format"] == "fusedx-compiled-model" and document["path"] == str(small_model) and len(document["digest"]) == 64
    text = invoke("info", small_model).stdout
    assert document["digest"] in text and all(name in text for name in document["classes"])
    shutil.copytree(small_model, tmp_path / "m.fusedx")
    with (tmp_path / "m.fusedx" / "denoiser.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xaa")
    done = invoke("info", tmp_path / "m.fusedx")
    assert done.exit_code == 2 and "was changed" in done.stderr
    assert invoke("info", tmp_path / "none.fusedx").exit_code == 2


def test_doctor(run):
    found = json.loads(run("doctor", "--json").stdout)
    assert found["ready"]["classify"] is None
    gpu = found["gpu"]
    assert gpu["usable"] == bool(gpu["devices"]) == (gpu["reason"] is None)
    assert gpu["triton"] and gpu["torch"] and gpu["cache"]
    assert set(found["encoders"]) == {"openvino", "onnxruntime", "torch", "reference"} and set(found["backends"]) == {"native", "python"}
    assert not any(isinstance(section, dict) and set(section) == {"error"} for section in found.values())
    if found["native"]["loadable"]:
        assert found["native"]["precisions"] == ["fp32", "bf16", "fp16", "int8", "int4"]
    text = run("doctor")
    assert text.returncode == 0 and "ready to use a GPU" in text.stdout and "native module" in text.stdout


@pytest.mark.parametrize(
    "missing, task", [("yaml", "compile"), ("nncf", "compile an encoder in int8"), ("onnxruntime", "compile an encoder in int8")]
)
def test_doctor_names_what_a_task_lacks_as_compiling_does(missing, task, monkeypatch, tmp_path):
    """Whatever compiling refuses to begin without, the doctor knows, and nothing else."""
    import fusedx
    from fusedx.cli import diagnosis, packages
    from fusedx.compiler import compile as compiling

    package = "pyyaml" if missing == "yaml" else missing
    version, find = packages._version, compiling.find_spec
    monkeypatch.setattr(packages, "_version", lambda name: None if name == package else "1")
    monkeypatch.setattr(packages, "problem_of", lambda module: None)
    monkeypatch.setattr(compiling, "find_spec", lambda name: None if name == missing else find("json"))
    found = {"packages": packages.packages(), "encoders": {"openvino": None}, "gpu": {"reason": "none"}}
    assert package in diagnosis.ready(found)[task]
    with pytest.raises(fusedx.UnavailableError, match=package):
        compiling.compile_checkpoint("/nowhere", tmp_path / "m", encoder_precision="int8", calibration="/nowhere")
    monkeypatch.setattr(packages, "_version", lambda name: None if name == "safetensors" else "1")
    found["packages"] = packages.packages()
    assert version("numpy") and diagnosis.ready(found)[task] is None


def test_doctor_says_whether_the_c_library_is_there_and_loads(monkeypatch, tmp_path):
    import fusedx
    from fusedx.cli import diagnosis, doctor

    monkeypatch.setattr(fusedx, "__file__", str(tmp_path / "__init__.py"))
    assert "this installation has none" in doctor._library({"library": diagnosis.library()})
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libfusedx.so.0").write_bytes(b"\x7fELF, but not one")
    found = diagnosis.library()
    assert found["version"] is None and "does not load" in found["reason"] and found["path"].endswith("libfusedx.so.0")
    assert "does not load" in doctor._library({"library": found})


def test_doctor_does_not_import_torch():
    import subprocess
    import sys

    from fusedx_process import environment

    code = "import sys; from fusedx.cli.diagnosis import diagnose; diagnose(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True).stdout == "False\n"


def test_doctor_reports_broken_packages(run, tmp_path):
    for name in ("openvino", "pyarrow", "pydicom"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('libbroken.so.7: cannot open shared object file')")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "python")])
    done = run("doctor", "--json", env={"PYTHONPATH": path})
    found = json.loads(done.stdout)
    assert done.returncode == 0 and "libbroken.so.7" in found["encoders"]["openvino"] and "libbroken.so.7" in found["ready"]["classify"]
    assert "libbroken.so.7" in found["dicom"]["error"]
    text = run("doctor", env={"PYTHONPATH": path})
    assert text.returncode == 0 and "not usable: it is installed and does not import: ImportError: libbroken" in text.stdout
    done = run("doctor", "--json", env={"PYTHONPATH": path + os.pathsep + str(tmp_path), "FUSEDX_THREADS": "1"})
    assert json.loads(done.stdout)["threads"]["FUSEDX_THREADS"] == "1"


def test_doctor_survives_anything(monkeypatch):
    from fusedx.cli import diagnosis

    def fail(*arguments):
        raise RuntimeError("out of order")

    for name in ("cpu", "native", "library", "encoders", "backends", "packages", "dicom", "threads", "huge_pages"):
        monkeypatch.setattr(diagnosis, name, fail)
    for arguments in (["doctor"], ["doctor", "--json"]):
        done = CliRunner().invoke(commands, arguments)
        assert done.exit_code == 0 and "out of order" in done.output


def test_explain(invoke, small_model, tmp_path):
    pytest.importorskip("fusedx.explain")
    from PIL import Image

    out = tmp_path / "why.png"
    done = invoke("explain", small_model, PICTURE, "-o", out, "--draws", 2)
    assert done.exit_code == 0, done.stderr
    with Image.open(out) as picture:
        assert picture.format == "PNG"
    before = out.read_bytes()
    done = invoke("explain", small_model, PICTURE, "-o", out)
    assert done.exit_code == 2 and "exists" in done.stderr
    done = invoke("explain", small_model, tmp_path / "nope.png", "-o", out, "--overwrite")
    assert done.exit_code == 2 and "no such file" in done.stderr and out.read_bytes() == before
    assert invoke("explain", "no-model", PICTURE, "-o", tmp_path / "x.jpg").exit_code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["why.png"]


def test_verify(monkeypatch):
    from fusedx import verify

    report = verify.Report([verify.Row("prior", 2e-7, 1e-5), verify.Row("y_final", 3e-6, 1e-5)], (2, 2), "a reference")
    shown = {}

    def fake(path, golden, checkpoint, *, device, precision, encoder, backend, sampler, progress):
        progress("working")
        return shown["report"]

    monkeypatch.setattr(verify, "verify", fake)
    bad = replace(report, rows=[*report.rows, verify.Row("eps_t0", float("nan"), 1e-5)])
    for case, status, words in (
        (report, 0, "within tolerance"),
        (bad, 1, "OUT OF TOLERANCE"),
        (replace(report, label_agreement=(1, 2)), 1, "1 of 2"),
    ):
        shown["report"] = case
        done = CliRunner().invoke(commands, ["verify", "m"])
        assert done.exit_code == status and words in done.output and "a reference" in done.output
        done = CliRunner().invoke(commands, ["verify", "m", "--json"])
        assert done.exit_code == status and json.loads(done.stdout)["ok"] is (status == 0)


def test_verify_really(run, small_model):
    done = run("verify", small_model, "--json")
    assert done.returncode == 0, done.stdout
    assert {"prior", "y_final"} <= {row["stage"] for row in json.loads(done.stdout)["rows"]}


def test_verify_that_cannot_run_is_2(invoke, small_model, tmp_path):
    assert invoke("verify", tmp_path / "none.fusedx").exit_code == 2
    done = invoke("verify", small_model, "--golden", tmp_path / "none.json")
    assert done.exit_code == 2 and done.stderr.splitlines()[-1].startswith("error: ")


def test_demo_without_its_model_is_2(monkeypatch, tmp_path):
    from fusedx import demo

    monkeypatch.setattr(demo, "MODEL", tmp_path / "model.fusedx")
    done = CliRunner().invoke(commands, ["demo", "-o", str(tmp_path / "out")])
    assert done.exit_code == 2 and "missing from this installation" in done.output and not (tmp_path / "out").exists()


def test_demo(small_model, monkeypatch, tmp_path):
    pytest.importorskip("fusedx.explain")
    from fusedx import demo

    monkeypatch.setattr(demo, "MODEL", small_model)
    (tmp_path / "file").touch()
    assert CliRunner().invoke(commands, ["demo", "-o", str(tmp_path / "file")]).exit_code == 2
    for photograph in (demo.retina(), None):
        monkeypatch.setattr(demo, "retina", lambda photograph=photograph: photograph)
        done = CliRunner().invoke(commands, ["demo", "-o", str(tmp_path / "out"), "--draws", "2"])
        assert done.exit_code == 0, done.output
        assert "Demonstration only. Trained on drawings, not on patients. Not for clinical use." in done.output
        assert {p.name for p in demo.pictures()} <= set(done.output.split())
        assert photograph is not None or "fusedx[demo]" in done.output
    assert len(list((tmp_path / "out").glob("*.png"))) >= len(demo.pictures())


def test_demo_adds_up_seconds_alone():
    """A prediction's timing also counts sweeps and rows."""
    from fusedx import demo

    timing = {"read": 0.001, "preprocess": 0.002, "encoder": 0.03, "chain": 0.004, "sweeps": 250, "rows": 2000, "sequential_steps": 2000}
    p = SimpleNamespace(
        classes=("a", "b"), prior=np.array([0.2, 0.8]), timing=timing, label="a", index=0, probabilities=[0.7, 0.3], stability=1.0
    )  # fmt: skip
    assert demo._row(Path("x.jpg"), p).split() == ["x.jpg", "a", "0.700", "b", "100%", "37"]
