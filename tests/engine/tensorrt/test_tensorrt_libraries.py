"""Which TensorRT is chosen, and the reasons that a person reads when none is."""

from __future__ import annotations

import pytest

from fusedx.engine.encoder.tensorrt import libraries


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Writes modules of the names given; the source is what importing them runs."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(**modules: str) -> None:
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(source)

    return install


def test_nothing_installed():
    assert libraries.load(("trt_none", "trt_none_bindings")) == (None, "trt_none is not installed")


def test_a_folder_of_that_name_is_not_tensorrt(tmp_path, monkeypatch):
    (tmp_path / "trt_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert libraries.load(("trt_folder",)) == (None, "trt_folder is not installed")


def test_the_first_that_works(installed):
    installed(trt_a="__version__ = '11.4.0.106'", trt_b="__version__ = '12.0'")
    module, reason = libraries.load(("trt_missing", "trt_a", "trt_b"))
    assert module.__name__ == "trt_a" and reason == ""


def test_a_wheel_without_its_libraries(installed):
    installed(trt_c="raise ImportError('libnvinfer.so.11: cannot open shared object file\\nmore')", trt_d="__version__ = '8.6.1'")
    module, reason = libraries.load(("trt_c", "trt_d"))
    assert module is None
    assert reason == "trt_c does not import (libnvinfer.so.11: cannot open shared object file); trt_d is 8.6.1, older than 10.9"


@pytest.mark.parametrize(("text", "parts"), [("11.4.0.106", (11, 4, 0, 106)), ("10.9", (10, 9)), ("10.9.0.post12.dev1", (10, 9, 0))])
def test_versions(text, parts):
    assert libraries.version(text) == parts
