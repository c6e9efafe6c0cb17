"""Which pictures an INPUT stands for."""

from __future__ import annotations

import os

import pytest

from fusedx.cli import sources
from fusedx.engine.errors import ConfigError
from fusedx.inputs import reading


def found(*inputs, **options):
    return [os.path.basename(path) for path in sources.expand([os.fspath(i) for i in inputs], **options)]


def test_the_extensions_are_those_that_can_be_read():
    assert set(reading._EXTENSIONS) == sources.EXTENSIONS


def test_folders_are_sorted_and_not_recursive(folder):
    assert found(folder) == ["a.png", "b.jpg", "torn.png", "void.png"]
    assert found(folder, recursive=True) == ["a.png", "b.jpg", "c.png", "torn.png", "void.png"]


def test_dicom_without_an_extension(tmp_path):
    content = bytes(128) + b"DICM" + bytes(100)
    for name in ("IM000001", "1.2.840.113619.2.5", "scan.dcm", "readme"):
        (tmp_path / name).write_bytes(content if name != "readme" else b"text")
    assert found(tmp_path) == ["1.2.840.113619.2.5", "IM000001", "scan.dcm"]


def test_patterns_and_a_file_whose_name_looks_like_one(folder):
    (folder / "eye[1].png").write_bytes(b"x")
    assert found(folder / "*.png") == ["a.png", "eye[1].png", "torn.png", "void.png"]
    assert found(folder / "eye[1].png") == ["eye[1].png"]
    assert found(f"{folder}/**/c.*") == ["c.png"]


def test_links_in_a_circle_end(folder):
    (folder / "deeper" / "up").symlink_to(folder)
    assert found(folder, recursive=True).count("a.png") == 1


def test_a_missing_file_is_kept_and_an_empty_folder_is_warned_of(tmp_path):
    said: list[str] = []
    assert found(tmp_path / "nope.png", tmp_path, tmp_path / "*.png", warn=said.append) == ["nope.png"]
    assert len(said) == 2 and "no picture in" in said[0] and "nothing matches" in said[1]


def test_a_folder_that_cannot_be_listed_is_a_source(folder, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("deeper"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert "deeper" in found(folder, recursive=True)


def test_manifest_is_checked_at_once(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbfpath\nb\xff.png\n")
    sources.check([str(tmp_path / "list.csv")])
    assert list(sources.expand([str(tmp_path / "list.csv")])) == [f"{tmp_path}/b\udcff.png"]
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(ConfigError, match="cannot be read"):
            sources.check([str(tmp_path / name)])
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    with pytest.raises(ConfigError):
        sources.check([str(tmp_path / "junk.parquet")])


def test_expansion_is_lazy(folder):
    walk = sources.expand([str(folder), "/no/such/thing"])
    assert os.path.basename(next(walk)) == "a.png"
