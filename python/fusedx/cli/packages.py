"""The third-party packages that fusedx can use, whether they are there, and whether they work."""

from __future__ import annotations

import warnings
from importlib import import_module, metadata
from typing import Any, NamedTuple


class Package(NamedTuple):
    """distribution: as pip calls it.  module: imported to see whether it works; empty where that would take seconds."""

    distribution: str
    module: str
    purpose: str
    install: str


_OWN = "pip install --force-reinstall fusedx"
PACKAGES = (
    Package("numpy", "numpy", "everything", _OWN),
    Package("pillow", "PIL.Image", "images", _OWN),
    Package("openvino", "openvino", "default encoder", _OWN),
    Package("pydicom", "pydicom", "DICOM", _OWN),
    Package("rich", "rich", "progress bar", _OWN),
    Package("torch", "", "compile, encoder", "pip install 'fusedx[compile]'"),
    Package("onnx", "onnx", "compile", "pip install 'fusedx[compile]'"),
    Package("pyyaml", "yaml", "compile", "pip install 'fusedx[compile]'"),
    Package("nncf", "", "encoders in int8", "pip install 'fusedx[quantize]'"),
    Package("onnxruntime", "onnxruntime", "encoder, encoders in int8", "pip install 'fusedx[onnxruntime]'"),
    Package("pyarrow", "pyarrow.parquet", "Parquet", "pip install 'fusedx[parquet]'"),
    Package("scikit-image", "skimage", "demo photograph", "pip install 'fusedx[demo]'"),
    Package("pylibjpeg", "pylibjpeg", "DICOM", "pip install pylibjpeg"),
    Package("pylibjpeg-libjpeg", "libjpeg", "DICOM JPEG", "pip install pylibjpeg-libjpeg (GPL-3.0)"),
    Package("pylibjpeg-openjpeg", "openjpeg", "DICOM JPEG 2000", "pip install pylibjpeg-openjpeg"),
    Package("pyjpegls", "jpeg_ls", "DICOM JPEG-LS", "pip install pyjpegls"),
    Package("python-gdcm", "gdcm", "DICOM, all kinds", "pip install 'fusedx[dicom]'"),
)


def packages() -> dict[str, dict[str, Any]]:
    """distribution -> version (None: not installed), purpose, problem (why it does not import), install."""
    return {p.distribution: _state(p) for p in PACKAGES}


def _state(p: Package) -> dict[str, Any]:
    version = _version(p.distribution)
    problem = problem_of(p.module) if version and p.module else None
    return {"version": version, "purpose": p.purpose, "problem": problem, "install": p.install if problem or not version else None}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
    except Exception as error:  # damaged metadata
        return f"unknown ({type(error).__name__})"


def problem_of(module: str) -> str | None:
    """Why a module does not import; None when it does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_module(module)
    except Exception as error:  # a broken package may raise anything
        return f"it is installed and does not import: {type(error).__name__}: {error}"
    return None
