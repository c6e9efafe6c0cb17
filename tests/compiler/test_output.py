"""Where the compiled model goes: whole or not at all, and nothing that belongs to someone else is touched."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import fusedx
import tiny
from fusedx.compiler import compile as compiling
from fusedx.compiler import compile_checkpoint, output_folder
from fusedx.engine import compiled
from fusedx.engine.encoder import onnx_file
from fusedx.engine.errors import FusedxError, ModelFormatError


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return tiny.write_v2(tmp_path_factory.mktemp("source") / "last.ckpt")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


def steps_of(path: Path) -> int:
    return compiled.open_model(path).manifest.schedule.steps


def test_existing_output_is_refused_before_any_work(source, tmp_path):
    target = tmp_path / "m.fusedx"
    changes = (
        lambda: target.mkdir(),
        lambda: (target.rmdir(), target.write_text("mine")),
        lambda: (target.unlink(), target.symlink_to("nowhere")),
    )
    for change in changes:
        change()
        before = contents(tmp_path)
        with pytest.raises(ModelFormatError, match="exists; choose another name or pass --overwrite"):
            compile_checkpoint("/nowhere", target)
        assert contents(tmp_path) == before


def test_overwrite_replaces_a_compiled_model(source, tmp_path):
    target = compile_checkpoint(source, tmp_path / "m.fusedx", steps=3).path
    compile_checkpoint(source, target, steps=7, overwrite=True)
    assert steps_of(target) == 7 and os.listdir(tmp_path) == ["m.fusedx"]
    (target / compiled.DENOISER).unlink()  # a damaged or newer model may be replaced too
    manifest = target / compiled.MANIFEST
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 99'))
    compile_checkpoint(source, target, steps=4, overwrite=True)
    assert steps_of(target) == 4 and os.listdir(tmp_path) == ["m.fusedx"]


def test_overwrite_where_nothing_is_or_an_empty_folder(source, tmp_path):
    compile_checkpoint(source, tmp_path / "a.fusedx", overwrite=True)
    (tmp_path / "b.fusedx").mkdir()
    compile_checkpoint(source, tmp_path / "b.fusedx", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["a.fusedx", "b.fusedx"]


@pytest.mark.parametrize("kind", ["web app", "model and notes", "model and folder", "file", "link to model", "foreign manifest folder"])
def test_overwrite_never_replaces_anything_else(kind, source, tmp_path):
    target = tmp_path / "m.fusedx"
    if kind == "file":
        target.write_text("a thesis")
    elif kind == "web app":
        target.mkdir()
        (target / "manifest.json").write_text('{"name": "my app"}')
        (target / "index.html").write_text("years of work")
    elif kind == "foreign manifest folder":
        target.mkdir()
        (target / "manifest.json").write_text('{"name": "my app"}')
    elif kind == "link to model":
        target.symlink_to(compile_checkpoint(source, tmp_path / "real.fusedx").path)
    else:
        compile_checkpoint(source, target)
        if kind == "model and notes":
            (target / "notes.txt").write_text("validated by hand")
        else:
            (target / "results").mkdir()
    before = contents(tmp_path)
    with pytest.raises(ModelFormatError, match="not a compiled model"):
        compile_checkpoint(source, target, overwrite=True)
    assert contents(tmp_path) == before


def test_target_that_changes_while_compiling(source, tmp_path):
    """What was checked at the start may have become someone's folder at the end."""
    target = tmp_path / "m.fusedx"

    def someone_writes(stage: str) -> None:
        if stage == "hashing":
            target.mkdir(exist_ok=True)
            (target / "thesis.txt").write_text("new")

    for overwrite in (False, True):
        with pytest.raises(ModelFormatError):
            compile_checkpoint(source, target, overwrite=overwrite, progress=someone_writes)
        assert contents(tmp_path) == {"m.fusedx": b"", "m.fusedx/thesis.txt": b"new"}
        (target / "thesis.txt").unlink()
        target.rmdir()


