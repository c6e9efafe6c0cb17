"""Compiled kernels: what is found, what is made again, and what is said."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from fusedx.engine.cuda import binaries
from fusedx.engine.errors import UnavailableError
from fusedx.kernels.target import TARGETS

#: Writes what it was asked for into its last argument, the binary, and counts its runs.
NVCC = """#!/bin/bash
echo run >> "$0.runs"
if [ -f "$0.fail" ]; then echo "x.cu(3): warning: nothing" >&2; echo "x.cu(7): error: no such thing" >&2; exit 1; fi
for last; do :; done
echo "${@%$last}" > "$last"
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel's folder, an empty cache and a compiler that is a shell script."""
    folder = tmp_path / "kernel"
    folder.mkdir()
    (folder / "x.cu").write_text("kernel")
    (folder / "part.cuh").write_text("part")
    (folder / "params.cuh").write_text("params")
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(NVCC)
    nvcc.chmod(0o755)
    monkeypatch.setenv("FUSEDX_NVCC", str(nvcc))
    monkeypatch.setenv("FUSEDX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(binaries, "SHIPPED", tmp_path / "shipped")
    return folder / "x.cu"


def runs(source: Path) -> int:
    log = source.parents[1] / "nvcc.runs"
    return len(log.read_text().splitlines()) if log.is_file() else 0


def kept(source: Path) -> Path:
    (file,) = (source.parents[1] / "cache" / "kernels").iterdir()
    return file


def test_a_binary_is_compiled_once(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fusedx"):
        first = binaries.load(source, TARGETS[90])
        second = binaries.load(source, TARGETS[90])
    assert first == second and runs(source) == 1
    assert b"compute_90a,code=sm_90a" in first
    assert ["miss" in m for m in caplog.messages] == [True, False] and "hit, kept binary x-sm_90a-" in caplog.messages[1]


def test_targets_have_binaries_of_their_own(source: Path) -> None:
    names = {binaries.file_name(source, target) for target in TARGETS.values()}
    assert len(names) == len(TARGETS) == 7


@pytest.mark.parametrize("file", ["x.cu", "part.cuh", "params.cuh"])
def test_any_changed_source_is_another_binary(source: Path, file: str) -> None:
    before = binaries.file_name(source, TARGETS[80])
    with (source.parent / file).open("a") as text:
        text.write(" ")
    assert binaries.file_name(source, TARGETS[80]) != before


def test_a_new_header_and_other_flags_are_another_binary(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {binaries.file_name(source, TARGETS[80])}
    (source.parent / "new.cuh").write_text("")
    names.add(binaries.file_name(source, TARGETS[80]))
    monkeypatch.setattr(binaries, "FLAGS", (*binaries.FLAGS, "-G"))
    names.add(binaries.file_name(source, TARGETS[80]))
    (source.parent / "notes.md").write_text("decides nothing")
    names.add(binaries.file_name(source, TARGETS[80]))
    assert len(names) == 3


def test_every_file_that_the_kernels_include_is_in_their_digest() -> None:
    for source in binaries.KERNELS.glob("*/*.cu"):
        for file in (f for f in source.parent.iterdir() if f.suffix in binaries.SOURCES):
            for line in file.read_text().splitlines():
                if line.startswith('#include "') and "on_cpu" not in line:  # the tests' own, for the host compiler
                    included = source.parent / line.split('"')[1]
                    assert included.is_file() and included.suffix in binaries.SOURCES, f"{file.name}: {line}"


def test_a_shipped_binary_needs_neither_compiler_nor_cache(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "nvcc", lambda: None)
    monkeypatch.delenv("FUSEDX_NVCC")
    binaries.SHIPPED.mkdir()
    (binaries.SHIPPED / binaries.file_name(source, TARGETS[80])).write_bytes(b"shipped")
    assert binaries.load(source, TARGETS[80]) == b"shipped"


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_binary_is_made_again(source: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    good = binaries.load(source, TARGETS[80])
    data = bytearray(kept(source).read_bytes())
    data[3] ^= 1
    kept(source).write_bytes(bytes(data) if damage is None else damage)
    assert binaries.load(source, TARGETS[80]) == good and runs(source) == 2
    assert "is damaged and is made again" in caplog.text
    assert binaries.load(source, TARGETS[80]) == good and runs(source) == 2


def test_a_cache_that_cannot_be_written_costs_time_only(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    (source.parents[1] / "cache").write_text("a file where the folder should be")
    for _ in range(2):
        assert b"x.cu" in binaries.load(source, TARGETS[80])
    assert runs(source) == 2 and "is not kept" in caplog.text


def test_nothing_is_left_beside_a_kept_binary(source: Path) -> None:
    binaries.load(source, TARGETS[80])
    assert kept(source).suffix == ".cubin" and stat.S_ISREG(kept(source).stat().st_mode)


def test_without_a_compiler_the_error_says_what_to_do(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "nvcc", lambda: None)
    monkeypatch.delenv("FUSEDX_NVCC")
    with pytest.raises(UnavailableError, match=r"no x\.cu for sm_120 and nvcc is not installed: install the CUDA toolkit"):
        binaries.load(source, TARGETS[120])


def test_what_the_compiler_said(source: Path) -> None:
    (source.parents[1] / "nvcc.fail").touch()
    with pytest.raises(UnavailableError, match=r"nvcc cannot compile x\.cu for sm_86: x\.cu\(7\): error: no such thing"):
        binaries.load(source, TARGETS[86])


def test_where_the_compiler_is_looked_for(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Path(os.environ["FUSEDX_NVCC"])
    toolkit = source.parents[1] / "toolkit" / "bin"
    toolkit.mkdir(parents=True)
    (toolkit / "nvcc").write_text(NVCC)
    (toolkit / "nvcc").chmod(0o755)
    assert binaries.nvcc() == str(chosen)
    monkeypatch.delenv("FUSEDX_NVCC")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_HOME", str(toolkit.parent))
    assert binaries.nvcc() == str(toolkit / "nvcc")


def test_a_named_compiler_that_is_none_is_named(source, monkeypatch, tmp_path):
    for wrong in (tmp_path, tmp_path / "absent"):
        monkeypatch.setenv("FUSEDX_NVCC", str(wrong))
        with pytest.raises(UnavailableError, match="FUSEDX_NVCC=.* is not a program"):
            binaries.load(source, TARGETS[90])
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF but not really")
    program.chmod(0o755)
    monkeypatch.setenv("FUSEDX_NVCC", str(program))
    with pytest.raises(UnavailableError, match="nvcc cannot be run"):
        binaries.load(source, TARGETS[90])


def test_a_kept_kernel_that_anyone_could_have_put_there_is_not_loaded(source, caplog):
    first = binaries.load(source, TARGETS[90])
    kept(source).parent.chmod(0o777)
    assert binaries.load(source, TARGETS[90]) == first and runs(source) == 2
    assert any("anyone may write" in message for message in caplog.messages)
