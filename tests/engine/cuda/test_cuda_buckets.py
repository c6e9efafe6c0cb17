"""Batch buckets."""

from __future__ import annotations

import pytest

from fusedx.engine.cuda.buckets import IMAGE_BUCKETS, ROW_BUCKETS, bucket, pieces


@pytest.mark.parametrize("buckets", [IMAGE_BUCKETS, ROW_BUCKETS])
def test_every_count_gets_the_smallest_bucket_that_holds_it(buckets: tuple[int, ...]) -> None:
    for count in range(1, buckets[-1] + 1):
        size = bucket(count, buckets)
        assert size in buckets and count <= size and (count == 1 or size < 2 * count)


@pytest.mark.parametrize("count", [-1, 0, 257])
def test_what_fits_no_bucket(count: int) -> None:
    with pytest.raises(ValueError, match="fits no bucket; they hold 1 to 256"):
        bucket(count, IMAGE_BUCKETS)


@pytest.mark.parametrize(("count", "largest", "sizes"), [(0, 4, []), (1, 4, [1]), (4, 4, [4]), (9, 4, [4, 4, 1])])
def test_pieces(count: int, largest: int, sizes: list[int]) -> None:
    found = list(pieces(count, largest))
    assert [s.stop - s.start for s in found] == sizes
    assert [i for s in found for i in range(s.start, s.stop)] == list(range(count))
