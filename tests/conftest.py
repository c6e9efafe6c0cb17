"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from interpreted import Beside

if TYPE_CHECKING:
    from click.testing import Result

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
BESIDE = pytest.StashKey[Beside]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """What tests with the parameter ``interpreted_file`` wait for begins now."""
    calls = [item.callspec for item in session.items if hasattr(item, "callspec")]
    files = [call.params["interpreted_file"] for call in calls if "interpreted_file" in call.params]
    if files and not session.config.option.collectonly:
        session.config.stash[BESIDE] = Beside(files)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (beside := session.config.stash.get(BESIDE, None)) is not None:
        beside.end()


@pytest.fixture(scope="session")
def beside(pytestconfig: pytest.Config) -> Beside:
    """The files for Triton's interpreter under way."""
    return pytestconfig.stash[BESIDE]


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint folder of golden case v1-small."""
    sys.path.insert(0, str(GOLDEN))
    try:
        make_checkpoint = pytest.importorskip("make_checkpoint", reason="needs torch")
    finally:
        sys.path.remove(str(GOLDEN))
    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint.write(json.loads((GOLDEN / "v1-small.json").read_text()), folder)
    return folder


@pytest.fixture(scope="session")
def small_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled model that loads fast: the demonstration's, or golden case v1-small where that is missing."""
    shipped = ROOT / "python" / "fusedx" / "demo" / "model.fusedx"
    if (shipped / "manifest.json").is_file():
        return shipped
    import fusedx

    path = tmp_path_factory.mktemp("model") / "small.fusedx"
    fusedx.compile_checkpoint(request.getfixturevalue("small_checkpoint"), path)
    return path


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """invoke(arguments...) -> the result of a command run inside this process, which saves starting Python again."""
    from click.testing import CliRunner

    from fusedx.cli import commands

    def finished(*arguments: object) -> Result:
        done = CliRunner().invoke(commands, [str(a) for a in arguments])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return finished