@pytest.mark.parametrize("where", ["file/m.fusedx", "file/deep/er/m.fusedx", "x" * 300, "y" * 5000, "a\0b", "z/" * 3000 + "m"])
def test_impossible_places(where, source, tmp_path):
    (tmp_path / "file").write_text("a file")
    before = contents(tmp_path)
    with pytest.raises(ModelFormatError):
        compile_checkpoint("/nowhere", f"{tmp_path}/{where}")  # before any work: the source does not exist
    assert contents(tmp_path) == before


def test_names_that_leave_no_room_for_a_temporary_name(source, tmp_path):
    for name in ("n" * 255, "\u00e9" * 127):
        compile_checkpoint(source, tmp_path / name)
        assert steps_of(tmp_path / name) == 10
    assert len(os.listdir(tmp_path)) == 2


def test_parents_are_made_and_odd_spellings_work(source, tmp_path, monkeypatch):
    compile_checkpoint(source, tmp_path / "a" / "b" / "m.fusedx")
    assert steps_of(tmp_path / "a" / "b" / "m.fusedx") == 10
    monkeypatch.chdir(tmp_path)
    compile_checkpoint(source, "plain.fusedx/")
    assert steps_of(tmp_path / "plain.fusedx") == 10
    for name in ("", ".", "a/..", "/"):
        with pytest.raises(ModelFormatError, match="exists"):
            compile_checkpoint(source, name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_unwritable_parent(source, tmp_path):
    parent = tmp_path / "parent"
    parent.mkdir(mode=0o500)
    with pytest.raises(ModelFormatError, match="not a folder that can be written to"):
        compile_checkpoint(source, parent / "m.fusedx")


def test_unwritable_parent_as_the_system_says_it(source, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ModelFormatError, match="not a folder that can be written to"):
        compile_checkpoint("/nowhere", tmp_path / "m.fusedx")
    monkeypatch.undo()

    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(compiling, "folder_beside", denied)
    with pytest.raises(ModelFormatError, match="cannot be written: Permission denied"):
        compile_checkpoint(source, tmp_path / "m.fusedx")
    assert not os.listdir(tmp_path)


STAGES = ["reading the checkpoint", "building the encoder graph", "folding the denoiser", "writing encoder.onnx", "hashing"]
STAGES += ["recording the self test"]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("overwrite", [False, True])
def test_interrupted_at_any_stage(kind, overwrite, source, tmp_path):
    target = tmp_path / "m.fusedx"
    if overwrite:
        compile_checkpoint(source, target, steps=3)
    before = contents(tmp_path)
    for stage in STAGES:
        def stop(now: str, stage: str = stage) -> None:
            if now == stage:
                raise kind

        with pytest.raises(kind):
            compile_checkpoint(source, target, overwrite=overwrite, progress=stop)
        assert contents(tmp_path) == before


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_interrupted_while_replacing(exchange, kind, source, tmp_path, monkeypatch):
    """The last moment: whatever happens, one whole model is under the name."""
    target = compile_checkpoint(source, tmp_path / "m.fusedx", steps=3).path
    if not exchange:  # a file system without RENAME_EXCHANGE
        monkeypatch.setattr(output_folder, "_exchange", lambda a, b: False)
    compile_checkpoint(source, target, steps=5, overwrite=True)
    assert steps_of(target) == 5 and os.listdir(tmp_path) == ["m.fusedx"]

    rename = Path.rename

    def fail(self: Path, other: Path) -> Path:
        if other == target and not self.name.endswith(".old"):
            raise kind(errno.EIO, "Input/output error")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", fail)
    monkeypatch.setattr(output_folder, "_exchange", lambda a, b: False)
    with pytest.raises((ModelFormatError, KeyboardInterrupt)):
        compile_checkpoint(source, target, steps=6, overwrite=True)
    assert steps_of(target) == 5 and os.listdir(tmp_path) == ["m.fusedx"]


def test_every_failing_write_is_reported_and_leaves_nothing(source, tmp_path, monkeypatch):
    """A disk that is full at the n-th write, whichever that is."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fails(*args, **kwargs):
        raise full

    places = [
        (onnx_file, "write"),
        (compiling.safetensors, "write"),
        (Path, "write_text"),
        (Path, "rename"),
        (compiled, "file_entry"),
        (compiling, "folder_beside"),
    ]
    for owner, name in places:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fails)
            with pytest.raises(FusedxError, match="No space left on device"):
                compile_checkpoint(source, tmp_path / "m.fusedx")
        assert not os.listdir(tmp_path), name


@pytest.mark.parametrize("limit", [0, 1000, 3000, 10_000, 100_000, 1_000_000])
def test_disk_that_really_refuses(limit, source, tmp_path, monkeypatch):
    """The system itself stops the writing, inside whatever library writes."""
    compile_checkpoint(source, tmp_path / "whole.fusedx")
    assert max(p.stat().st_size for p in (tmp_path / "whole.fusedx").iterdir()) > limit
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(ModelFormatError, match="cannot be written"):
            compile_checkpoint(source, tmp_path / "m.fusedx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [n for n in os.listdir(tmp_path) if "m.fusedx" in n] == []


def test_killed_in_the_middle(source, tmp_path):
    """SIGKILL leaves at most a hidden temporary folder, and the next attempt succeeds."""
    code = (
        "import os, signal, sys\n"
        "from fusedx.compiler import compile_checkpoint\n"
        "stop = lambda stage: stage == 'hashing' and os.kill(os.getpid(), signal.SIGKILL)\n"
        "compile_checkpoint(sys.argv[1], sys.argv[2], progress=stop)\n"
    )
    target = tmp_path / "m.fusedx"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code, str(source), str(target)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL and not target.exists()
    assert all(name.startswith(".") for name in os.listdir(tmp_path))
    assert steps_of(compile_checkpoint(source, target).path) == 10


def test_two_compilations_give_the_same_bytes(source, tmp_path, monkeypatch):
    monkeypatch.undo()  # the recorded answer is one of the bytes
    v1 = tiny.write_v1(tmp_path / "v1")
    for i, checkpoint in enumerate((source, v1)):
        first = compile_checkpoint(checkpoint, tmp_path / f"a{i}.fusedx").path
        second = compile_checkpoint(checkpoint, tmp_path / f"b{i}.fusedx").path
        assert contents(first) == contents(second)
    code = "import sys; from fusedx.compiler import compile_checkpoint; compile_checkpoint(sys.argv[1], sys.argv[2])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONHASHSEED": "77"}
    subprocess.run([sys.executable, "-c", code, str(v1), str(tmp_path / "c1.fusedx")], env=environment, check=True)
    assert contents(tmp_path / "c1.fusedx") == contents(tmp_path / "a1.fusedx")


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(mask, source, tmp_path):
    before = os.umask(mask)
    try:
        target = compile_checkpoint(source, tmp_path / "m.fusedx").path
        assert os.umask(mask) == mask  # left as it was
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o777 & ~mask
    for path in target.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_model_may_be_moved_renamed_and_read_only(source, tmp_path):
    target = compile_checkpoint(source, tmp_path / "m.fusedx").path
    moved = target.rename(tmp_path / "other name")
    for path in moved.iterdir():
        path.chmod(0o444)
    assert fusedx.load(moved, encoder="reference", backend="python").manifest.family == "diffmic-v2"


def test_report_and_progress(source, tmp_path):
    stages: list[str] = []
    report = compile_checkpoint(str(source), str(tmp_path / "m.fusedx"), progress=stages.append)
    assert report.path == tmp_path / "m.fusedx"
    assert stages == [*STAGES[:4], "writing denoiser.safetensors", "hashing", "recording the self test"]
    assert compiled.open_model(report.path).manifest == report.manifest


def test_the_sampler_of_requests_that_name_none(source, tmp_path):
    path = compile_checkpoint(source, tmp_path / "m.fusedx", sampler="sequential").path
    assert fusedx.load(path).sampling().sampler == fusedx.Sampler("sequential")
    assert fusedx.load(path, sampler="parallel").sampling().sampler.kind == "parallel"
    with pytest.raises(fusedx.ConfigError, match="sampler must be one of"):
        compile_checkpoint("/nowhere", tmp_path / "n.fusedx", sampler="fast")  # before any work: the source does not exist
