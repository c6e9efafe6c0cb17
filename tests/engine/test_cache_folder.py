"""Where compiled kernels and TensorRT plans are kept: one folder for both."""

from __future__ import annotations

import pytest

from fusedx.engine.cache_folder import cache_folder


@pytest.mark.parametrize("environment, folder", [
    ({}, "/home/someone/.cache/fusedx"),
    ({"XDG_CACHE_HOME": ""}, "/home/someone/.cache/fusedx"),
    ({"XDG_CACHE_HOME": "/x"}, "/x/fusedx"),
    ({"XDG_CACHE_HOME": "relative"}, "/home/someone/.cache/fusedx"),
    ({"XDG_CACHE_HOME": "/x", "FUSEDX_CACHE": "/y"}, "/y"),
    ({"XDG_CACHE_HOME": "/x", "FUSEDX_CACHE": ""}, "/x/fusedx"),
])  # fmt: skip
def test_the_variables_and_their_order(monkeypatch, environment, folder):
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(cache_folder(environment)) == folder


def test_the_environment_is_looked_at_when_asked(monkeypatch):
    monkeypatch.setenv("FUSEDX_CACHE", "/later")
    assert str(cache_folder()) == "/later"
