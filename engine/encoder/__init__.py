"""Who evaluates encoder.onnx.  Chosen by name from one table; an unavailable choice is an error that lists the rest."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fusedx.engine.choice import require_usable
from fusedx.engine.errors import UnavailableError


class Encoder(Protocol):
    """image -> prior, regions, features.

    Convolution libraries change their summation order with the batch, so an encoder evaluates one image a request: the same
    image gives the same bits alone and among others.
    """

    name: str
    #: Of its arithmetic: fp64 | fp32, bf16 or fp16 on a device; int8 weights are what the graph that it runs says.
    precision: str

    def run(self, images: Any) -> Mapping[str, np.ndarray]:
        """float32 [B,3,224,224], normalised -> every graph output by name, first dimension B.

        images: an array on the host; an encoder on a device takes what lies there too.
        """


#: Encoder, and module of this package -> (what it needs, how to get it).  Each module has ``open_file(path, threads)``.
_NEEDS = {
    "openvino": ("openvino", "pip install openvino"),
    "onnxruntime": ("onnxruntime", "pip install 'fusedx[onnxruntime]'"),
    "torch": ("torch", "pip install 'fusedx[torch]'"),
    "reference": ("numpy", ""),
}


def available() -> dict[str, str | None]:
    """Encoder name -> None when usable, otherwise the reason why not."""
    return {name: None if find_spec(module) else f"{module} is not installed ({how})" for name, (module, how) in _NEEDS.items()}


def open_encoder(name: str, path: Path, threads: int | None = None) -> Encoder:
    """Encoder by name or ``auto``, ready to run.  ``threads``: CPU threads a request may use, None for all."""
    if name == "auto":
        # The reference is for checking, and takes minutes where the others take milliseconds.
        usable = [n for n, reason in available().items() if reason is None and n != "reference"]
        name = usable[0] if usable else "openvino"
    require_usable("encoder", name, available(), also=("auto",))
    try:
        module = import_module(f"fusedx.engine.encoder.{name}")
    except ImportError as error:
        raise UnavailableError(f"encoder {name!r} cannot run here: it is installed and does not import ({error})") from error
    encoder: Encoder = module.open_file(path, threads)
    return encoder
