"""The denoiser's parameters with everything that can be folded, folded: what denoiser.safetensors holds.

As trained, layer k computes softplus(BN_k(E_k[t] * (W_k u + b_k))).  Batch normalisation in evaluation mode, the bias and the
timestep embedding are one affine map a (timestep, output), so the layer is softplus(a_t * (W u) + c_t) with

    a_t = E[t] * scale        c_t = E[t] * b * scale + shift        scale, shift = batch_norm(...)

W1 is split into the half that multiplies the state and the half that multiplies the prior, which is constant along a chain.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from fusedx.engine.errors import ModelFormatError
from fusedx.engine.manifest import Network
from fusedx.engine.weights import Weights, batch_norm


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

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray], network: Network, steps: int) -> DenoiserTables:
        """Check names, shapes and dtype against the manifest."""
        f, c = network.feature_dim, network.num_classes
        expected = {"weight_y": (f, c), "weight_p": (f, c), "weight2": (f, f), "weight3": (f, f), "weight4": (c, f), "bias4": (c,)}
        expected |= {f"{kind}{k}": (steps, f) for k in (1, 2, 3) for kind in ("scale", "shift")}
        if set(arrays) != set(expected):
            raise ModelFormatError(f"denoiser.safetensors holds {sorted(arrays)}, expected {sorted(expected)}")
        for name, shape in expected.items():
            if arrays[name].shape != shape or arrays[name].dtype != np.float32:
                got = f"{arrays[name].dtype} {list(arrays[name].shape)}"
                raise ModelFormatError(f"denoiser.safetensors: {name} is {got}, the manifest implies float32 {list(shape)}")
        return DenoiserTables(**arrays)


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
