"""The draws of a batch: all of them at once where a number was given, or in rounds, each for the images whose label is not settled yet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusedx.engine.sampler import WORK, Chains
from fusedx.engine.sampling import Sampling
from fusedx.engine.stopping import RISK, looks, settled


class Drawn:
    """What one image's draws have given so far, in their order."""

    def __init__(self) -> None:
        self.work: dict[str, int] = {}
        self.undecided = False
        self._blocks: list[np.ndarray] = []

    @property
    def scores(self) -> np.ndarray:
        """float64 [D,C]."""
        return np.ascontiguousarray(np.concatenate(self._blocks))

    def add(self, chains: Chains, place: int) -> None:
        """What the image in this place of a block's chains got."""
        self._blocks.append(chains.scores[:, place])
        for name in WORK if chains.work else ():
            counts = getattr(chains.work, name)[:, place]
            # Draws run together: an evaluation that has rows of several of them is one evaluation.
            self.work[name] = self.work.get(name, 0) + int(counts.max() if name == "sweeps" else counts.sum())


def draw_all(
    images: int, sampling: Sampling, blocks: Callable[[int, int], list[int]], run: Callable[[list[int], int, int], Chains]
) -> list[Drawn]:
    """Every image's draws.

    blocks(images, draws): sizes of the blocks in which so many draws of so many images run.  run(which, first, count): draws first ..
    first + count - 1 of these images.  With "auto" an image goes on until its own draws settle its label, whoever is beside it; those that
    remain at the cap are undecided.
    """
    drawn = [Drawn() for _ in range(images)]
    totals = looks(sampling.most_draws) if sampling.auto_draws else [sampling.most_draws]
    asking, first = list(range(images)), 0
    for total in totals:
        for count in blocks(len(asking), total - first):
            chains = run(asking, first, count)
            for place, i in enumerate(asking):
                drawn[i].add(chains, place)
            first += count
        if not sampling.auto_draws:
            return drawn
        asking = [i for i in asking if not settled(drawn[i].scores, RISK / len(totals))]
        if not asking:
            return drawn
    for i in asking:
        drawn[i].undecided = True
    return drawn
