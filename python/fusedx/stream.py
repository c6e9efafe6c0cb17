"""Any number of pictures a batch at a time: the next batch is read while this one is computed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from fusedx.engine import processor

if TYPE_CHECKING:
    from fusedx.model import Source

R = TypeVar("R")
A = TypeVar("A")


def in_batches(
    sources: Iterator[Source], batch_size: int, read: Callable[[Source], R], answer: Callable[[list[R]], list[A]]
) -> Iterator[A]:
    """What ``answer`` gives for each batch of what ``read`` gives, in order; two batches are held at most.

    read: called on threads for files, and on the caller's for what is in memory already.  If ``sources`` itself raises, what it gave
    before is answered first.
    """
    with ThreadPoolExecutor(min(batch_size, processor.usable()), thread_name_prefix="fusedx-read") as pool:
        broken: list[Exception] = []

        def submit() -> list[Future[R]]:
            """Start reading the next batch."""
            futures: list[Future[R]] = []
            try:
                while not broken and len(futures) < batch_size:
                    source = next(sources)
                    if isinstance(source, (str, os.PathLike)):
                        futures.append(pool.submit(read, source))
                    else:  # its owner may change it once we go on
                        futures.append(Future())
                        futures[-1].set_result(read(source))
            except StopIteration:
                pass
            except Exception as error:
                broken.append(error)
            return futures

        try:
            ahead = submit()
            while ahead:
                batch = [future.result() for future in ahead]
                ahead = submit()
                yield from answer(batch)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if broken:
        raise broken[0]
