"""The real TensorRT binding classes, on a machine without TensorRT.

The wheels tensorrt-cu13-bindings and tensorrt-lean-cu13-bindings hold the Python classes and ask the dynamic linker for libraries
of over a gigabyte, of which they call a handful of functions to make the first object.  Libraries of those names whose functions
return null are enough to import the classes, enumerations and signatures; nothing can be made of them that computes.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

_WHEELS = {"tensorrt_bindings": "tensorrt-cu13-bindings", "tensorrt_lean_bindings": "tensorrt-lean-cu13-bindings"}
_STUBS = {
    "libnvinfer.so.11": (
        "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry", "getPluginRegistry",
    ),
    "libnvinfer_plugin.so.11": ("initLibNvInferPlugins",),
    "libnvonnxparser.so.11": ("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    "libnvinfer_lean.so.11": ("createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL", "getPluginRegistry"),
}  # fmt: skip


def require(name: str, folder: Path) -> ModuleType:
    """``tensorrt_bindings`` or ``tensorrt_lean_bindings``; skips where the wheel, or a C compiler for the stubs, is missing."""
    if find_spec(name) is None:
        pytest.skip(f"the wheel {_WHEELS[name]} is not installed")
    try:
        return import_module(name)
    except ImportError:
        _load_stubs(folder)
    return import_module(name)


@cache
def _load_stubs(folder: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("TensorRT's libraries are not installed, and there is no C compiler to stand in for them")
    for library, functions in _STUBS.items():
        source = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions)
        command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", library, f"-Wl,-soname,{library}"]
        subprocess.run(command, input=source, text=True, check=True, cwd=folder)
        ctypes.CDLL(str(folder / library))  # from now on the linker finds a library of this name loaded
