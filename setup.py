"""Builds fusedx._native with CMake, as far as FUSEDX_NATIVE asks for it; everything else is in pyproject.toml.

FUSEDX_NATIVE unset: try, and install as pure Python with one clear line when it does not work; 0: do not try;
1: fail when it does not work.  The outcome is written to fusedx/_build_info.json, which ``fusedx doctor`` reads.  A wheel also holds
libfusedx and its header (fusedx/lib, fusedx/include), where the openvino package that it links to is there while building; an editable
installation does not, since the library finds OpenVINO beside the installed package.

FUSEDX_CUDA=1 compiles the CUDA kernels for every supported GPU and ships them, for machines without nvcc; it takes minutes.
Unset or 0: they are compiled when first needed, for the one GPU that is there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class NativeBuildError(Exception):
    """The compiled module could not be built: the reason in one line, and the file to look at."""

    def __init__(self, reason: str, where: object = None) -> None:
        super().__init__(f"{reason} ({where})" if where else reason)
        self.reason = reason

    def public(self) -> str:
        """The reason without the folders of the machine that built, fit to be shipped."""
        text = self.reason
        for folder in sorted({str(ROOT), sys.prefix, str(Path.home())}, key=len, reverse=True):  # these may hold spaces
            text = text.replace(folder.rstrip(os.sep) + os.sep, "")
        return re.sub(r"(?<![\w.])(?:/[^\s/:'\"()]*)+/(?=[^\s/])|(?<![\w.])/(?=\w)", "", text)


class BuildNative(build_ext):
    """One CMake build in place of setuptools' own compiler."""

    def run(self) -> None:
        mode = os.environ.get("FUSEDX_NATIVE", "")
        if mode not in ("", "0", "1"):
            raise SystemExit(f"FUSEDX_NATIVE={mode}: expected 0 (off), 1 (required) or unset (best effort)")
        info = {"native": False, "reason": "switched off by FUSEDX_NATIVE=0", "compiler": None, "isas": []}
        in_tree = self.inplace or self.editable_mode
        folder = ROOT / "python" / "fusedx" if in_tree else Path(self.build_lib) / "fusedx"
        if getattr(self, "made_in", None) == folder:
            return  # a wheel asks twice: what kind it is, and for what it holds
        built: list[Path] = []
        if mode != "0":
            try:
                built, found = built_native(Path(self.build_temp).resolve() / "cmake", library=not in_tree)
                info.update(native=True, reason=None, **found)
            except NativeBuildError as error:
                if mode == "1":
                    raise SystemExit(f"fusedx: the native module is required (FUSEDX_NATIVE=1) and {error}") from None
                print(f"fusedx: installing without the native module: {error}", file=sys.stderr, flush=True)
                info["reason"] = error.public()
        try:
            self.made = place(built, info, folder) + cuda_kernels(os.environ.get("FUSEDX_CUDA", ""), folder)
        except OSError as error:  # nothing at all can be installed there, native or not
            raise SystemExit(f"fusedx: cannot write the package: {error}") from None
        self.made_in = folder
        if not built:
            self.distribution.ext_modules = None  # nothing here depends on the platform: see BuildWheel

    def get_outputs(self) -> list[str]:
        return list(getattr(self, "made", []))

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return []  # MANIFEST.in names them


class BuildWheel(bdist_wheel):
    """A wheel for this platform when the native module was built, else one for every platform."""

    def run(self) -> None:
        self.run_command("build_ext")
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()


