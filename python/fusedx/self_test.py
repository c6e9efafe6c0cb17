"""A known answer inside a compiled model: what it said, when it was compiled, of a picture that every program can make.

``fusedx verify`` and the library's fx_self_test ask again and compare: they find a model, an encoder library or a processor that does not
compute what was compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fusedx.engine.backends import available as backends
from fusedx.engine.encoder import available as encoders
from fusedx.engine.errors import FusedxError
from fusedx.engine.manifest import IMAGE_SIZE, SelfTest

if TYPE_CHECKING:
    from fusedx.engine.compiled import CompiledModel
    from fusedx.model import Model

SEED, DRAWS = 0, 2
#: By how much a probability may differ between machines and encoder libraries.  The chain has the same bits everywhere, but for the
#: python backend, which rounds no activation; the encoder has not, and what differs there by 1e-6 crosses a rounding here and there.
TOLERANCE = {"fp32": 1e-4, "bf16": 1e-4, "fp16": 1e-4, "int8": 1e-2, "int4": 1e-2}
#: The same for an encoder in int8, whose roundings differ between instruction sets.
INT8_ENCODER = 5e-2
#: Digits that are stored: finer than any tolerance.
_DIGITS = 7


def image() -> np.ndarray:
    """uint8 [224,224,3]: value(r, c, ch) = (3 r + 5 c + 40 ch + ((r c) >> 4)) & 255."""
    r, c, ch = np.ogrid[:IMAGE_SIZE, :IMAGE_SIZE, :3]
    return ((3 * r + 5 * c + 40 * ch + ((r * c) >> 4)) & 255).astype(np.uint8)


def record(compiled: CompiledModel) -> tuple[SelfTest | None, str | None]:
    """Ask a model that was just made.  (record, None), or (None, why there is none)."""
    if (reason := encoders()["openvino"]) is not None:
        return None, f"no self test was recorded: {reason}"
    m = compiled.manifest
    try:
        probabilities = answer(_open(compiled), SEED, DRAWS)
    except FusedxError as error:  # such as weights that overflow on this picture
        return None, f"no self test was recorded: {error}"
    tolerance = max(TOLERANCE[m.precision], INT8_ENCODER if m.encoder_precision == "int8" else 0.0)
    return SelfTest(SEED, DRAWS, tuple(round(p, _DIGITS) for p in probabilities.tolist()), tolerance), None


def answer(model: Model, seed: int, draws: int) -> np.ndarray:
    """Probabilities of the procedural image, float64 [C]."""
    return model.classify(image(), seed=seed, draws=draws).probabilities


def difference(model: Model) -> float | None:
    """The largest difference between a model's answer now and its record; None where it has no record."""
    record = model.manifest.self_test
    if record is None:
        return None
    return float(np.abs(answer(model, record.seed, record.draws) - np.array(record.probabilities)).max())


def _open(compiled: CompiledModel) -> Model:
    from fusedx.inputs import ReadOptions
    from fusedx.model import Model
    from fusedx.opening import open_engine

    backend = "native" if backends()["native"] is None else "python"
    engine, preparation = open_engine(compiled, None, precision=None, backend=backend, encoder="openvino")
    return Model(compiled, engine, "cpu", preparation, ReadOptions(exif_orientation="ignore"))
