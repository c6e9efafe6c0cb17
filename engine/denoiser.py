"""The denoiser's parameters with everything that can be folded, folded: what denoiser.safetensors holds.

As trained, layer k computes softplus(BN_k(E_k[t] * (W_k u + b_k))).  Batch normalisation in evaluation mode, the bias and the
timestep embedding are one affine map a (timestep, output), so the layer is softplus(a_t * (W u) + c_t) with

    a_t = E[t] * scale        c_t = E[t] * b * scale + shift        scale, shift = batch_norm(...)

W1 is split into the half that multiplies the state and the half that multiplies the prior, which is constant along a chain.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from fusedx.engine.errors import ConfigError, ModelFormatError
from fusedx.engine.manifest import Network
from fusedx.engine.memory import release_pages
from fusedx.engine.safetensors import dtype_name
from fusedx.engine.schedule import Schedule, chain_program
from fusedx.engine.weights import Weights, batch_norm
from fusedx.kernels.conditional_layer import packed
from fusedx.kernels.step import COEFFICIENTS

#: The matrices that a format other than fp32 stores packed.
LARGE = ("weight2", "weight3")
#: Rows packed at a time, of whole panels of every format.
_ROWS = 256


@dataclass(frozen=True, slots=True)
class DenoiserTables:
    """F = feature_dim, C = classes, T = evaluated timesteps in the order of the chain's table.

    weight_y [F,C]; weight_p [F,C] (zeros where the network has no guidance); weight2, weight3 [F,F]; weight4 [C,F]; bias4 [C];
    scale<k>, shift<k> [T,F] for k = 1..3.  All of one floating dtype.
    """

    weight_y: np.ndarray
    weight_p: np.ndarray
    weight2: np.ndarray
    weight3: np.ndarray
    weight4: np.ndarray
    bias4: np.ndarray
    scale1: np.ndarray
    shift1: np.ndarray
    scale2: np.ndarray
    shift2: np.ndarray
    scale3: np.ndarray
    shift3: np.ndarray

    @property
    def steps(self) -> int:
        """Rows of the timestep tables."""
        return self.scale1.shape[0]

    def arrays(self) -> dict[str, np.ndarray]:
        """Name -> array, in file order."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class StoredDenoiser:
    """What denoiser.safetensors holds: the tables, weight2 and weight3 in the format ``precision``, and the chain's coefficients.

    arrays: names and shapes as :func:`stored_shapes` says.  A packed matrix is ``<name>.panels`` and, for integers, ``<name>.scale``;
    in fp32 it is ``<name>`` itself.  coefficients float64 [T, columns], as ``fusedx.engine.schedule.chain_program`` makes them.
    """

    network: Network
    precision: str
    arrays: dict[str, np.ndarray]

    @property
    def coefficients(self) -> np.ndarray:
        """float64 [T,6] (v1) or [T,4] (v2)."""
        return self.arrays["coefficients"]

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray], network: Network, schedule: Schedule, precision: str) -> StoredDenoiser:
        """Check names, shapes and dtypes against the manifest, and the coefficients against its schedule."""
        try:
            expected = stored_shapes(network, schedule.steps, precision)
        except ValueError as error:
            raise ModelFormatError(f"denoiser.safetensors: {error}") from None
        if set(arrays) != set(expected):
            missing, further = sorted(set(expected) - set(arrays)), sorted(set(arrays) - set(expected))
            raise ModelFormatError(
                f"denoiser.safetensors is not that of a model in {precision}: it lacks {missing or 'nothing'} and has "
                f"{str(further)[:500] if further else 'nothing'} beside; compile the checkpoint again"
            )
        for name, (shape, dtype) in expected.items():
            if arrays[name].shape != shape or dtype_name(arrays[name]) != dtype:
                got = f"{dtype_name(arrays[name])} {list(arrays[name].shape)}"
                raise ModelFormatError(f"denoiser.safetensors: {name} is {got}, the manifest implies {dtype} {list(shape)}")
        for name in LARGE if precision != "fp32" else ():
            if not packed.padding_is_zero(arrays[f"{name}.panels"], precision, network.feature_dim, network.feature_dim):
                raise ModelFormatError(f"denoiser.safetensors: {name}.panels has weights past the matrix; compile the checkpoint again")
        # Not to the last bit: some schedules take a cosine or an exponential of the C library, which differ between machines.
        derived = chain_program(schedule, v2=network.family == "diffmic-v2").coefficients
        if not np.allclose(arrays["coefficients"], derived, rtol=1e-5, atol=1e-9):
            raise ModelFormatError("denoiser.safetensors: coefficients differ from those of the manifest's schedule")
        return StoredDenoiser(network, precision, arrays)

    @staticmethod
    def pack(tables: DenoiserTables, network: Network, coefficients: np.ndarray, precision: str) -> StoredDenoiser:
        """float32 tables in a format.  ConfigError where it cannot hold a weight."""
        arrays = {"coefficients": np.ascontiguousarray(coefficients)}
        for name, array in tables.arrays().items():
            if name not in LARGE or precision == "fp32":
                arrays[name] = array
                continue
            try:
                parts = pack_rows(array, precision)
            except ValueError as error:
                raise ConfigError(f"the denoiser does not fit {precision}: {name}: {error}") from None
            arrays |= {f"{name}.{part}": parts[part] for part in parts}
            release_pages(array)  # the mapped original, if it was one, is not read again
        return StoredDenoiser(network, precision, arrays)

    def in_precision(self, precision: str) -> StoredDenoiser:
        """The same, packed in ``precision`` if it is not; only what is stored in fp32 can be."""
        if precision == self.precision:
            return self
        return StoredDenoiser.pack(self.tables(), self.network, self.coefficients, precision)

    def tables(self) -> DenoiserTables:
        """Everything as float32; packed matrices become what their stored weights are worth, in memory of their own."""
        f = self.network.feature_dim
        arrays = {field.name: self.arrays[field.name] for field in fields(DenoiserTables) if field.name in self.arrays}
        for name in LARGE:
            if name not in arrays:
                parts = {part.removeprefix(f"{name}."): a for part, a in self.arrays.items() if part.startswith(f"{name}.")}
                arrays[name] = packed.unpack(parts, self.precision, f, f)
        return DenoiserTables(**arrays)


