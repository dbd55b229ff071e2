import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsr_core.images.ranges import Extent, measure, scan_windows


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_robust_range_is_what_three_of_a_block_reach(rows, columns, seed):
    """Against the definition, block by block; in a single row or column, pair by pair; a pixel for itself."""
    image = np.random.default_rng(seed).integers(0, 50, (rows, columns))
    height, width = min(2, rows), min(2, columns)
    blocks = [
        np.sort(image[i : i + height, j : j + width], axis=None)
        for i in range(rows - height + 1)
        for j in range(columns - width + 1)
    ]
    extent = measure(image)
    rank = {4: 2, 2: 1, 1: 0}[height * width]
    assert extent.low == min(block[rank] for block in blocks)
    assert extent.high == max(block[-1 - rank] for block in blocks)
    assert (extent.minimum, extent.maximum) == (image.min(), image.max())


def test_hot_and_dead_pixels_do_not_count_and_spots_do():
    image = np.full((20, 20), 100.0)
    image[4:6, 4:6] = 500  # the smallest spot
    clean = measure(image).in_range
    assert clean == (0, 600)  # with a quarter on each side
    image[10, 10] = image[12, 3] = image[12, 4] = 65535  # one alone, and a pair
    image[15, 15] = 0
    assert measure(image).in_range == clean


@given(
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(0, 2**32 - 1),
    st.integers(1, 100),
    st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_extents_of_blocks_merge_to_that_of_the_whole(rows, columns, seed, size, chunk):
    image = np.random.default_rng(seed).normal(size=(rows, columns))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vdsr_core.images.ranges.SLAB", size)
        parts = [measure(image[window]) for window in scan_windows(image.shape, chunk)]
    assert functools.reduce(Extent.merge, parts, Extent()) == measure(image)


def test_extent_of_lone_pixels_is_the_full_range():
    image = np.zeros((5, 5))
    image[2, 2] = 8
    assert measure(image).in_range == (-2, 10)
    assert measure(np.full((3, 3), 4)).constant


def test_extent_counts_what_is_not_finite():
    assert measure(np.array([[np.nan, 1.0], [np.inf, 2.0]])).invalid == 2


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_extremes_of_integers_are_exact(dtype):
    top = np.iinfo(dtype).max
    extent = measure(np.array([[top - 1, top]], dtype))
    assert (extent.minimum, extent.maximum, extent.constant) == (top - 1, top, False)
