"""Running a plan on addresses: what is refused before it reaches TensorRT, and what TensorRT refuses."""

from __future__ import annotations

import numpy as np
import pytest

from fusedx.engine.encoder.tensorrt.build import build_plan
from fusedx.engine.encoder.tensorrt.runner import Plan
from fusedx.engine.errors import ConfigError, UnavailableError

STREAM = 0xABCD00


@pytest.fixture
def plan(fakes, toy_encoder):
    data, _ = build_plan(fakes.full, toy_encoder, "fp32", (1, 4))
    return Plan(fakes.full, data)


@pytest.fixture
def memory(plan):
    """execution, arrays by name, scratch address."""
    execution = plan.execution(4, STREAM)
    arrays = {name: np.zeros(tensor.shape, tensor.dtype) for name, tensor in execution.tensors.items()}
    scratch = np.zeros(execution.scratch_bytes + 256, np.uint8)
    return execution, arrays, -(-scratch.ctypes.data // 256) * 256, scratch


def addresses(arrays):
    return {name: array.ctypes.data for name, array in arrays.items()}


def test_shapes_types_and_sizes(plan):
    assert plan.buckets == (1, 4) and plan.scratch_bytes(4) == 4096
    tensors = plan.execution(4, STREAM).tensors
    assert tensors["image"].shape == (4, 3, 224, 224) and tensors["image"].nbytes == 4 * 3 * 224 * 224 * 4
    assert tensors["patch_locations"].dtype == np.int64 and tensors["patch_locations"].nbytes == 4 * 6 * 2 * 8
    assert set(plan.outputs) == set(tensors) - {"image"}


def test_a_run_writes_every_output(memory):
    execution, arrays, scratch, _ = memory
    execution.bind(addresses(arrays), scratch)
    assert not execution.prepared
    arrays["image"][...] = np.random.default_rng(0).normal(size=arrays["image"].shape)
    execution.enqueue(STREAM)
    assert execution.prepared and all(array.any() for array in arrays.values())
    execution.bind(addresses(arrays), scratch)
    assert not execution.prepared  # other addresses: not to be captured before another run


def test_two_executions_of_one_bucket_do_not_share_addresses(plan, memory, fakes):
    first, arrays, scratch, _ = memory
    second = plan.execution(4, STREAM + 256)
    other = {name: np.zeros_like(array) for name, array in arrays.items()}
    first.bind(addresses(arrays), scratch)
    second.bind(addresses(other), scratch)
    arrays["image"][...] = 1
    other["image"][...] = -1
    first.enqueue(STREAM)
    second.enqueue(STREAM + 256)
    assert not np.array_equal(arrays["feature"], other["feature"])
    assert fakes.machine.calls[-2:] == [f"run 4 on {STREAM}", f"run 4 on {STREAM + 256}"]


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_default_streams(stream, plan, memory):
    execution, arrays, scratch, _ = memory
    execution.bind(addresses(arrays), scratch)
    with pytest.raises(ConfigError, match="default stream"):
        execution.enqueue(stream)
    with pytest.raises(ConfigError, match="default stream"):
        plan.execution(1, stream)


@pytest.mark.parametrize("bucket", [0, 2, 3, 256])
def test_no_such_bucket(bucket, plan):
    with pytest.raises(ConfigError, match=f"no bucket of {bucket} images; it has 1, 4"):
        plan.execution(bucket, STREAM)


def test_addresses_that_cannot_be(memory):
    execution, arrays, scratch, _ = memory
    with pytest.raises(ConfigError, match="bind addresses before"):
        execution.enqueue(STREAM)
    good = addresses(arrays)
    with pytest.raises(ConfigError, match="addresses are needed for .*image"):
        execution.bind({k: v for k, v in good.items() if k != "image"}, scratch)
    with pytest.raises(ConfigError, match="addresses are needed for"):
        execution.bind(good | {"logits": 4096}, scratch)
    with pytest.raises(ConfigError, match="the address of feature is null"):
        execution.bind(good | {"feature": 0}, scratch)
    for wrong in (0, scratch + 1, scratch + 128):
        with pytest.raises(ConfigError, match="aligned to 256"):
            execution.bind(good, wrong)


def test_a_run_that_tensorrt_refuses(memory, monkeypatch):
    execution, arrays, scratch, _ = memory
    execution.bind(addresses(arrays), scratch)
    monkeypatch.setattr(execution._context, "_scratch", None)
    with pytest.raises(UnavailableError, match="cannot run 4 images: an address was not set"):
        execution.enqueue(STREAM)
    assert not execution.prepared


def test_a_plan_of_another_version(fakes, toy_encoder):
    data, _ = build_plan(fakes.full, toy_encoder, "fp32", (1,))
    fakes.full.__version__ = "11.9.0"
    with pytest.raises(UnavailableError, match="cannot load the plan: built by 11.4.0.106, running 11.9.0"):
        Plan(fakes.full, data)


@pytest.mark.parametrize(
    ("method", "answer", "text"),
    [
        ("get_tensor_mode", lambda trt: trt.TensorIOMode.OUTPUT, "its inputs are none"),
        ("get_tensor_mode", lambda trt: trt.TensorIOMode.INPUT, "its inputs are image, saliency"),
        ("get_tensor_dtype", lambda trt: trt.DataType.HALF, "image is DataType.HALF"),
        ("get_tensor_location", lambda trt: trt.TensorLocation.HOST, "not of a fusedx encoder"),
        ("get_tensor_profile_shape", lambda trt: [trt.Dims((n, 3, 224, 224)) for n in (1, 2, 4)], "takes images from"),
        ("get_tensor_profile_shape", lambda trt: [trt.Dims((1, 3, 512, 512))] * 3, "takes images from"),
    ],
)
def test_a_plan_of_something_else(method, answer, text, fakes, toy_encoder, monkeypatch):
    data, _ = build_plan(fakes.full, toy_encoder, "fp32", (1,))
    logger = fakes.libraries.collector(fakes.full)
    engine = type(fakes.full.Runtime(logger).deserialize_cuda_engine(data))
    monkeypatch.setattr(engine, method, lambda self, *arguments: answer(fakes.full))
    with pytest.raises(UnavailableError, match=text):
        Plan(fakes.full, data)
