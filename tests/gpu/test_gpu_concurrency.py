"""Threads, models and streams at once: the bits of each alone."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from gpu_models import BACKENDS, bits, fresh, opened, pictures, quick


def at_once(*work: Callable[[], object]) -> list[object]:
    """Each in a thread of its own, all started together; their results in order.  The first error is raised."""
    results: list[object] = [None] * len(work)
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(work))

    def run(i: int) -> None:
        try:
            barrier.wait(60)
            results[i] = work[i]()
        except BaseException as error:  # a failed assertion too must reach the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_share_a_model(small_model, backend):
    model, images = quick(small_model, "bf16", backend), pictures(6)
    alone = [bits(model.classify(image)) for image in images]

    def work(k: int) -> list[object]:
        return [bits(p) for _ in range(5) for p in model.classify(images[k:])]

    assert at_once(*(lambda k=k: work(k) for k in range(4))) == [alone[k:] * 5 for k in range(4)]


def test_three_models_work_at_once(small_model):
    """Each on a stream of its own."""
    models, images = (opened(small_model), opened(small_model, "bf16"), quick(small_model, "fp8", "persistent")), pictures(5)
    alone = [[bits(p) for p in model.classify(images, draws=3)] for model in models]

    def work(i: int) -> list[object]:
        return [[bits(p) for p in models[i].classify(images, draws=3)] for _ in range(10)]

    assert at_once(*(lambda i=i: work(i) for i in range(3))) == [[a] * 10 for a in alone]


def test_one_model_captures_while_another_works(small_model):
    """A capture forbids some calls to the thread that captures; another model's thread must not notice."""
    busy, images = opened(small_model, "bf16"), pictures(4)
    alone = [bits(p) for p in busy.classify(images)]
    expected = [bits(p) for p in opened(small_model, "fp32").classify(images)]

    captured = threading.Event()

    def works() -> bool:
        """Until then: what comes before a capture, compilers above all, takes far longer than any number of batches."""
        same = True
        while same and not captured.is_set():
            same = [bits(p) for p in busy.classify(images)] == alone
        return same

    def captures() -> list[object]:
        try:
            return [bits(p) for p in fresh(small_model, "fp32").classify(images)]
        finally:
            captured.set()

    assert at_once(works, captures) == [True, expected]


def test_the_callers_stream_does_not_matter(small_model):
    """A model works on its own stream, and leaves the caller's current one as it was."""
    import torch

    model, image = opened(small_model, "bf16"), pictures(1)[0]
    alone, side = bits(model.classify(image)), torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)  # the side stream is busy for 50 ms or more
        assert bits(model.classify(image)) == alone
        assert torch.cuda.current_stream() == side
    side.synchronize()
