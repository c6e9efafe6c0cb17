"""One compiled model, ready to run: preprocessed images in, chains and predictions out.

    pixels -> encoder (once an image) -> noise -> sampler (all images, draws and steps through one denoiser) -> prediction

``fusedx.Model`` wraps this with file reading and result objects; the reference model is the same class on float64 parts.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fusedx.engine.chain_runner import Certified, ChainRunner, Encoded, Solving, logits
from fusedx.engine.draws import Drawn, draw_all
from fusedx.engine.encoder import Encoder
from fusedx.engine.errors import ConfigError, FusedxError, require_int
from fusedx.engine.limits import DEFAULT_MAX_DRAWS
from fusedx.engine.manifest import IMAGE_SIZE, MAP_POINTS, Network
from fusedx.engine.noise import draw_noise, started
from fusedx.engine.sampler import SEQUENTIAL, WORK, Chains, Plan, dense_map, dense_points
from fusedx.engine.sampler.cost import Costs
from fusedx.engine.sampling import SEQUENTIALLY, Sampler, Sampling
from fusedx.engine.schedule import Schedule, ddim_coefficients
from fusedx.engine.stopping import looks, standard_error
from fusedx.kernels.softmax import sigmoid, softmax

#: Rows of the denoiser that are evaluated together, about.
MAX_ROWS = 1024
#: Rows of a parallel sampler's sweep where no cost is known.
_UNMEASURED_ROWS = 64


@dataclass(frozen=True, slots=True)
class Result:
    """One image.

    probabilities, scores, prior float64 [C]; draw_scores float64 [D,C]; patch_locations int64 [6,2], (row, column) in pixels;
    saliency [C,7,7].  ``finite``: False where the weights overflow on this image, so that nothing here is a result.  work: sweeps
    (evaluations of the denoiser, which draws share), rows and sequential_steps over all draws, empty where the chain runner does not
    count them.  undecided: draws were added until the cap, and the label still cannot be told from the noise; False where a number of
    draws was given, which asks no such question.
    """

    probabilities: np.ndarray
    scores: np.ndarray
    prior: np.ndarray
    draw_scores: np.ndarray
    patch_locations: np.ndarray
    saliency: np.ndarray
    finite: bool
    work: dict[str, int]
    undecided: bool = False

    @property
    def index(self) -> int:
        """The class of the largest score."""
        return int(np.argmax(self.scores))

    @property
    def stability(self) -> float:
        """Share of the draws whose own label is that class."""
        return float(np.mean(np.argmax(self.draw_scores, axis=1) == self.index))

    @property
    def standard_error(self) -> np.ndarray:
        """float64 [C]: of ``scores``, from how the draws differ; not-a-number where there is one."""
        return standard_error(self.draw_scores)


class Engine:
    """Network, schedule and task with an encoder and a chain runner.  Thread-safe as far as these two are."""

    def __init__(
        self, network: Network, schedule: Schedule, task: str, encoder: Encoder, chains: ChainRunner, costs: Costs | None = None
    ) -> None:
        """costs: of an evaluation of the denoiser here; without them the chain is run one step at a time unless told otherwise."""
        self.network = network
        self.schedule = schedule
        self.task = task
        self.encoder = encoder
        self.chains = chains
        self.costs = costs
        self._v2 = network.family == "diffmic-v2"
        self.rows_per_chain = MAP_POINTS if self._v2 else 1

    def predict(self, images: np.ndarray, digests: Callable[[], list[str]], sampling: Sampling) -> tuple[list[Result], dict[str, float]]:
        """images float32 [B,3,224,224], normalised; digests: SHA-256 of each image's decoded pixels, which keys its noise.

        ``digests`` is called once the encoder has its work: a GPU is busy while the host computes them.
        Returns results in order and the seconds spent on the whole batch by stage: encoder, chain.
        """
        self.check(sampling.start)
        self.check_solver(sampling)
        began = time.perf_counter()
        encoded = self.encoder.run(images)
        encoder_done = time.perf_counter()
        results = self.answer(encoded, digests(), sampling)
        return results, {"encoder": encoder_done - began, "chain": time.perf_counter() - encoder_done}

    def answer(self, encoded: Encoded, keys: list[str], sampling: Sampling) -> list[Result]:
        """The chains alone, of images that are encoded already.  keys: their digests."""

        def run(which: list[int], first: int, count: int) -> Chains:
            """Draws first .. first + count - 1 of some images, as one batch of rows."""
            part = encoded if len(which) == len(keys) else {name: array[which] for name, array in encoded.items()}
            own = [self.noise(keys[i], seed=sampling.seed, draws=count, first_draw=first, start=sampling.start) for i in which]
            plan = self.plan(sampling.sampler, count * len(which))
            return self._run(part, np.stack(own, axis=2), sampling, keep=False, plan=plan)

        drawn = draw_all(len(keys), sampling, self.draw_blocks, run)
        return [self._result(encoded, i, own) for i, own in enumerate(drawn)]

    def _run(self, encoded: Encoded, noise: np.ndarray, sampling: Sampling, *, keep: bool, plan: Plan) -> Chains:
        """noise [T,D,B,C]: the chains of a block of draws, as they are published or by a solver."""
        if sampling.solver_steps is None:
            return self.chains.run(encoded, noise, keep=keep, plan=plan)
        return self._solving(sampling).solve(encoded, noise, sampling.solver, sampling.solver_steps, keep=keep)

    def check_solver(self, sampling: Sampling) -> None:
        """ConfigError where this engine or model has no such solver, or not so many steps."""
        if sampling.approximate:
            self._solving(sampling)

    def _solving(self, sampling: Sampling) -> Solving:
        if not isinstance(self.chains, Solving):
            raise ConfigError(
                f"solver {sampling.solver} runs on a CPU alone; backend {self.chains.name} has the published chain: load with device='cpu'"
            )
        if self._v2 and sampling.solver != "ddim":
            raise ConfigError(f"solver {sampling.solver} is for DiffMIC; DiffMIC-v2 clamps its estimate and takes only ddim")
        require_int("solver_steps", sampling.solver_steps, 1, self.schedule.steps)
        return self.chains

    def plan(self, sampler: Sampler, chains: int) -> Plan:
        """How ``chains`` (draw, image) pairs are run together."""
        if self.costs is None:
            return Plan(sampler.rows or _UNMEASURED_ROWS, sampler.variant or "picard") if sampler.kind == "parallel" else SEQUENTIAL
        return self.costs.choose(sampler, steps=self.schedule.steps, chains=chains * self.rows_per_chain, classes=self.network.num_classes)

    def draw_blocks(self, images: int, draws: int) -> list[int]:
        """Draws that run together: about MAX_ROWS rows, so that memory does not grow with their number; rows are independent."""
        block = min(draws, max(1, MAX_ROWS // (images * self.rows_per_chain)))
        return [min(block, draws - first) for first in range(0, draws, block)]

    def chain_rows(self, images: int, draws: int | str) -> set[int]:
        """Rows of the chains that a batch may run together; with "auto" draws any of its images may be left."""
        if not isinstance(draws, str):
            return {images * count * self.rows_per_chain for count in self.draw_blocks(images, draws)}
        totals = [0, *looks(DEFAULT_MAX_DRAWS)]
        added = {b - a for a, b in pairwise(totals)}
        return {rows for left in range(1, images + 1) for more in added for rows in self.chain_rows(left, more)}

    def check(self, start: str) -> None:
        """ConfigError for a start that this family does not have."""
        if self._v2 and start != "published":
            raise ConfigError(f"start={start!r} is for DiffMIC; DiffMIC-v2 has the published start alone, on its map of uniform noise")

    @property
    def ready(self) -> bool:
        """Whether every batch can run without further preparation."""
        return True

    def warm_up(
        self,
        batch_sizes: Sequence[int],
        draws: int | str,
        progress: Callable[[int, int, str], None],
        sampler: Sampler = SEQUENTIALLY,
    ) -> None:
        """Prepare what these batches will run: nothing, on a host."""
        progress(1, 1, "ready")

    def trace(
        self,
        images: np.ndarray,
        noise: np.ndarray | tuple[np.ndarray, np.ndarray] | None = None,
        *,
        seed: int = 0,
        sampler: Sampler = SEQUENTIALLY,
        solver: str = "published",
        solver_steps: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Every intermediate array, named as in tests/golden/README.md; floating arrays of the chain are float64.

        images float32 [B,3,224,224], already normalised.  noise: [T,B,C] (v1) or [2,B,C] = (u_global, u_local) (v2); None draws
        it from ``seed`` and each image's own bytes.  With a sampler that is not sequential also ``sweeps``, ``rows`` and
        ``sequential_steps``, int64 [B], and ``residual`` float64 [B].  With a solver ``trajectory`` has its states.
        """
        approximation = Sampling(solver=solver, solver_steps=solver_steps)
        self.check_solver(approximation)
        images = self._checked_images(images)
        if noise is None:
            digests = [hashlib.sha256(np.ascontiguousarray(x, np.float32).tobytes()).hexdigest() for x in self._on_host(images)]
            z = np.stack([self.noise(d, seed=seed, draws=1) for d in digests], axis=2)
        else:
            z = self._checked_noise(noise, len(images))[:, None]
        encoded = self._finite(self.encoder.run(images))
        plan = SEQUENTIAL if approximation.approximate else self.plan(sampler, len(images))
        chains = self._run(encoded, z, approximation, keep=True, plan=plan)
        out = dict(encoded)
        scores, states = chains.scores[0], chains.states[:, 0]
        self._finite({"y_final": scores})
        if not plan.sequential and chains.work is not None:
            out |= {name: getattr(chains.work, name)[0] for name in WORK}
        if not plan.sequential and isinstance(self.chains, Certified):
            out["residual"] = self.chains.residual(encoded, z, chains.states)[0]
        out |= {"betas": self.schedule.betas(), "y_final": scores, "probabilities": self._probabilities(scores)}
        out["trajectory"] = dense_map(states) if self._v2 else states
        if self._v2:
            out["prior_map"] = dense_map(dense_points(*logits(out)))
            out["start_map"] = out["trajectory"][0]
            out["y_final_map"] = out["trajectory"][-1]
            out["prediction"] = scores
            out["timesteps"] = ddim_coefficients(self.schedule).timesteps
        return out

    def eps(self, trace: dict[str, np.ndarray], y: np.ndarray, step: int) -> np.ndarray:
        """The denoiser alone, for a traced batch: y float64 [B,C] (v1) or [B,C,6,6] symmetric (v2), row ``step`` of the tables."""
        if not self._v2:
            return self.chains.eps(trace, y, step)
        points = np.ascontiguousarray(np.moveaxis(y[..., 0, :], -1, -2))
        return dense_map(self.chains.eps(trace, points, step))

    def noise(self, image_sha256: str, *, seed: int, draws: int, first_draw: int = 0, start: str = "published") -> np.ndarray:
        """The noise of one image, float64 [T,D,C] (v1) or [2,D,C] (v2)."""
        self.check(start)
        n, steps = self.network, self.schedule.steps
        noise = draw_noise(n.family, steps, n.num_classes, image_sha256, seed=seed, draws=draws, first_draw=first_draw)
        return started(noise, start, self.schedule)

    @staticmethod
    def _finite(arrays: Encoded) -> Encoded:
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise FusedxError(f"{name} is not finite: the weights overflow on this input; is it normalised?")
        return arrays

    def _result(self, encoded: Encoded, i: int, drawn: Drawn) -> Result:
        own = drawn.scores
        scores = np.cumsum(own, axis=0)[-1] / len(own)  # added in the order of draws, whatever the batch
        return Result(
            probabilities=self._probabilities(scores),
            scores=scores,
            prior=self._prior(encoded, i),
            draw_scores=own,
            patch_locations=encoded["patch_locations"][i],
            saliency=encoded["saliency"][i],
            finite=bool(np.isfinite(own).all() and all(np.isfinite(array[i]).all() for array in encoded.values())),
            work=drawn.work,
            undecided=drawn.undecided,
        )

    def _prior(self, encoded: Encoded, i: int) -> np.ndarray:
        """[C]: the prior encoder's softmax, or for multi-label tasks the sigmoid of its fused logits, one class at a time."""
        if self.task == "multilabel":
            return sigmoid(encoded["y_fusion"][i].astype(np.float64))
        return encoded["prior"][i].astype(np.float64)

    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        """[...,C] -> [...,C]: softmax, or for multi-label tasks each score clipped to [0,1]."""
        if self.task == "multilabel":
            return np.clip(scores, 0.0, 1.0)
        return softmax(scores)

    def _on_host(self, images: np.ndarray) -> np.ndarray:
        return images

    def _checked_images(self, images: np.ndarray) -> np.ndarray:
        try:
            images = np.asarray(images)
        except (TypeError, ValueError) as error:  # rows of unequal length, an array in the memory of a GPU
            raise ConfigError(f"x is a {type(images).__name__} that is no array on the host: {error}") from None
        if images.ndim != 4 or images.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE) or not np.issubdtype(images.dtype, np.floating):
            raise ConfigError(
                f"x must be floating point [B,3,{IMAGE_SIZE},{IMAGE_SIZE}], already normalised; got {images.dtype} {list(images.shape)}"
            )
        if len(images) == 0:
            raise ConfigError("x is an empty batch")
        with np.errstate(over="ignore"):
            images = images.astype(np.float32, copy=False)
        if not np.isfinite(images).all():
            raise ConfigError("x has NaN or infinite values, or values beyond float32")
        return images

    def _checked_noise(self, noise: np.ndarray | tuple[np.ndarray, np.ndarray], batch: int) -> np.ndarray:
        try:
            z = np.asarray(noise)
            z = z.astype(np.float64, casting="same_kind" if z.dtype.kind == "f" else "safe")
        except (TypeError, ValueError):
            raise ConfigError(f"noise must be numbers, got {type(noise).__name__} that is not an array of them") from None
        rows = 2 if self._v2 else self.schedule.steps
        expected = (rows, batch, self.network.num_classes)
        if z.shape != expected:
            what = "(u_global, u_local)" if self._v2 else "[steps, batch, classes]"
            raise ConfigError(f"noise must have shape {list(expected)} = {what}; got {list(z.shape)}")
        if not np.isfinite(z).all():
            raise ConfigError("noise has NaN or infinite values")
        return z
