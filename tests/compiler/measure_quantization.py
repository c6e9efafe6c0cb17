"""What an int8 encoder costs against float32, on pictures that it was not calibrated with:

    python measure_quantization.py [MODEL.fusedx] [IMAGES]

MODEL: of a float32 encoder; without, the demonstration's.  Pictures are drawings by tools/fundus.py.  For the int8 encoder as it is
made, and for one whose saliency trunk is int8 too (which quantize.py avoids): how many images get other regions, the median and worst
relative error of the prior and the feature, how often the prior's first class is another, bytes of weights, and milliseconds for one image.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tools")]

import numpy as np  # noqa: E402

import fundus  # noqa: E402
from fusedx.compiler import quantize, trunks  # noqa: E402
from fusedx.demo import MODEL  # noqa: E402
from fusedx.engine import compiled, preprocess  # noqa: E402
from fusedx.engine.encoder import Encoder, onnx_file, open_encoder  # noqa: E402
from fusedx.engine.encoder.network import output_shapes  # noqa: E402
from fusedx.engine.manifest import Manifest  # noqa: E402

CALIBRATED_WITH, REPEATS = 64, 30


def drawings(seed: int, count: int) -> np.ndarray:
    """float32 [count,3,224,224]."""
    return np.stack([preprocess.normalize(preprocess.to_square_uint8(fundus.draw(seed, i, i % 5))) for i in range(count)])


def milliseconds(encoder: Encoder, image: np.ndarray) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        encoder.run(image[None])
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


def main() -> None:
    model = Path(sys.argv[1] if len(sys.argv) > 1 else MODEL)
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 150
    network = Manifest.from_json((model / compiled.MANIFEST).read_text()).network
    graph = onnx_file.read(model / compiled.ENCODER)
    known, new = drawings(7, CALIBRATED_WITH), drawings(900_007, count)
    float32 = open_encoder("openvino", model / compiled.ENCODER)
    right = float32.run(new)
    size = onnx_file.data_file(model / compiled.ENCODER).stat().st_size
    print(f"float32: {size} bytes, {milliseconds(float32, new[0]):.1f} ms", flush=True)
    for title, also in (("int8", {}), ("int8, the saliency's trunk too", trunks.SALIENCY_TRUNK)):
        int8, _ = quantize.quantize_encoder(graph, network, known, trunks=trunks.TRUNKS | also)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / compiled.ENCODER
            onnx_file.write(int8, path, output_shapes(network), 224)
            encoder, size = open_encoder("openvino", path), onnx_file.data_file(path).stat().st_size
            got = encoder.run(new)
        report = quantize._report(int8, right, got)
        other = int((got["prior"].argmax(axis=1) != right["prior"].argmax(axis=1)).sum())
        (p, worst_p), (f, worst_f) = report.prior_error, report.feature_error
        print(
            f"{title}: {size} bytes, {milliseconds(encoder, new[0]):.1f} ms; of {count} images other regions {report.regions_changed}, "
            f"another first class {other}; prior {p:.1e} (worst {worst_p:.1e}), feature {f:.1e} (worst {worst_f:.1e})",
            flush=True,
        )


if __name__ == "__main__":
    main()