def place(built: list[Path], info: dict[str, object], folder: Path) -> list[str]:
    """Puts the module and the record of the build into the package folder, and clears what an earlier build left."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (*folder.glob("_native*"), *folder.glob("lib/libfusedx*")):
        stale.unlink()
    record = folder / "_build_info.json"
    record.write_text(json.dumps(info, indent=1) + "\n")
    return [*(copied(file, folder) for file in built), str(record)]


def copied(file: Path, folder: Path) -> str:
    """The module lies in the package itself, the library under the name it is loaded by in lib/, its header in include/fusedx/."""
    if file.suffix == ".h":
        to = folder / "include" / "fusedx" / file.name
    elif file.name.startswith("libfusedx"):
        to = folder / "lib" / re.sub(r"(\.so\.\d+).*", r"\1", file.name)
    else:
        to = folder / file.name
    to.parent.mkdir(parents=True, exist_ok=True)
    return str(shutil.copy2(file, to))


def built_native(build: Path, *, library: bool) -> tuple[list[Path], dict[str, object]]:
    """:func:`compile_native`; a tool or a folder that the system refuses is a failed build like any other."""
    try:
        return compile_native(build, library=library)
    except OSError as error:
        name = f": {Path(os.fsdecode(error.filename)).name}" if error.filename else ""
        raise NativeBuildError(f"{error.strerror or type(error).__name__}{name}", error.filename) from None
    except ValueError as error:
        raise NativeBuildError(f"CMake left an unreadable report: {error}") from None


def compile_native(build: Path, *, library: bool) -> tuple[list[Path], dict[str, object]]:
    """Configures and builds the module, and the library if wanted, in ``build``: their files, and the compiler and instruction sets."""
    cmake = shutil.which("cmake")
    if not cmake:
        raise NativeBuildError("cmake is not on the path")
    try:
        import pybind11
    except ImportError:
        raise NativeBuildError("the Python package pybind11 is not installed") from None
    shutil.rmtree(build, ignore_errors=True)  # an isolated build leaves paths of tools that are gone
    build.mkdir(parents=True)
    ninja = shutil.which("ninja")
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    python = [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    openvino = openvino_cmake() if library else None
    # Installed beside the openvino package, the library finds it there; in an archive of its own, next to itself.
    place = [f"-DOpenVINO_DIR={openvino}", "-DFUSEDX_RPATH=$ORIGIN/../../openvino/libs"] if openvino else ["-DFUSEDX_LIBRARY=OFF"]
    log = build / "build.log"
    configure = [cmake, "-S", str(ROOT), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release", *generator, *python, *place]
    run_logged(configure, log, "configuring failed")
    if not (build / "csrc" / "python" / "CMakeFiles" / "_native.dir").exists():
        raise NativeBuildError("CMake found no Python or pybind11 to build against", f"log: {log}")
    targets = ["--target", "_native", *(["fusedx"] if openvino else [])]
    run_logged([cmake, "--build", str(build), "--parallel", str(os.cpu_count() or 1), *targets], log, "compiling failed")
    built = sorted(build.glob("_native*.so")) + sorted(build.glob("_native*.pyd"))
    if openvino:
        header = ROOT / "csrc" / "include" / "fusedx" / "fusedx.h"
        built += [max(build.glob("csrc/libfusedx.so.*"), key=lambda file: len(file.name)), header]
    return built, json.loads((build / "built_with.json").read_text())


def openvino_cmake() -> Path | None:
    """The CMake folder of the openvino package; None where it is not installed or came without one."""
    spec = importlib.util.find_spec("openvino")
    folder = Path(spec.origin).with_name("cmake") if spec and spec.origin else None
    return folder if folder and (folder / "OpenVINOConfig.cmake").is_file() else None


def cuda_kernels(mode: str, folder: Path) -> list[str]:
    """Binaries of the CUDA kernels for every target in ``folder``, if they are asked for."""
    if mode not in ("", "0", "1"):
        raise SystemExit(f"FUSEDX_CUDA={mode}: expected 1 (compile and ship the CUDA kernels), 0 or unset")
    if mode != "1":
        return []
    out = folder / "kernels" / "cubin"
    if subprocess.run([sys.executable, str(ROOT / "tools" / "build_cubins.py"), str(out)]).returncode:
        raise SystemExit("fusedx: the CUDA kernels are required (FUSEDX_CUDA=1) and do not compile")
    return [str(file) for file in sorted(out.glob("*.cubin"))]


def run_logged(command: list[str], log: Path, problem: str) -> None:
    """Runs ``command`` with its output in ``log``; a failure names the line of the output that says why."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    with log.open("a") as file:
        file.write(result.stdout)
    if result.returncode:
        lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
        telling = ("is not able to compile", "not a full path", "could not find compiler", "No CMAKE_CXX_COMPILER", "rror:", "rror at")
        why = next((line for key in telling for line in lines if key in line), lines[-1] if lines else "no output")
        compiler = os.environ.get("CXX")
        raise NativeBuildError(f"{problem}{f' with CXX={compiler}' if compiler else ''}: {why}", f"log: {log}")


setup(
    ext_modules=[Extension("fusedx._native", sources=[])],  # tells setuptools that a native module may exist
    cmdclass={"build_ext": BuildNative, "bdist_wheel": BuildWheel},
)
