"""What an int8 encoder costs against float32, on pictures that it was not calibrated with.

    PYTHONPATH=python python benchmarks/bench_encoder_int8.py [MODEL.fusedx] [--images N]

MODEL: one with a float32 encoder, by default the demonstration's.  Pictures are drawings by tools/fundus.py.  For the int8 encoder as
``fusedx compile`` makes it, and for one whose saliency trunk is int8 too: how many images get other regions, how often the prior's first
class is another, the median and worst relative error of prior and feature, bytes of weights, and milliseconds for one image.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tools"), str(ROOT / "benchmarks")]
import drawings  # noqa: E402
import machine  # noqa: E402
from fusedx.compiler import quantize, trunks  # noqa: E402
from fusedx.demo import MODEL  # noqa: E402
from fusedx.engine import compiled  # noqa: E402
from fusedx.engine.encoder import Encoder, network, onnx_file, open_encoder  # noqa: E402
from fusedx.engine.manifest import IMAGE_SIZE, Manifest  # noqa: E402

CALIBRATED_WITH, REPEATS = 64, 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=MODEL)
    parser.add_argument("--images", type=int, default=150, help="to try it on (default: %(default)s)")
    args = parser.parse_args()
    machine.show()
    manifest = Manifest.from_json((args.model / compiled.MANIFEST).read_text())
    if manifest.encoder_precision != "fp32":
        parser.error(f"{args.model}: its encoder is {manifest.encoder_precision}; expected a model with a float32 encoder")
    graph = onnx_file.read(args.model / compiled.ENCODER)
    known, new = drawings.images(7, CALIBRATED_WITH), drawings.images(900_007, args.images)
    float32 = open_encoder("openvino", args.model / compiled.ENCODER)
    right = float32.run(new)
    size = onnx_file.data_file(args.model / compiled.ENCODER).stat().st_size
    print(f"float32: {size} bytes, {milliseconds(float32, new[0]):.1f} ms", flush=True)
    for title, also in (("int8", {}), ("int8, the saliency's trunk too", trunks.SALIENCY_TRUNK)):
        int8, _ = quantize.quantize_encoder(graph, manifest.network, known, trunks=trunks.TRUNKS | also)
        with tempfile.TemporaryDirectory(prefix="fusedx-bench-") as folder:
            path = Path(folder) / compiled.ENCODER
            onnx_file.write(int8, path, network.output_shapes(manifest.network), IMAGE_SIZE)
            encoder, size = open_encoder("openvino", path), onnx_file.data_file(path).stat().st_size
            got = encoder.run(new)
            took = milliseconds(encoder, new[0])
        report = quantize.compare(int8, right, got)
        other = int((got["prior"].argmax(axis=1) != right["prior"].argmax(axis=1)).sum())
        (p, worst_p), (f, worst_f) = report.prior_error, report.feature_error
        print(
            f"{title}: {size} bytes, {took:.1f} ms; of {args.images} images other regions {report.regions_changed}, "
            f"another first class {other}; prior {p:.1e} (worst {worst_p:.1e}), feature {f:.1e} (worst {worst_f:.1e})",
            flush=True,
        )
    return 0


def milliseconds(encoder: Encoder, image: np.ndarray) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        encoder.run(image[None])
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


if __name__ == "__main__":
    sys.exit(main())
