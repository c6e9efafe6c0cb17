"""The folder that judges: whatever lies in it, each picture counts once, and none both sets ranges and judges."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusedx.compiler import gate_pictures
from fusedx.compiler.calibration import FEWEST, MOST
from fusedx.compiler.gate_pictures import Pictures, read_pictures, require_files, split
from fusedx.engine.errors import ConfigError
from fusedx.inputs import ReadOptions
from fusedx.preparation import preprocess

OPTIONS = ReadOptions(exif_orientation="ignore")


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)).save(path)


def found(folder: Path, scratch: Path, fewest: int = 1) -> gate_pictures.Found:
    scratch.mkdir(exist_ok=True)
    return read_pictures(folder, "NEEDED", fewest, OPTIONS, scratch, lambda text: None)


def test_hostile_folder(tmp_path):
    """Pictures under odd names and in folders count; everything else is named or passed over."""
    where = tmp_path / "in"
    for i, name in enumerate(("a.png", "deep/er/b.png", "no extension.png", "\u00fc \n.png", "wrong.jpg")):
        draw(where / name if name != "wrong.jpg" else where / "c.png", i)
    (where / "c.png").rename(where / "wrong.jpg")
    draw(where / ".hidden.png", 50)
    draw(where / ".git" / "x.png", 51)
    (where / "notes.txt").write_text("hello")
    (where / "empty.png").touch()
    (where / "torn.png").write_bytes((where / "a.png").read_bytes()[:500])
    (where / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\2\0\0\0")
    (where / "dangling.png").symlink_to("nowhere")
    (where / "loop").symlink_to(where)
    os.mkfifo(where / "fifo.png")
    result = found(where, tmp_path / "s")
    assert len(result.pictures) == 5 and result.repeated == 0
    assert sorted(Path(text.split(":")[0]).name for text in result.skipped) == ["bomb.png", "empty.png", "notes.txt", "torn.png"]
    assert "5 different pictures, 4 files that could not be read, the first: " in str(result)


def test_same_pixels_count_once(tmp_path):
    """Three thousand copies of one picture prove nothing."""
    draw(tmp_path / "in" / "a.png", 0)
    draw(tmp_path / "in" / "b.png", 1)
    shutil.copy(tmp_path / "in" / "a.png", tmp_path / "in" / "again.png")
    Image.open(tmp_path / "in" / "a.png").save(tmp_path / "in" / "other format.bmp")
    result = found(tmp_path / "in", tmp_path / "s")
    assert len(result.pictures) == 2 and result.repeated == 2 and len(set(result.pictures.digests)) == 2
    with pytest.raises(ConfigError, match="NEEDED; .* has 2 different pictures, 2 further ones with the pixels of another"):
        found(tmp_path / "in", tmp_path / "s", fewest=3)


def test_too_few_files_are_refused_before_any_is_read(tmp_path, monkeypatch):
    draw(tmp_path / "in" / "a.png", 0)
    monkeypatch.setattr(gate_pictures, "read", lambda *a: 1 / 0)
    with pytest.raises(ConfigError, match="NEEDED; .* has 1 file"):
        require_files(tmp_path / "in", "NEEDED", 2)
    with pytest.raises(ConfigError, match="has 1 file"):
        found(tmp_path / "in", tmp_path / "s", fewest=2)
    for wrong in ("nowhere", "in/a.png"):
        with pytest.raises(ConfigError, match="not a folder"):
            require_files(tmp_path / wrong, "NEEDED", 1)


def test_nothing_readable(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.png").write_text("x")
    with pytest.raises(ConfigError, match="0 different pictures, 1 file that could not be read"):
        found(tmp_path / "in", tmp_path / "s")


def test_images_are_those_of_a_prediction(tmp_path):
    for i in range(7):
        draw(tmp_path / "in" / f"{i}.png", i)
    pictures = found(tmp_path / "in", tmp_path / "s").pictures
    assert list(pictures.digests) == sorted(pictures.digests)
    images = pictures.images(0, 100)
    assert images.shape == (7, 3, 224, 224) and images.dtype == np.float32
    for name, digest, image in zip(pictures.names, pictures.digests, images, strict=True):
        picture = gate_pictures.read(name, OPTIONS)
        assert picture.sha256 == digest and np.array_equal(preprocess(picture), image)
    assert np.array_equal(pictures.part(2, 5).images(1, 3), images[3:5])


def test_names_and_order_change_nothing(tmp_path):
    for i in range(20):
        draw(tmp_path / "one" / f"{i:02}.png", i)
        draw(tmp_path / "two" / f"{(i * 7) % 20:02} x.png", i)
    one, two = (found(tmp_path / name, tmp_path / f"s {name}").pictures for name in ("one", "two"))
    assert one.digests == two.digests and one.sha256() == two.sha256() and np.array_equal(one.images(0, 20), two.images(0, 20))
    assert one.part(0, 19).sha256() != one.sha256()


@pytest.mark.parametrize(
    "n, fewest, ranges",
    [
        (20, 5, 15), (21, 5, 16), (100, 5, 16), (400, 5, 40), (10_000, 5, MOST), (3000, 2995, 5), (3010, 2995, 15), (3011, 2995, 16),
        (3100, 2995, 105), (3295, 2995, 300), (3400, 2995, MOST),
    ],
)  # fmt: skip
def test_split(n, fewest, ranges):
    """Disjoint, nobody is lost, and enough judges are left; too few to set ranges means none do."""
    pictures = Pictures(np.empty((0,)), tuple(range(n)), tuple(f"{i:064x}" for i in range(n)), tuple(map(str, range(n))))
    some, judges = split(pictures, fewest)
    assert len(some) == (ranges if ranges >= FEWEST else 0) and len(judges) >= fewest
    assert some.digests + judges.digests == pictures.digests and some.rows + judges.rows == pictures.rows
