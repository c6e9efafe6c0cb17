"""What half precision costs an encoder, against float32 on the same images: python measure_precision.py [IMAGES]

For two golden cases (made-up images) and the demonstration model (its drawings, turned and mirrored), by precision:
how many images get other regions or another order of them, the largest relative distance of neighbouring region scores among these,
and the worst relative error of one image in one output.  `bf16, all half` is what typed.py avoids.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "python"), str(Path(__file__).parent)]

import golden_encoder  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from typed_emulator import Emulator  # noqa: E402

from fusedx import golden  # noqa: E402
from fusedx.demo import IMAGES, MODEL  # noqa: E402
from fusedx.engine import preprocess  # noqa: E402
from fusedx.engine.encoder import onnx_file  # noqa: E402
from fusedx.engine.encoder.graph import Graph  # noqa: E402
from fusedx.engine.encoder.tensorrt import typed  # noqa: E402
from fusedx.engine.encoder.tensorrt.check import CHOSEN, region_margins  # noqa: E402

EXCEPTION = typed._FULL_ALSO["bf16"]


def run(graph: Graph, precision: str, images: np.ndarray) -> dict[str, np.ndarray]:
    emulator = Emulator(typed.typed(graph, precision))
    parts = [emulator.run(images[i : i + 4]) for i in range(0, len(images), 4)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def drawings() -> np.ndarray:
    """float32 [48,3,224,224]."""
    squares = [preprocess.to_square_uint8(np.asarray(Image.open(path).convert("RGB"))) for path in sorted(IMAGES.glob("*.jpg"))]
    turned = [np.rot90(square, k) for square in squares for k in range(4)]
    both = [view for image in turned for view in (image, image[:, ::-1])]
    return np.stack([preprocess.normalize(np.ascontiguousarray(view)) for view in both])


def worst_error(got: dict[str, np.ndarray], right: dict[str, np.ndarray], same: np.ndarray) -> tuple[float, str]:
    """(relative error, output) of the worst image; what follows from the regions counts where these are the same."""
    errors = []
    for name in right:
        for i in range(len(same)):
            if name != "patch_locations" and (same[i] or name not in CHOSEN):
                errors.append((float(np.linalg.norm(got[name][i] - right[name][i]) / np.linalg.norm(right[name][i])), name))
    return max(errors)


def report(title: str, graph: Graph, images: np.ndarray) -> None:
    right = run(graph, "fp32", images)
    margins = region_margins(right["saliency"])
    for name, also in (("fp16", ()), ("bf16", EXCEPTION), ("bf16, all half", ())):
        typed._FULL_ALSO["bf16"] = also
        got = run(graph, name[:4], images)
        same = (got["patch_locations"] == right["patch_locations"]).all(axis=(1, 2))
        tie = f", ties to {margins[~same].max():.1e}" if not same.all() else ""
        error, output = worst_error(got, right, same)
        print(f"{title}, {name}: other regions {(~same).sum()} of {len(same)}{tie}; worst error {error:.1e} ({output})", flush=True)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    images = golden.image(1234, "x", (count, 3, 224, 224))
    for case in ("v1-small", "v2-small"):
        report(case, golden_encoder.build(case), images)
    report("demonstration", onnx_file.read(Path(MODEL) / "encoder.onnx"), drawings())


if __name__ == "__main__":
    main()
