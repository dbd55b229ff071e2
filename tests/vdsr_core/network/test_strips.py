import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vdsr_core.network.strips import BAND, ROWS, bands, blocks, cut_strips, tallest


@given(rows=st.integers(1, 5 * ROWS), depth=st.integers(2, 40))
def test_cut_covers_the_rows_and_no_layer_runs_dry(rows, depth):
    parts = cut_strips(rows, depth)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(rows))
    heights = [part.stop - part.start for part in parts]
    if len(parts) > 1:
        assert heights[0] == ROWS + depth
        assert set(heights[1:-1]) <= {ROWS}
        heights[-1] += depth  # what the layers have held back
    assert max(heights) <= tallest(rows, depth)


@given(columns=st.integers(1, 300), halo=st.integers(0, 40), band=st.integers(1, 100))
def test_bands_cover_the_columns_and_see_their_halo(columns, halo, band):
    parts = bands(columns, halo, band)
    assert [column for inner, _ in parts for column in range(inner.start, inner.stop)] == list(range(columns))
    for inner, seen in parts:
        assert seen == slice(max(0, inner.start - halo), min(columns, inner.stop + halo))
        assert seen.stop - seen.start <= band + 2 * halo


@given(rows=st.integers(1, 900), columns=st.integers(1, 900), halo=st.integers(0, 40), count=st.integers(1, 9))
def test_blocks_cover_the_image_once_and_see_their_halo(rows, columns, halo, count):
    covered = np.zeros((rows, columns), int)
    for inner, seen in blocks(rows, columns, halo, count):
        covered[inner] += 1
        for part, wide, length in zip(inner, seen, (rows, columns), strict=True):
            assert wide == slice(max(0, part.start - halo), min(length, part.stop + halo))
        assert seen[1].stop - seen[1].start <= BAND + 2 * halo
    assert (covered == 1).all()


@given(rows=st.integers(1, 2000), columns=st.integers(1, 3000), count=st.integers(1, 16))
def test_no_worker_computes_more_than_its_share_and_a_halo_in_each_band(rows, columns, count):
    areas = [(y.stop - y.start) * (x.stop - x.start) for _, (y, x) in blocks(rows, columns, 20, count)]
    most = math.ceil(len(areas) / count) * max(areas)
    across = len(bands(columns, 20))
    assert most <= (rows / count + 2 * 20 + 1) * (columns / across + 2 * 20 + 1) * across


def test_squares_are_cut_into_narrow_blocks():
    assert [columns for (_, columns), _ in blocks(256, 256, 20, 2)] == [slice(0, 128), slice(128, 256)]


def test_bands_that_the_workers_can_share_are_not_cut():
    assert [rows for (rows, _), _ in blocks(1044, 1044, 20, 2)] == [slice(0, 1044)] * 4
