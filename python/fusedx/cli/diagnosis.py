"""What ``fusedx doctor`` finds out.  Each section is gathered on its own; one that fails says why and stops nothing."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import fusedx
from fusedx.cli.gpu import gpu
from fusedx.cli.packages import packages, problem_of
from fusedx.engine import processor

_FLAGS = (
    "sse4_2 avx f16c fma avx2 avx_vnni avx512f avx512vl avx512bw avx512_vnni avx512_bf16 avx512_fp16 amx_tile amx_bf16 amx_int8 "
    "asimd asimdhp asimddp bf16 i8mm sve sve2"
).split()  # fmt: skip
_SYNTAXES = (
    "RLELossless",
    "JPEGBaseline8Bit",
    "JPEGExtended12Bit",
    "JPEGLossless",
    "JPEGLosslessSV1",
    "JPEGLSLossless",
    "JPEGLSNearLossless",
    "JPEG2000Lossless",
    "JPEG2000",
)


def diagnose() -> dict[str, Any]:
    """Everything, in plain JSON types."""
    sections: dict[str, Callable[[], Any]] = {
        "fusedx": lambda: {"version": fusedx.__version__, "location": str(Path(fusedx.__file__).parent)},
        "python": lambda: {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
        },
        "platform": lambda: {"system": platform.platform(), "machine": platform.machine(), "libc": " ".join(platform.libc_ver())},
        "cpu": cpu,
        "native": native,
        "library": library,
        "encoders": encoders,
        "backends": backends,
        "sampler": sampler,
        "packages": packages,
        "dicom": dicom,
        "threads": threads,
        "huge_pages": huge_pages,
        "gpu": gpu,
    }
    found = {name: _tried(section) for name, section in sections.items()}
    return found | {"ready": _tried(lambda: ready(found))}


def _tried(section: Callable[[], Any]) -> Any:
    try:
        return section()
    except Exception as error:  # the doctor reports; it does not fall ill
        return {"error": f"{type(error).__name__}: {error}"}


def cpu() -> dict[str, Any]:
    have = processor.flags()
    return {"model": processor.name() or platform.processor() or "unknown", "instruction_sets": [f for f in _FLAGS if f in have]}


def sampler() -> dict[str, Any]:
    """What ``auto`` expects here of one chain of 250 steps at the published width, by precision."""
    from fusedx.engine.backends.native import why_not
    from fusedx.engine.manifest import PRECISIONS
    from fusedx.engine.sampler import measured

    found: dict[str, Any] = {"reason": why_not(), "width": measured.WIDTHS[-1], "steps": 250, "source": None, "plans": []}
    if found["reason"]:
        return found
    for precision in PRECISIONS:
        costs = measured.costs(precision, found["width"])
        sequential, parallel, plan = costs.outlook(found["steps"], chains=1)
        found["source"] = costs.source
        found["plans"].append({"precision": precision, "sequential": sequential, "parallel": parallel, "auto": str(plan)})
    return found


def native() -> dict[str, Any]:
    """The compiled module: what the build recorded (setup.py), and whether it loads."""
    record = Path(fusedx.__file__).parent / "_build_info.json"
    build = json.loads(record.read_text()) if record.is_file() else None
    from fusedx.kernels import native_module
    from fusedx.kernels.conditional_layer.packed import FORMATS

    found: dict[str, Any] = {
        "built": build["native"] if build else None,
        "build_reason": build["reason"] if build else "no build record: running from the source tree, or not installed by setup.py",
        "compiler": build["compiler"] if build else None,
        "built_for": build["isas"] if build else [],
        "loadable": native_module.native is not None,
        "load_reason": native_module.reason or None,
        "runs_here": [],
        "chosen": None,
        "precisions": [],
    }
    if native_module.native is not None:
        found |= {"runs_here": list(native_module.native.isas()), "chosen": native_module.native.isa(), "precisions": list(FORMATS)}
    return found


def library() -> dict[str, Any]:
    """libfusedx, the C library, as a wheel carries it: where, which version, and whether it loads, for which it needs its OpenVINO."""
    folder = Path(fusedx.__file__).parent
    found: dict[str, Any] = {"path": None, "header": None, "version": None, "reason": None}
    file = next(iter(sorted(folder.glob("lib/libfusedx.so.*"))), None)
    if file is None:
        return found | {"reason": "this installation has none: it comes with a wheel, not with a source tree or an editable installation"}
    header = folder / "include" / "fusedx" / "fusedx.h"
    found |= {"path": str(file), "header": str(header) if header.is_file() else None}
    try:
        version = ctypes.CDLL(str(file)).fx_version_string
    except (OSError, AttributeError) as error:  # most likely another version of OpenVINO than it was built with
        return found | {"reason": f"it does not load: {error}"}
    version.restype = ctypes.c_char_p
    return found | {"version": version().decode()}


def encoders() -> dict[str, str | None]:
    """Name -> None when usable, else the reason; what is said to be there is also imported (torch apart, which takes seconds)."""
    from fusedx.engine.encoder import available

    modules = {"openvino": "openvino", "onnxruntime": "onnxruntime"}
    return {name: reason or (problem_of(modules[name]) if name in modules else None) for name, reason in available().items()}


def backends() -> dict[str, str | None]:
    from fusedx.engine.backends import available

    return available()


def dicom() -> dict[str, Any]:
    """Transfer syntax -> the plugins that decode it here."""
    uids = import_module("pydicom.uid")
    get_decoder = import_module("pydicom.pixels").get_decoder
    syntaxes = {name: [str(plugin) for plugin in get_decoder(getattr(uids, name)).available_plugins] for name in _SYNTAXES}
    missing = [name for name, plugins in syntaxes.items() if not plugins]
    return {"decoders": syntaxes, "missing": missing, "install": "pip install 'fusedx[dicom]'" if missing else None}


def threads() -> dict[str, Any]:
    quota = Path("/sys/fs/cgroup/cpu.max")
    limit, period = (quota.read_text().split() + [""])[:2] if quota.is_file() else ("max", "")
    from fusedx.kernels import native_module

    return {
        "processors": os.cpu_count(),
        "allowed": processor.usable(),
        "cgroup_limit": None if limit == "max" else round(int(limit) / int(period), 2),
        "native": native_module.native.threads() if native_module.native is not None else None,
        "FUSEDX_THREADS": os.environ.get("FUSEDX_THREADS"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def huge_pages() -> dict[str, Any]:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    chosen = re.search(r"\[(\w+)\]", setting.read_text()) if setting.is_file() else None
    return {"transparent": chosen[1] if chosen else None}


def _gpu_obstacle(g: dict[str, Any]) -> str | None:
    if g.get("reason") or "error" in g:
        return g.get("reason") or g["error"]
    lacking = [name for name in ("torch", "triton") if "not installed" in g[name] or "CPU build" in g[name]]
    return f"{', '.join(f'{name} {g[name]}' for name in lacking)}" if lacking else None


def ready(found: dict[str, Any]) -> dict[str, str | None]:
    """Task -> None when it can be done here, else what is in the way."""
    encoder = found["encoders"].get("openvino", found["encoders"].get("error"))

    def lacking(names: Iterable[str]) -> str | None:
        bad = [name for name in names if (p := found["packages"][name])["version"] is None or p["problem"]]
        return f"{', '.join(bad)} missing or broken: pip install" if bad else None

    from fusedx.compiler.compile import PACKAGES, QUANTIZE_PACKAGES

    pyarrow = found["packages"]["pyarrow"]
    return {
        "classify": encoder and f"the default encoder cannot run: {encoder}",
        "use a GPU": _gpu_obstacle(found["gpu"]),
        "compile": (why := lacking(PACKAGES)) and f"{why} 'fusedx[compile]'",
        "compile an encoder in int8": (why := lacking({**PACKAGES, **QUANTIZE_PACKAGES})) and f"{why} 'fusedx[compile,quantize]'",
        "parquet": None if pyarrow["version"] and not pyarrow["problem"] else pyarrow["problem"] or "pip install 'fusedx[parquet]'",
    }
