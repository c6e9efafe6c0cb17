"""eps with its Jacobian, on each backend: eps the same bits as without, the Jacobian its derivative."""

from __future__ import annotations

import numpy as np
import pytest

from fusedx.engine.backends import Condition, Differentiable
from fusedx.engine.backends.native import NativeChains
from fusedx.engine.backends.python import PythonDenoiser
from fusedx.engine.denoiser import DenoiserTables, StoredDenoiser, stored_shapes
from fusedx.engine.manifest import Network
from fusedx.engine.sampler import Plan
from fusedx.engine.schedule import Schedule, chain_program
from fusedx.kernels import native_module
from fusedx.kernels.conditional_layer import packed

native = pytest.mark.skipif(native_module.native is None, reason=f"fusedx._native is not built: {native_module.reason}")
STEPS = 5
SCHEDULE = Schedule("linear", 1e-4, 0.02, 1000, STEPS)


def network(classes: int, width: int) -> Network:
    return Network("diffmic-v1", classes, width, "resnet18", "resnet18", 64)


def tables(classes: int, width: int = 70) -> DenoiserTables:
    """float32, of ordinary sizes, some softplus inputs far on either side."""
    rng = np.random.default_rng([classes, width])
    arrays = {}
    for name, (shape, _) in stored_shapes(network(classes, width), STEPS, "fp32").items():
        if name != "coefficients":
            size = shape[-1] ** -0.5 if name.startswith("weight") else 5.0 if name == "shift2" else 1.0
            arrays[name] = (size * rng.normal(size=shape)).astype(np.float32)
    return DenoiserTables(**arrays)


