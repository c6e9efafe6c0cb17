"""The demonstration: the shipped model on the shipped drawings and, where scikit-image is installed, on a real photograph."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fusedx
from fusedx.engine.errors import UnavailableError
from fusedx.engine.sampler import WORK
from fusedx.results import OutputError

if TYPE_CHECKING:
    from fusedx.model import Model
    from fusedx.prediction import Prediction

HERE = Path(__file__).resolve().parent
MODEL = HERE / "model.fusedx"
IMAGES = HERE / "images"
NOTICE = "Demonstration only. Trained on drawings, not on patients. Not for clinical use."
_NAME, _LABEL = 34, 17


def pictures() -> list[Path]:
    """The shipped images, and scikit-image's ``retina`` photograph where it is installed; nothing is downloaded."""
    shipped = sorted(path for path in IMAGES.glob("*") if path.suffix in (".jpg", ".png"))
    return shipped + ([real] if (real := retina()) else [])


def retina() -> Path | None:
    """scikit-image's fundus photograph, found without importing scikit-image (whose loader may go to the network)."""
    spec = find_spec("skimage")
    path = Path(spec.origin).parent / "data" / "retina.jpg" if spec and spec.origin else None
    return path if path and path.is_file() else None


def run(output: Path, draws: int) -> Iterator[str]:
    """Do it all, yielding lines to show.  UnavailableError when this installation lacks the model or the images."""
    if not MODEL.is_dir() or not pictures():
        what = "images" if MODEL.is_dir() else "model"
        raise UnavailableError(
            f"the demonstration's {what} is missing from this installation ({MODEL if what == 'model' else IMAGES}); "
            "install fusedx from a wheel or a full checkout"
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output} is not a folder that can be made: {error.strerror}") from None
    model = fusedx.load(MODEL)
    yield NOTICE
    yield ""
    yield f"model: {model.manifest.family}, {len(model.classes)} classes, {model.manifest.schedule.steps} steps, {draws} draws"
    yield ""
    yield _line("image", "label", "p", "prior says", "stable", "ms")
    model.classify(pictures()[0], draws=draws)  # warm-up: the first request also prepares the machine
    for path in pictures():
        prediction = model.classify(path, draws=draws)
        _draw(model, path, draws, output)
        yield _row(path, prediction)
    yield ""
    yield f"stable: share of the {draws} draws that give this label by themselves."
    yield "ms: from reading the file to the result, after one warm-up."
    if retina():
        yield "retina.jpg is a real photograph (scikit-image's data.retina), the others are drawings."
    else:
        yield "All of these are drawings; for a real photograph as well: pip install 'fusedx[demo]'"
    yield from _accuracy(model.manifest.metrics)
    yield f"explanation pictures: {output}{'/' if str(output)[-1:] != '/' else ''}"
    yield ""
    yield NOTICE


def _draw(model: Model, path: Path, draws: int, output: Path) -> None:
    from fusedx.explain import explain
    from fusedx.results.png import save_png

    save_png(explain(model, path, draws=draws), output / f"{path.stem}.png")


def _row(path: Path, p: Prediction) -> str:
    prior = p.classes[int(p.prior.argmax())]
    milliseconds = 1000 * sum(seconds for stage, seconds in p.timing.items() if stage not in WORK)
    return _line(path.name, p.label, f"{p.probabilities[p.index]:.3f}", prior, f"{p.stability:.0%}", f"{milliseconds:.0f}")


def _line(name: str, label: str, probability: str, prior: str, stability: str, milliseconds: str) -> str:
    return f"{name:<{_NAME}}{label:<{_LABEL}}{probability:>5}  {prior:<{_LABEL}}{stability:>6}{milliseconds:>6}"


def _accuracy(metrics: dict[str, Any]) -> Iterator[str]:
    """The held-out accuracies as the training script recorded them."""
    found = {name: value for name, value in metrics.items() if "accuracy" in name and isinstance(value, (int, float))}
    if found:
        count = metrics.get("held_out_images")
        shares = ", ".join(f"{name.replace('_accuracy', '').replace('_', ' ')} {value:.1%}" for name, value in found.items())
        yield f"accuracy on {f'{count} ' if count else ''}held-out drawings: {shares}"