def stored_shapes(network: Network, steps: int, precision: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Tensor name -> (shape, safetensors dtype) of denoiser.safetensors."""
    f, c = network.feature_dim, network.num_classes
    family = "ddim" if network.family == "diffmic-v2" else "posterior"
    shapes: dict[str, tuple[tuple[int, ...], str]] = {"coefficients": ((steps, len(COEFFICIENTS[family])), "F64")}
    shapes |= {"weight_y": ((f, c), "F32"), "weight_p": ((f, c), "F32"), "weight4": ((c, f), "F32"), "bias4": ((c,), "F32")}
    shapes |= {f"{kind}{k}": ((steps, f), "F32") for k in (1, 2, 3) for kind in ("scale", "shift")}
    for name in LARGE:
        if precision == "fp32":
            shapes[name] = ((f, f), "F32")
        else:
            shapes |= {f"{name}.{part}": shape for part, shape in packed.shapes(precision, f, f).items()}
    return shapes


def pack_rows(weight: np.ndarray, precision: str) -> dict[str, np.ndarray]:
    """``packed.pack`` of a large matrix, some rows at a time, so that its temporary copies stay small."""
    blocks = [packed.pack(weight[row : row + _ROWS], precision) for row in range(0, len(weight), _ROWS)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def fold(
    network: Network, w: Weights, timesteps: np.ndarray, train_timesteps: int, dtype: type[np.floating] = np.float32
) -> DenoiserTables:
    """Tables for ``timesteps`` (int64 [T]) from a checkpoint's tensors; folded in float64, rounded once to ``dtype``."""
    f, c = network.feature_dim, network.num_classes
    v2 = network.family == "diffmic-v2"
    tail = (1, 1) if v2 else ()
    inputs = 2 * c if network.include_guidance else c
    tables: dict[str, np.ndarray] = {}
    first = w.get("lin1.lin.weight", (f, inputs, *tail)).reshape(f, inputs)
    if not network.include_guidance:
        tables["weight_y"], tables["weight_p"] = first, np.zeros_like(first)
    elif v2:  # [prior ; state]
        tables["weight_p"], tables["weight_y"] = first[:, :c], first[:, c:]
    else:  # [state ; prior]
        tables["weight_y"], tables["weight_p"] = first[:, :c], first[:, c:]
    for k in (2, 3):
        tables[f"weight{k}"] = w.get(f"lin{k}.lin.weight", (f, f, *tail)).reshape(f, f)
    tables["weight4"] = w.get("lin4.weight", (c, f, *tail)).reshape(c, f)
    tables["bias4"] = w.get("lin4.bias", (c,))
    for k in (1, 2, 3):
        scale, shift = batch_norm(w, f"unetnorm{k}", f)
        bias = w.get(f"lin{k}.lin.bias", (f,)).astype(np.float64)
        embedding = w.get(f"lin{k}.embed.weight", (train_timesteps + 1, f))[timesteps].astype(np.float64)
        tables[f"scale{k}"] = embedding * scale
        tables[f"shift{k}"] = embedding * (bias * scale) + shift
    return DenoiserTables(**{name: np.ascontiguousarray(array, dtype=dtype) for name, array in tables.items()})