def rows(classes: int, count: int, width: int = 70) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(y, step, entry, prior, feature) of ``count`` rows and three entries."""
    rng = np.random.default_rng([classes, count, 1])
    y, step, entry = rng.normal(size=(count, classes)), rng.integers(0, STEPS, count), rng.integers(0, 3, count)
    return y, step.astype(np.int32), entry.astype(np.int32), rng.random((3, classes)), rng.normal(size=(3, width))


def in_float64(found: DenoiserTables) -> DenoiserTables:
    return DenoiserTables(**{name: array.astype(np.float64) for name, array in found.arrays().items()})


def compiled(found: DenoiserTables, precision: str):
    """(the native denoiser, the float64 tables of what it holds)."""
    classes, width = found.weight4.shape
    coefficients = chain_program(SCHEDULE, v2=False).coefficients
    stored = StoredDenoiser.pack(found, network(classes, width), coefficients, precision)
    return NativeChains(stored, SCHEDULE).denoiser, in_float64(stored.tables())


@pytest.mark.parametrize("classes", [2, 3, 7, 15])
def test_the_reference_against_differences(classes: int) -> None:
    denoiser = PythonDenoiser(in_float64(tables(classes)))
    y, step, entry, prior, feature = rows(classes, 9)
    condition = denoiser.condition(prior, feature)
    eps, jacobian = denoiser.eps_and_jacobian(y, step, condition, entry)
    assert isinstance(denoiser, Differentiable) and eps.tobytes() == denoiser.eps(y, step, condition, entry).tobytes()
    assert jacobian.shape == (9, classes, classes) and jacobian.dtype == np.float64
    for d in range(classes):
        move = 1e-6 * np.eye(classes)[d]
        change = (denoiser.eps(y + move, step, condition, entry) - denoiser.eps(y - move, step, condition, entry)) / 2e-6
        np.testing.assert_allclose(jacobian[:, :, d], change, rtol=1e-6, atol=1e-7 * np.abs(jacobian).max())


@pytest.mark.parametrize("count", [1, 4])
def test_float32_tables_give_a_row_the_same_in_any_company(count: int) -> None:
    denoiser = PythonDenoiser(tables(5))
    y, step, entry, prior, feature = rows(5, 9)
    condition = denoiser.condition(prior, feature)
    eps, jacobian = denoiser.eps_and_jacobian(y, step, condition, entry)
    part = denoiser.eps_and_jacobian(y[-count:], step[-count:], condition, entry[-count:])
    assert part[0].tobytes() == eps[-count:].tobytes() and part[1].tobytes() == jacobian[-count:].tobytes()


@native
@pytest.mark.parametrize("precision", packed.FORMATS)
@pytest.mark.parametrize("classes", [2, 3, 8, 15])
def test_the_compiled_denoiser(classes: int, precision: str) -> None:
    """Against float64 on the weights that it holds; in integers, approximate: activations and directions have 8 bits."""
    found, exact = compiled(tables(classes), precision)
    y, step, entry, prior, feature = rows(classes, 40)
    condition = found.condition(prior, feature)
    eps, jacobian = found.eps_and_jacobian(y, step, condition, entry)
    assert isinstance(found, Differentiable) and eps.tobytes() == found.eps(y, step, condition, entry).tobytes()
    reference = PythonDenoiser(exact)
    _, wanted = reference.eps_and_jacobian(y, step, reference.condition(prior, feature), entry)
    error = np.linalg.norm(jacobian - wanted) / np.linalg.norm(wanted)
    assert error <= (1e-5 if precision not in ("int8", "int4") else 0.05), f"relative error {error:.1e}"


@native
@pytest.mark.parametrize("precision", packed.FORMATS)
def test_a_row_of_the_compiled_denoiser_is_the_same_in_any_company(precision: str) -> None:
    found, _ = compiled(tables(5), precision)
    y, step, entry, prior, feature = rows(5, 130)
    condition = found.condition(prior, feature)
    eps, jacobian = found.eps_and_jacobian(y, step, condition, entry)
    for some in (np.array([0]), np.array([129, 3, 64]), np.random.default_rng(0).permutation(130)):
        part = found.eps_and_jacobian(y[some], step[some], condition, entry[some])
        assert part[0].tobytes() == eps[some].tobytes() and part[1].tobytes() == jacobian[some].tobytes()


@native
def test_more_classes_than_one_group_has_room_for() -> None:
    found, exact = compiled(tables(130), "fp32")
    y, step, entry, prior, feature = rows(130, 7)
    condition = found.condition(prior, feature)
    eps, jacobian = found.eps_and_jacobian(y, step, condition, entry)
    reference = PythonDenoiser(exact)
    _, wanted = reference.eps_and_jacobian(y, step, reference.condition(prior, feature), entry)
    assert eps.tobytes() == found.eps(y, step, condition, entry).tobytes()
    np.testing.assert_allclose(jacobian, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


@native
def test_no_rows() -> None:
    found, _ = compiled(tables(3), "fp32")
    none, index = np.empty((0, 3)), np.empty(0, np.int32)
    condition = Condition(np.ones((1, 70), np.float32), np.ones((1, 70), np.float32))
    eps, jacobian = found.eps_and_jacobian(none, index, condition, index)
    assert eps.shape == (0, 3) and jacobian.shape == (0, 3, 3)


@native
@pytest.mark.parametrize("variant", ["newton", "stale"])
@pytest.mark.parametrize("precision", packed.FORMATS)
@pytest.mark.parametrize("family", ["diffmic-v1", "diffmic-v2"])
def test_a_run_on_the_compiled_denoiser_has_the_sequential_bits(family: str, precision: str, variant: str) -> None:
    """Two draws of two images, each state of each chain."""
    steps, classes, width = (10 if family == "diffmic-v2" else 40), 5, 70
    v2 = family == "diffmic-v2"
    shape = Network(family, classes, width, "resnet18", "resnet18", 64, vit_width=64 * v2, vit_depth=int(v2))
    rng, schedule = np.random.default_rng(steps), Schedule("linear", 1e-4, 0.02, 1000, steps)
    arrays = {
        name: (extents[-1] ** -0.5 * rng.normal(size=extents)).astype(np.float32)
        for name, (extents, _) in stored_shapes(shape, steps, "fp32").items()
        if name != "coefficients"
    }
    stored = StoredDenoiser.pack(DenoiserTables(**arrays), shape, chain_program(schedule, v2=v2).coefficients, precision)
    chains = NativeChains(stored, schedule)
    encoded = {name: rng.normal(size=(2, classes)) for name in (("y_global", "y_local") if v2 else ("prior",))}
    encoded |= {"fused_feature" if v2 else "feature": rng.normal(size=(2, width)).astype(np.float32)}
    noise = rng.random((2, 2, 2, classes)) if v2 else rng.normal(size=(steps, 2, 2, classes))
    expected = chains.run(encoded, noise, keep=True)
    for rows in (30, 2000):
        found = chains.run(encoded, noise, keep=True, plan=Plan(rows, variant))
        assert found.states.tobytes() == expected.states.tobytes() and found.scores.tobytes() == expected.scores.tobytes()
        assert found.work is not None and (rows < 2000 or (found.work.sweeps < steps).all())
