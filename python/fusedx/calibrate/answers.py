"""What a model says of many pictures: by the published chain, by the same with another seed, and by every solver from the same noise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fusedx.calibrate.pictures import Listed
from fusedx.engine.errors import ConfigError
from fusedx.engine.limits import MAX_SEED
from fusedx.engine.sampling import Sampling
from fusedx.prediction import Failure
from fusedx.preparation import Item

if TYPE_CHECKING:
    from fusedx.model import Model

#: Fewer pictures say nothing.
FEWEST = 8
#: Called with the number of pictures just done.
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Answers:
    """Of n pictures, different from each other.

    scores, probabilities float64 [n,C] by setting, each in the order of ``settings``.  labels int64 [n], -1 where unknown.  digests:
    SHA-256 of each one's pixels.  skipped: why a file gave no answer, a text each.
    """

    settings: list[Sampling]
    scores: list[np.ndarray]
    probabilities: list[np.ndarray]
    labels: np.ndarray
    digests: list[str]
    skipped: list[str]

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def sha256(self) -> str:
        """SHA-256 over the pictures' digests in sorted order: which set of pictures it was."""
        return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in sorted(self.digests))).hexdigest()


def collect(model: Model, listed: Listed, settings: list[Sampling], batch_size: int, advance: Advance) -> Answers:
    """Run all pictures through all settings.  Files that cannot be read, and repeated pictures, are skipped and named.

    ConfigError where fewer than :data:`FEWEST` are left, or where one picture has two labels.
    """
    scores: list[list[np.ndarray]] = [[] for _ in settings]
    probabilities: list[list[np.ndarray]] = [[] for _ in settings]
    labels: dict[str, int] = {}
    skipped: list[str] = []
    for items, found in _batches(model, listed, batch_size, skipped, advance):
        images, digests = model._preparation.stage(items)
        encoded, keys = model._engine.encoder.run(images), digests()
        results = [model._engine.answer(encoded, keys, setting) for setting in settings]
        for i, item in enumerate(items):
            if not all(of[i].finite for of in results):
                skipped.append(f"{item.source}: the model's weights overflow on this image")
                continue
            labels[keys[i]] = found[i]
            for n, of in enumerate(results):
                scores[n].append(of[i].scores)
                probabilities[n].append(of[i].probabilities)
    if len(labels) < FEWEST:
        why = f"; {len(skipped)} were skipped, the first: {skipped[0]}" if skipped else ""
        raise ConfigError(f"a calibration needs at least {FEWEST} different pictures (hundreds are better), and got {len(labels)}{why}")
    arrays = [np.stack(s) for s in scores], [np.stack(p) for p in probabilities]
    return Answers(settings, *arrays, np.array(list(labels.values())), list(labels), skipped)


def _batches(
    model: Model, listed: Listed, batch_size: int, skipped: list[str], advance: Advance
) -> Iterator[tuple[list[Item], list[int]]]:
    """(pictures read, their labels) some at a time, each picture once."""
    seen: dict[str, int] = {}
    with ThreadPoolExecutor(2, thread_name_prefix="fusedx-read") as pool:
        for first in range(0, len(listed.paths), batch_size):
            paths, labels = listed.paths[first : first + batch_size], listed.labels[first : first + batch_size]
            items, found = [], []
            for path, label, item in zip(paths, labels, pool.map(model._item_or_failure, paths), strict=True):
                known = -1 if label is None else label
                if isinstance(item, Failure):
                    skipped.append(item.message)
                elif (digest := item.data[1]) not in seen:
                    seen[digest] = known
                    items.append(item)
                    found.append(known)
                elif min(known, seen[digest]) >= 0 and known != seen[digest]:
                    raise ConfigError(f"{path} has the same pixels as another picture, and another label")
                else:
                    skipped.append(f"{path}: the same pixels as another picture")
            if items:
                yield items, found
            advance(len(paths))


def another_seed(sampling: Sampling) -> Sampling:
    """The same with a seed of its own."""
    return replace(sampling, seed=sampling.seed + 1 if sampling.seed < MAX_SEED else 0)
