"""Builds a TensorRT plan of the typed encoder graph: one optimisation profile a batch bucket, TF32 off, timings kept."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from fusedx.engine.encoder import onnx_file
from fusedx.engine.encoder.tensorrt.libraries import collector, said, start, version
from fusedx.engine.encoder.tensorrt.typed import OPSET, typed
from fusedx.engine.errors import UnavailableError
from fusedx.engine.manifest import IMAGE_SIZE

log = logging.getLogger("fusedx")

#: The one input, and its shape without the batch.
INPUT = "image"
IMAGE = (3, IMAGE_SIZE, IMAGE_SIZE)
#: Scratch memory that one layer may ask for.  ResNet-50 at 256 images stays below; the default is the whole device.
WORKSPACE = 4 << 30


def build_plan(
    trt: Any,
    encoder: Path,
    precision: str,
    buckets: tuple[int, ...],
    *,
    version_compatible: bool = False,
    timing: bytes = b"",
) -> tuple[bytes, bytes]:
    """(plan, timing cache) of a compiled model's encoder.onnx, for the current CUDA device.

    trt: the full TensorRT module.  buckets: batch sizes.  version_compatible: restrict the plan to what newer releases and the lean
    runtime can run.  timing: an earlier build's.  Raises UnavailableError with what TensorRT said.
    """
    logger = collector(trt)
    builder = start(trt.Builder, logger)
    network = builder.create_network(_flags(trt))
    with tempfile.TemporaryDirectory(prefix="fusedx-") as folder:
        path = Path(folder) / "encoder.onnx"
        write_typed(encoder, precision, path)
        parser = trt.OnnxParser(network, logger)
        if not parser.parse_from_file(str(path)):
            raise UnavailableError(f"TensorRT {trt.__version__} cannot parse the encoder: {_parser_errors(parser)}")
        config = _configure(trt, builder, buckets, version_compatible)
        cache = _timing_cache(config, timing)
        log.info("TensorRT plan: building %s for batches of %s; this takes minutes", precision, ", ".join(map(str, buckets)))
        started = time.monotonic()
        plan = builder.build_serialized_network(network, config)  # the parser may still read the file's weights
    if plan is None:
        raise UnavailableError(f"TensorRT {trt.__version__} cannot build the encoder: {said(logger)}")
    log.info("TensorRT plan: built in %.0f s", time.monotonic() - started)
    return _bytes(plan), _bytes(cache.serialize())


def _flags(trt: Any) -> int:
    """Release 11 knows strongly typed networks only and ignores the flag; 10 needs it."""
    return 0 if version(trt) >= (11,) else 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def write_typed(encoder: Path, precision: str, path: Path) -> None:
    """Write the typed graph of a compiled model's encoder.onnx, and its weights beside it."""
    try:
        import onnx
        from onnx.helper import tensor_dtype_to_np_dtype
    except ImportError as error:
        raise UnavailableError(f"building a TensorRT plan needs the onnx package: pip install 'fusedx[tensorrt]' ({error})") from None
    graph = typed(onnx_file.read(encoder), precision)  # reading checks the file before a parser that trusts it
    shapes = {}
    for output in onnx.load(encoder, load_external_data=False).graph.output:
        tensor = output.type.tensor_type
        shape = tuple(d.dim_param or d.dim_value for d in tensor.shape.dim)
        shapes[output.name] = shape, tensor_dtype_to_np_dtype(tensor.elem_type).type
    onnx_file.write(graph, path, shapes, IMAGE_SIZE, OPSET)


def _configure(trt: Any, builder: Any, buckets: tuple[int, ...], version_compatible: bool) -> Any:
    flag = trt.BuilderFlag
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    config.clear_flag(flag.TF32)  # on by default; it would round float32 products to ten bits
    if hasattr(flag, "DISTRIBUTIVE_INDEPENDENCE"):  # since 10.12: the same operations for every row, so equal rows give equal bits
        config.set_flag(flag.DISTRIBUTIVE_INDEPENDENCE)
    if version_compatible:
        config.set_flag(flag.VERSION_COMPATIBLE)
        config.set_flag(flag.EXCLUDE_LEAN_RUNTIME)  # a copy of the runtime in every plan; the lean package has it
    for bucket in buckets:  # one shape a profile: CUDA graphs fix it anyway, and kernels are chosen for it
        profile = builder.create_optimization_profile()
        shape = trt.Dims((bucket, *IMAGE))
        profile.set_shape(INPUT, shape, shape, shape)
        if config.add_optimization_profile(profile) < 0:
            raise UnavailableError(f"TensorRT refuses a batch of {bucket} images")
    return config


def _timing_cache(config: Any, timing: bytes) -> Any:
    """Attach ``timing``; what TensorRT does not accept, because it is damaged or of another device, is replaced by an empty one."""
    cache = config.create_timing_cache(timing)
    if cache is not None and config.set_timing_cache(cache, False):
        return cache
    log.info("TensorRT plan: the timing cache is not usable and starts empty")
    cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, False)
    return cache


def _parser_errors(parser: Any) -> str:
    errors = (parser.get_error(i) for i in range(parser.num_errors))
    return "; ".join(f"{e.node_operator()} {e.node_name()}: {e.desc()}" for e in errors)[:1500] or "it gave no reason"


def _bytes(memory: Any) -> bytes:
    """IHostMemory offers the buffer protocol."""
    return memoryview(memory).tobytes()
