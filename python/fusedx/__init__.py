"""fusedx runs diffusion-based medical image classifiers fast, exactly and reproducibly.

    import fusedx

    model = fusedx.load("aptos.fusedx")
    prediction = model.classify("fundus.png")
    print(prediction.label, prediction.probabilities)

Importing this package imports nothing else; each name below is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "load": "fusedx.model",
    "Model": "fusedx.model",
    "Prediction": "fusedx.prediction",
    "Failure": "fusedx.prediction",
    "ReadOptions": "fusedx.inputs",
    "Sampler": "fusedx.engine.sampling",
    "compile_checkpoint": "fusedx.compiler",
    "FusedxError": "fusedx.engine.errors",
    "CheckpointError": "fusedx.engine.errors",
    "ConfigError": "fusedx.engine.errors",
    "InputError": "fusedx.engine.errors",
    "ModelFormatError": "fusedx.engine.errors",
    "UnavailableError": "fusedx.engine.errors",
}
__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from fusedx.compiler import compile_checkpoint as compile_checkpoint
    from fusedx.engine.errors import CheckpointError as CheckpointError
    from fusedx.engine.errors import ConfigError as ConfigError
    from fusedx.engine.errors import FusedxError as FusedxError
    from fusedx.engine.errors import InputError as InputError
    from fusedx.engine.errors import ModelFormatError as ModelFormatError
    from fusedx.engine.errors import UnavailableError as UnavailableError
    from fusedx.engine.sampling import Sampler as Sampler
    from fusedx.inputs import ReadOptions as ReadOptions
    from fusedx.model import Model as Model
    from fusedx.model import load as load
    from fusedx.prediction import Failure as Failure
    from fusedx.prediction import Prediction as Prediction


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'fusedx' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
