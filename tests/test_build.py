"""The build's three modes, what it records, and what ends up in the sdist and the wheel; and the C++ library
without Python."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
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


def build(
    tree: Path, *commands: str, native: str | None = None, cxx: str | None = None, first: Path | None = None
) -> subprocess.CompletedProcess:
    """setup.py; ``first`` is a folder to look for tools in before any other."""
    env = {k: v for k, v in os.environ.items() if k not in ("FUSEDX_NATIVE", "CXX", "PYTHONPATH")}
    env.update({k: v for k, v in (("FUSEDX_NATIVE", native), ("CXX", cxx)) if v is not None})
    env["PATH"] = os.pathsep.join([*([str(first)] if first else []), str(Path(sys.executable).parent), env.get("PATH", "")])
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
    assert not info["native"] and info["reason"]
    if shutil.which("cmake", path=TOOLS):
        assert "/bin/false" in lines[0] and "build.log" in lines[0]
        assert "CXX=false" in info["reason"] and "/" not in info["reason"] and "log" not in info["reason"]


def broken_cmake(tree: Path, text: str) -> Path:
    folder = tree / "tools of mine"
    folder.mkdir()
    (folder / "cmake").write_text(text)
    (folder / "cmake").chmod(0o755)
    return folder


@pytest.mark.parametrize("text", ["#!/no/such/interpreter\n", "\x7fELF nonsense\n", "#!/bin/sh\nexit 0\n",
                                  "#!/bin/sh\necho \"error: $PWD/csrc/isa.cpp is broken, see '$PWD/x y/z'\"; exit 1\n"])
def test_a_cmake_that_cannot_run_is_a_failed_build_like_any_other(tree, text):
    first = broken_cmake(tree, text)
    result = build(tree, "build", first=first)
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    reason = recorded(tree)["reason"]
    assert reason and tree.parent.name not in reason and not re.search(r"(^|[^\w.])/", reason), reason
    required = build(tree, "build", native="1", first=first)
    assert required.returncode and "the native module is required" in required.stderr and "Traceback" not in required.stderr


def test_a_build_folder_that_cannot_be_made_is_a_failed_build_like_any_other(tree):
    (tree / "taken").write_text("a file where the build wants a folder")
    result = build(tree, "build", "--build-temp", "taken/here")
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    assert "/" not in recorded(tree)["reason"]


def test_a_package_folder_that_cannot_be_written_is_said_in_one_line(tree):
    (tree / "python/fusedx/_build_info.json").unlink()
    (tree / "python/fusedx/_build_info.json").mkdir()
    result = build(tree, "build_ext", "--inplace", native="0")
    assert result.returncode and "fusedx: cannot write the package: " in result.stderr and "Traceback" not in result.stderr


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
    python = ("__init__.py", "py.typed", "_build_info.json", "kernels/philox/reference.py", "engine/errors.py")
    for needed in (*python, "kernels/chain/chain.cu", "kernels/chain/params.cuh", "kernels/resize/resize.cu"):
        assert f"fusedx/{needed}" in names
    assert not [n for n in names if n.endswith((".so", ".cpp", ".hpp")) or ".data/" in n]
    assert json.loads(zipfile.ZipFile(wheel).read("fusedx/_build_info.json"))["native"] is False


FAKE_CMAKE = """#!/bin/sh
echo "$1" >> "$PWD/calls"
if [ "$1" = --build ]; then
  : > "$2/_native.so"; : > "$2/csrc/libfusedx.so.1"
else
  mkdir -p "$4/csrc/python/CMakeFiles/_native.dir"; echo '{"compiler": "none", "isas": []}' > "$4/built_with.json"
