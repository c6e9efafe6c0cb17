"""The same computation in plain torch: the contenders by torch.compile in a CUDA graph, and the float64 reference.

    released   the published semantics: the image's feature is computed again at every step
    hoisted    the feature computed once, before the chain

One compiled function is a whole step, update of the state included, by torch.compile's default settings, and all steps of the
chain are one graph: no launch waits for the host.  The algebra is as published.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import torch_diffmic as plain
from fusedx.engine.manifest import Network
from fusedx.engine.schedule import Schedule, posterior_coefficients

Step = Callable[..., torch.Tensor]


def open_denoiser(checkpoint: Path, network: Network, device: torch.device, dtype: torch.dtype) -> plain.ConditionalDenoiser:
    """The published denoiser and its image encoder; convolutions channels-last, as tensor cores want them."""
    model = plain.ConditionalDenoiser(network.num_classes, network.feature_dim)
    model.load_state_dict(torch.load(checkpoint / "ckpt_best.pth", weights_only=True)[0])
    return model.eval().requires_grad_(False).to(device, dtype).to(memory_format=torch.channels_last)


def open_prior(checkpoint: Path, network: Network, device: torch.device, dtype: torch.dtype) -> plain.PriorEncoder:
    """The published prior encoder."""
    model = plain.PriorEncoder(network.num_classes)
    model.load_state_dict(torch.load(checkpoint / "aux_ckpt_best.pth", weights_only=True)[0])
    return model.eval().requires_grad_(False).to(device, dtype)


def step_table(schedule: Schedule, device: torch.device) -> torch.Tensor:
    """float64 [T,6]: q, s, g0, g1, g2, sigma.  At t = 0 the result is y0 itself, without noise."""
    k = posterior_coefficients(schedule)
    table = np.stack([k.q, k.s, k.g0, k.g1, k.g2, k.sigma], axis=1)
    table[0, 2:] = 1, 0, 0, 0
    return torch.from_numpy(table).to(device)


def make_step(model: plain.ConditionalDenoiser, table: torch.Tensor, *, released: bool) -> Step:
    """(y float64 [R,C], t int64 [R], z float64 [R,C], prior float64 [R,C], given) -> y float64 [R,C].

    given: images [R,3,224,224] where ``released``, otherwise features [R,F].
    """

    def step(y: torch.Tensor, t: torch.Tensor, z: torch.Tensor, prior: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        q, s, g0, g1, g2, sigma = table.index_select(0, t[:1])[0].unbind()
        feature = model.feature(given) if released else given
        eps = model.eps(feature, y.to(feature.dtype), t, prior.to(feature.dtype)).double()
        y0 = (y - (1 - q) * prior - s * eps) / q
        return g0 * y0 + g1 * y + g2 * prior + sigma * z

    return step


class PlainChain:
    """The first ``steps`` steps on fixed inputs, recorded once where there is a GPU.  prior, noise float64 [R,C], [T,R,C]."""

    def __init__(self, step: Step, prior: torch.Tensor, given: torch.Tensor, noise: torch.Tensor, steps: int) -> None:
        total, rows = len(noise), len(prior)
        self._step, self._prior, self._given = step, prior, given
        with torch.inference_mode():  # as the steps' results are: torch compiles a step for itself where an input is not
            self._start = prior + noise[0]
        # One allocation each, so that all are aligned alike and the compiled step neither copies nor compiles again.
        self._times = [torch.full((rows,), t, device=prior.device) for t in range(total - 1, total - 1 - steps, -1)]
        self._noise = [noise[(i + 1) % total].clone() for i in range(steps)]  # the last step's noise is multiplied by zero
        self.final = self._start
        self.stream = torch.cuda.Stream(prior.device) if prior.is_cuda else None

    def record(self) -> Callable[[], None]:
        """Compile, capture, and return the replay."""
        if self.stream is None:
            return self._all_steps
        self.stream.wait_stream(torch.cuda.current_stream())  # which made the inputs
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            y = self._start
            for _ in range(2):  # the second on what a step gives: whatever is compiled for that must not be within the capture
                y = self._one(y, 0)
            self.stream.synchronize()
            with torch.cuda.graph(graph, stream=self.stream):
                self._all_steps()

        def replay() -> None:
            with torch.cuda.stream(self.stream):
                graph.replay()

        return replay

    def _all_steps(self) -> None:
        y = self._start
        for i in range(len(self._times)):
            y = self._one(y, i)
        self.final = y

    def _one(self, y: torch.Tensor, i: int) -> torch.Tensor:
        with torch.inference_mode():
            return self._step(y, self._times[i], self._noise[i], self._prior, self._given)


@torch.inference_mode()
def exact_scores(
    checkpoint: Path, network: Network, schedule: Schedule, x: np.ndarray, noise: np.ndarray, device: torch.device
) -> np.ndarray:
    """Final state float64 [B,C] of images x [B,3,224,224] and noise [T,B,C], everything in float64."""
    images = torch.from_numpy(x).to(device, torch.float64)
    prior = open_prior(checkpoint, network, device, torch.float64)(images).prior
    model = open_denoiser(checkpoint, network, device, torch.float64)
    step = make_step(model, step_table(schedule, device), released=False)
    chain = PlainChain(step, prior, model.feature(images), torch.from_numpy(noise).to(device), schedule.steps)
    chain._all_steps()
    return chain.final.cpu().numpy()
