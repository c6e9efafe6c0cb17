"""One classification by the edge runner in a process where torch and onnx cannot be imported: MODEL DRIVER CHAIN RESIZE -> label."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

for name in ("torch", "triton", "onnx", "pytest", "openvino"):
    sys.modules[name] = None

import fake_driver  # noqa: E402
import fake_edge  # noqa: E402
import fake_pycuda  # noqa: E402
import numpy as np  # noqa: E402

from fusedx.engine.cuda import driver  # noqa: E402
from fusedx.engine.edge import EdgeModel  # noqa: E402

model, library, chain, resize = sys.argv[1:]
driver.LIBRARY = library
fake = fake_driver.FakeDriver(Path(library))
fake.set(sms=1)
sys.modules.update(fake_pycuda.modules(fake.library))
fake_edge.install(fake, ctypes.CDLL(chain), ctypes.CDLL(resize), setattr)

frame = np.random.default_rng(3).integers(0, 256, (250, 301, 3), np.uint8)
found = EdgeModel.open(model, precision="fp32").classify(frame, draws=1, seed=5)
print(found.image_sha256, *(float(x).hex() for x in found.result.scores))
