"""The build's three modes, what it records, and what ends up in the sdist and the wheel.  Nothing is compiled here."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
setuptools = pytest.importorskip("setuptools")
pytestmark = [
    pytest.mark.skipif(int(setuptools.__version__.split(".")[0]) < 77, reason=f"setuptools {setuptools.__version__} is older than 77"),
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="runs in the source tree only"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the build reads, links kept as links, with a leftover native module that must not be shipped."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "CMakeLists.txt", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    skip = shutil.ignore_patterns("__pycache__", "*.so", "_build_info.json", "*.egg-info")
    for name in ("csrc", "kernels", "engine", "python"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=skip)
    (tree / "python/fusedx/_native.leftover.so").write_bytes(b"stale")
    (tree / "python/fusedx/_build_info.json").write_text("stale")
    return tree


def build(tree: Path, *commands: str, native: str | None = None, cxx: str | None = None) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k not in ("FUSEDX_NATIVE", "CXX", "PYTHONPATH")}
    env.update({k: v for k, v in (("FUSEDX_NATIVE", native), ("CXX", cxx)) if v is not None})
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    return subprocess.run([sys.executable, "setup.py", "-q", *commands], cwd=tree, env=env, capture_output=True, text=True, timeout=120)


def built_package(tree: Path) -> Path:
    (package,) = tree.glob("build/lib*/fusedx")
    return package


def recorded(tree: Path) -> dict:
    package = built_package(tree)
    assert not list(package.glob("_native*"))
    assert (package / "kernels/conditional_layer/reference.py").is_file() and (package / "engine/errors.py").is_file()
    return json.loads((package / "_build_info.json").read_text())


def test_off(tree):
    result = build(tree, "build", native="0")
    assert result.returncode == 0, result.stderr
    assert recorded(tree) == {"native": False, "reason": "switched off by FUSEDX_NATIVE=0", "compiler": None, "isas": []}


def test_best_effort_installs_and_says_why(tree):
    result = build(tree, "build", cxx="/bin/false")
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("fusedx: ")]
    assert len(lines) == 1 and lines[0].startswith("fusedx: installing without the native module: ")
    info = recorded(tree)
    assert not info["native"] and info["reason"] in lines[0]
    if shutil.which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])):
        assert "/bin/false" in info["reason"]


def test_required_fails_hard(tree):
    result = build(tree, "build", native="1", cxx="/bin/false")
    assert result.returncode != 0
    assert "the native module is required (FUSEDX_NATIVE=1) and " in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_mode_is_an_error(tree):
    result = build(tree, "build", native="maybe")
    assert result.returncode != 0 and "FUSEDX_NATIVE=maybe: expected 0 (off), 1 (required) or unset (best effort)" in result.stderr


def test_pure_wheel_fits_every_platform(tree):
    result = build(tree, "bdist_wheel", native="0")
    assert result.returncode == 0, result.stderr
    (wheel,) = (tree / "dist").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("__init__.py", "py.typed", "_build_info.json", "kernels/philox/reference.py", "engine/errors.py"):
        assert f"fusedx/{needed}" in names
    assert not [n for n in names if n.endswith((".so", ".cpp", ".hpp")) or ".data/" in n]
    assert json.loads(zipfile.ZipFile(wheel).read("fusedx/_build_info.json"))["native"] is False


def test_sdist_holds_real_folders_and_all_sources(tree):
    result = build(tree, "sdist")
    assert result.returncode == 0, result.stderr
    (archive,) = (tree / "dist").iterdir()
    members = {m.name.split("/", 1)[1]: m for m in tarfile.open(archive).getmembers() if "/" in m.name}
    for needed in ("CMakeLists.txt", "setup.py", "LICENSE", "csrc/bindings.cpp", "csrc/vec.hpp", "python/fusedx/engine/errors.py",
                   "python/fusedx/kernels/conditional_layer/panels.cpp", "python/fusedx/kernels/conditional_layer/softplus.hpp"):
        assert members[needed].isfile(), needed
    assert not [n for n, m in members.items() if m.issym() or n.endswith((".so", "_build_info.json"))]


def test_in_place_build_of_this_tree_is_recorded_truthfully():
    record, modules = ROOT / "python/fusedx/_build_info.json", list((ROOT / "python/fusedx").glob("_native*"))
    if not record.exists():
        pytest.skip("not built (running from the source tree)")
    assert json.loads(record.read_text())["native"] == bool(modules)