fi
"""


def test_a_wheel_compiles_once(tree):
    """setuptools forgets that build_ext ran; what was built in the tree is not what a wheel holds."""
    first = broken_cmake(tree, FAKE_CMAKE)
    for commands, compilations in ((["bdist_wheel"], 1), (["build_ext", "--inplace", "bdist_wheel"], 2)):
        (tree / "calls").write_text("")
        result = build(tree, *commands, native="1", first=first)
        assert result.returncode == 0, result.stderr
        assert (tree / "calls").read_text().split() == ["-S", "--build"] * compilations
        (wheel,) = (tree / "dist").iterdir()
        assert not wheel.name.endswith("-any.whl") and "fusedx/_native.so" in zipfile.ZipFile(wheel).namelist()
        shutil.rmtree(tree / "dist"), shutil.rmtree(tree / "build")


def test_sdist_holds_real_folders_and_all_sources(tree):
    result = build(tree, "sdist")
    assert result.returncode == 0, result.stderr
    (archive,) = (tree / "dist").iterdir()
    members = {m.name.split("/", 1)[1]: m for m in tarfile.open(archive).getmembers() if "/" in m.name}
    for needed in ("CMakeLists.txt", "setup.py", "LICENSE", "csrc/python/bindings.cpp", "csrc/engine/chain.hpp", "csrc/runtime/vec.hpp",
                   "python/fusedx/engine/errors.py", "python/fusedx/kernels/conditional_layer/panels.cpp",
                   "python/fusedx/kernels/conditional_layer/softplus.hpp"):
        assert members[needed].isfile(), needed
    assert not [n for n, m in members.items() if m.issym() or n.endswith((".so", "_build_info.json"))]


def test_in_place_build_of_this_tree_is_recorded_truthfully():
    record, modules = ROOT / "python/fusedx/_build_info.json", list((ROOT / "python/fusedx").glob("_native*"))
    if not record.exists():
        pytest.skip("not built (running from the source tree)")
    assert json.loads(record.read_text())["native"] == bool(modules)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """A build folder without Python, of the kernels, compiled without optimisation; the C tests build all else (native/builds.py)."""
    cmake, compiler = shutil.which("cmake", path=TOOLS), shutil.which(os.environ.get("CXX", "c++"), path=TOOLS)
    maker = shutil.which("ninja", path=TOOLS) or shutil.which("make", path=TOOLS)
    if not (cmake and compiler and maker):
        pytest.skip(f"needs cmake ({cmake}), a C++ compiler ({compiler}) and ninja or make ({maker})")
    folder = tmp_path_factory.mktemp("library")
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={maker}"] if maker.endswith("ninja") else []
    options = [f"-DCMAKE_CXX_COMPILER={compiler}", "-DCMAKE_BUILD_TYPE=Debug", "-DFUSEDX_PYTHON=OFF", "-DPython_EXECUTABLE=/no/python"]
    make = [cmake, "--build", str(folder), "--parallel", "2", "--target", "fusedx_kernels"]
    for command in ([cmake, "-S", str(ROOT), "-B", str(folder), *generator, *options], make):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
        assert done.returncode == 0, done.stdout
    return folder


USE = """
#include <cstdio>
#include "conditional_layer/weights.hpp"
#include "runtime/thread_pool.hpp"
int main() {  // one input, one output: softplus(0) = log 2
    float u = 1, weight = 0, a = 1, c = 0, out = 0;
    int32_t t = 0;
    const fusedx::Weights weights({fusedx::WeightFormat::fp32, 1, 1, &weight, nullptr, 1});
    fusedx::Layer layer{};
    layer.rows = layer.inputs = layer.outputs = 1;
    layer.u = &u, layer.weights = weights.view(), layer.a = &a, layer.c = &c, layer.t = &t, layer.out = &out;
    for (auto isa : fusedx::available_isas()) {
        fusedx::conditional_layer(layer, isa);
        std::printf("%.6f\\n", out);
    }
    return fusedx::pool_threads() < 1;
}
"""


def test_the_library_builds_links_and_runs_without_python(library):
    assert not list(library.rglob("_native*"))
    (library / "use.cpp").write_text(USE)
    compiler = shutil.which(os.environ.get("CXX", "c++"), path=TOOLS)
    folders = [f"-I{ROOT / folder}" for folder in ("csrc", "python/fusedx", "kernels")]
    command = [compiler, "-std=c++20", *folders, "use.cpp", "kernels/libfusedx_kernels.a", "-pthread", "-o", "use"]
    done = subprocess.run(command, cwd=library, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(subprocess.run([library / "use"], capture_output=True, text=True, check=True).stdout.split()) == {"0.693147"}


def test_no_function_is_shared_between_instruction_sets(library):
    """A weak symbol would be merged by the linker: one instruction set's code in another's place."""
    nm = shutil.which("nm")
    if not nm:
        pytest.skip("nm is not on the path")
    objects = [file for file in library.rglob("*.o") if any(part.startswith("fusedx_isa_") for part in file.parts)]
    assert len(objects) >= 2
    for file in objects:
        symbols = subprocess.run([nm, "-C", "--defined-only", file], capture_output=True, text=True, check=True).stdout.splitlines()
        symbols = [line for line in symbols if "DW.ref.__gxx_personality" not in line]  # a pointer to the C++ library, not code
        assert not [line for line in symbols if line.split()[1] in "WVu"], file
        isa = next(part for part in file.parts if part.startswith("fusedx_isa_")).removeprefix("fusedx_isa_").removesuffix(".dir")
        outside = [line for line in symbols if line.split()[1].isupper() and f"fusedx::{isa}::" not in line]
        assert not outside, file
