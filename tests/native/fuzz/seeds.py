"""Seeds for the fuzzers, from compiled models: python seeds.py OUT MODEL...

OUT/manifest, OUT/safetensors, OUT/onnx and OUT/image get one small valid file for each thing a fuzzer should know of.  The tensors'
sizes (F 3, C 2, T 2) are those that safetensors.cpp expects.
"""

from __future__ import annotations

import json
import struct
import sys
from itertools import product
from pathlib import Path

_PACKED = {  # of a [3, 3] matrix: part -> (shape, dtype, bytes of an element), as kernels/conditional_layer/packed.py
    "fp32": {"": ([3, 3], "F32", 4)},
    "bf16": {".panels": ([1, 3, 32], "BF16", 2)},
    "fp16": {".panels": ([1, 3, 32], "F16", 2)},
    "int8": {".panels": ([1, 1, 64, 4], "I8", 1), ".scale": ([3], "F32", 4)},
    "int4": {".panels": ([1, 1, 8, 64, 4], "U8", 1), ".scale": ([1, 1, 64], "F16", 2)},
}


def padded(precision: str) -> bytes:
    """The panels of a [3, 3] matrix of ones (int4: of 1, stored as 9): zeros past the third output and input."""
    if precision in ("bf16", "fp16"):
        one = b"\x80\x3f" if precision == "bf16" else b"\0\x3c"
        return (one * 3 + bytes(2 * 29)) * 3
    if precision == "int8":
        return b"\1\1\1\0" * 3 + bytes(61 * 4)
    return b"\x89\x89\x89\x88" * 3 + b"\x88" * (61 * 4 + 7 * 64 * 4)


def denoiser(precision: str, columns: int) -> bytes:
    """A whole denoiser.safetensors, all elements 1 but for padding."""
    entries = {"coefficients": ([2, columns], "F64", 8)}
    entries |= {name: ([3, 2], "F32", 4) for name in ("weight_y", "weight_p")} | {"weight4": ([2, 3], "F32", 4), "bias4": ([2], "F32", 4)}
    entries |= {f"{kind}{k}": ([2, 3], "F32", 4) for k in (1, 2, 3) for kind in ("scale", "shift")}
    entries |= {f"{name}{part}": entry for name in ("weight2", "weight3") for part, entry in _PACKED[precision].items()}
    one = {"F64": struct.pack("<d", 1), "F32": struct.pack("<f", 1), "F16": b"\0\x3c"}
    header, data = {}, b""
    for name, (shape, dtype, item) in sorted(entries.items(), key=lambda e: -e[1][2]):
        count = 1
        for n in shape:
            count *= n
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + count * item]}
        data += padded(precision) if name.endswith(".panels") else one[dtype] * count
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def write(out: Path, models: list[Path]) -> None:
    """The three folders of seeds."""
    for name in ("manifest", "safetensors", "onnx", "image"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for precision in _PACKED:
        for columns in (6, 4):
            (out / "safetensors" / f"{precision}-{columns}").write_bytes(denoiser(precision, columns))
    for pixel, (width, height, pad, sign) in product((1, 2, 3), ((2, 2, 0, 1), (31, 17, 5, 1), (300, 200, 0, -1), (5, 240, 3, -1))):
        stride = sign * (width * {1: 3, 2: 1, 3: 2}[pixel] + pad)
        (out / "image" / f"{pixel}-{width}").write_bytes(struct.pack("<qqqi", width, height, stride, pixel) + bytes(range(64)))
    for i, model in enumerate(models):
        manifest = json.loads((model / "manifest.json").read_text(encoding="utf-8"))
        (out / "manifest" / f"{i}").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        manifest |= {"encoder_precision": "int8", "notes": ["\u00e9\U0001f600"], "metrics": {"a": [1.5e-3, None, True, {"b": -1}]}}
        classes = len(manifest["classes"])
        manifest["self_test"] = {"seed": (1 << 64) - 1, "draws": 1, "probabilities": [1 / classes] * classes, "tolerance": 1e-5}
        (out / "manifest" / f"{i}-more").write_text(json.dumps(manifest), encoding="utf-8")
        (out / "onnx" / f"{i}").write_bytes((model / "encoder.onnx").read_bytes())


if __name__ == "__main__":
    write(Path(sys.argv[1]), [Path(model) for model in sys.argv[2:]])
