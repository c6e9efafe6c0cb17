"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from interpreted import Beside

if TYPE_CHECKING:
    from click.testing import Result

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
BESIDE = pytest.StashKey[Beside]()
#: The files that take minutes, longest first: several workers (pytest-xdist) begin with them, so that none is alone at the end.
LONGEST = (
    "test_native_library.py",
    "kernels/triton/test_interpreted.py",
    "engine/cuda/test_cuda_model.py",
    "test_c_api.py",
    "engine/cuda/test_cuda_parallel.py",
    "kernels/triton_frames/test_resize_triton.py",
    "compiler/test_quantize.py",
    "compiler/test_precision_gate.py",
    "calibrate/test_calibrate.py",
    "benchmarks/test_bench_cpu.py",
    "test_training_tools.py",
    "cli/test_cli_interruption.py",
    "engine/cuda/test_cuda_persistent.py",
    "kernels/test_integer_isas.py",
    "test_golden.py",
    "test_build.py",
)


def workers(config: pytest.Config) -> int:
    """Number of pytest-xdist's workers, where this process is one of them; else 0."""
    return getattr(config, "workerinput", {}).get("workercount", 0)


def pytest_configure(config: pytest.Config) -> None:
    """Workers share the processors: OpenMP's threads, torch's among them, spin while they wait for one that a neighbour holds up."""
    if count := workers(config):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if workers(config):
        place = {(ROOT / "tests" / name).resolve(strict=True): i for i, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path.resolve(), len(LONGEST)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What tests with the parameter ``interpreted_file`` wait for begins now; a worker, which has neighbours, begins at the test."""
    if workers(session.config):
        return
    calls = [item.callspec for item in session.items if hasattr(item, "callspec")]
    files = [call.params["interpreted_file"] for call in calls if "interpreted_file" in call.params]
    if files and not session.config.option.collectonly:
        session.config.stash[BESIDE] = Beside(files)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (beside := session.config.stash.get(BESIDE, None)) is not None:
        beside.end()


@pytest.fixture
def beside(pytestconfig: pytest.Config, interpreted_file: Path) -> Iterator[Beside]:
    """The files for Triton's interpreter under way."""
    if not workers(pytestconfig):
        yield pytestconfig.stash[BESIDE]
        return
    alone = Beside([interpreted_file])
    yield alone
    alone.end()


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
