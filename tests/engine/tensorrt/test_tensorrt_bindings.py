"""The real binding classes of TensorRT: every name that the package uses is there, and takes what the stand-ins are given."""

from __future__ import annotations

import ast
import gc
from pathlib import Path

import binding_signatures as signatures
import pytest

from fusedx.engine.encoder.tensorrt import libraries
from fusedx.engine.errors import UnavailableError

PACKAGE = Path(libraries.__file__).parent


def used_names(files: str = "*.py") -> set[str]:
    """Dotted names below a variable called ``trt``, and below the shorthands made of one."""
    found = set()
    for file in PACKAGE.glob(files):
        tree = ast.parse(file.read_text())
        short = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and (name := dotted(node.value, {})):
                short[node.targets[0].id] = name
        found |= {name for node in ast.walk(tree) if isinstance(node, ast.Attribute) and (name := dotted(node, short))}
    return found


def dotted(node: ast.expr, short: dict[str, str]) -> str | None:
    """``trt.A.B`` or ``self._trt.A.B`` -> "A.B"; anything else -> None."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or not parts:
        return None
    if node.id == "self" and parts[0] == "_trt":
        return ".".join(parts[1:]) or None
    if node.id == "trt":
        return ".".join(parts)
    return ".".join([short[node.id], *parts]) if node.id in short else None


def resolve(module, name: str):
    for part in name.split("."):
        module = getattr(module, part)
    return module


def missing(module, names: set[str]) -> list[str]:
    def there(name: str) -> bool:
        try:
            resolve(module, name)
        except AttributeError:
            return False
        return True

    return sorted(name for name in names if not there(name))


def test_every_name_exists(full):
    names = used_names()
    assert {"Builder", "BuilderFlag.TF32", "BuilderFlag.VERSION_COMPATIBLE", "MemoryPoolType.WORKSPACE", "Runtime", "Dims"} <= names
    assert {"DataType.INT64", "TensorIOMode.INPUT", "ILogger.Severity.INTERNAL_ERROR", "OnnxParser"} <= names
    assert missing(full, names) == []
    assert missing(full, {"BuilderFlag.FP16"}) == ["BuilderFlag.FP16"]  # gone in release 11, and the check sees it


def test_what_runs_plans_exists_in_the_lean_runtime(lean):
    names = used_names("runner.py") | used_names("libraries.py")
    assert {"Runtime", "ExecutionContextAllocationStrategy.USER_MANAGED", "TensorLocation.DEVICE", "ILogger"} <= names
    assert missing(lean, names) == []
    assert missing(lean, {"Builder", "OnnxParser"}) == ["Builder", "OnnxParser"]


def test_the_stand_ins_agree_with_both_modules(full, lean):
    """Making the fakes checks every method and property that they have; fewer in the lean runtime, the same names."""
    import fake_tensorrt

    machine = fake_tensorrt.Machine()
    assert hasattr(fake_tensorrt.module(full, machine), "Builder")
    assert not hasattr(fake_tensorrt.module(lean, machine), "Builder")


@pytest.mark.parametrize(
    ("owner", "method", "arguments", "text"),
    [
        ("IExecutionContext", "execute_async_v3", (), "needs stream_handle"),
        ("IExecutionContext", "execute_async_v3", ("7",), "stream_handle must be typing.SupportsInt, got str"),
        ("IExecutionContext", "execute_async_v3", (7, 8), "takes 1 arguments, got 2"),
        ("IExecutionContext", "set_input_shape", ("image", 3), "shape must be tuple"),
        ("IExecutionContext", "set_tensor_address", ("image", 1.5), "memory must be"),
        ("OnnxParser", "parse_from_file", (Path("x"),), "model must be str, got PosixPath"),
        ("IOptimizationProfile", "set_shape", ("image", (1,), (1,), (1,)), "min must be tensorrt_bindings.tensorrt.Dims, got tuple"),
        ("IBuilderConfig", "set_flag", (6,), "flag must be tensorrt_bindings.tensorrt.BuilderFlag"),
        ("IBuilderConfig", "create_timing_cache", (None,), "serialized_timing_cache must be typing_extensions.Buffer"),
        ("Runtime", "deserialize_cuda_engine", ("plan",), "serialized_engine must be typing_extensions.Buffer"),
    ],
)
def test_wrong_calls_are_found(owner, method, arguments, text, full):
    """The negative control of the signature check."""
    with pytest.raises(TypeError) as caught:
        signatures.check_call(getattr(full, owner), method, arguments, {})
    assert text in str(caught.value)


def test_a_stand_in_may_not_invent(full):
    with pytest.raises(AttributeError, match="IExecutionContext has no enqueue"):
        type("Wrong", (signatures.Standin,), {"enqueue": lambda self: None}, real=full.IExecutionContext)
    with pytest.raises(AttributeError, match="num_io_tensors is not a property in the stand-in"):
        type("Wrong", (signatures.Standin,), {"num_io_tensors": lambda self: 3}, real=full.ICudaEngine)


def test_what_the_real_classes_do_without_a_library(full):
    assert tuple(full.Dims((2, 3, 224, 224))) == (2, 3, 224, 224)
    assert int(full.NetworkDefinitionCreationFlag.STRONGLY_TYPED) >= 0
    logger = libraries.collector(full)
    severity = full.ILogger.Severity
    for level in (severity.VERBOSE, severity.INFO, severity.WARNING, severity.ERROR, severity.INTERNAL_ERROR):
        logger.log(level, f"at {level.name}")
    assert list(logger.lines) == ["at WARNING", "at ERROR", "at INTERNAL_ERROR"]
    assert libraries.said(logger) == "at WARNING | at ERROR | at INTERNAL_ERROR"
    assert libraries.said(libraries.collector(full)) == "it gave no reason"
    assert logger.failed
    assert libraries.version(full) >= libraries.OLDEST


@pytest.mark.parametrize("kind", ["Builder", "Runtime"])
def test_a_library_that_makes_nothing(kind, full):
    with pytest.raises(UnavailableError, match=f"{kind} does not start: it gave no reason"):
        libraries.start(getattr(full, kind), libraries.collector(full))


def test_a_runtime_that_only_logs_its_error(full):
    """As release 11.4 does where the driver is missing or too old; using or destroying it would end the process."""

    destroyed = []

    class Runtime:
        def __init__(self, logger) -> None:
            logger.log(full.ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")

        def __del__(self) -> None:
            destroyed.append(self)

    with pytest.raises(UnavailableError, match="Runtime does not start: CUDA initialization failure with error: 35"):
        libraries.start(Runtime, libraries.collector(full))
    gc.collect()
    assert not destroyed
