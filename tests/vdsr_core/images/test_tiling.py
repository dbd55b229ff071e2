import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsr_core import cover
from vdsr_core.images.tiling import halve

shapes = st.lists(st.integers(1, 3), max_size=2).flatmap(
    lambda leading: st.tuples(st.integers(1, 40), st.integers(1, 40)).map(lambda plane: (*leading, *plane))
)


@given(shape=shapes, tile=st.one_of(st.none(), st.integers(1, 50)), halo=st.integers(0, 25))
def test_cover_writes_each_pixel_once_and_copies_the_image(shape, tile, halo):
    image = np.arange(math.prod(shape)).reshape(shape)
    out, count = np.zeros_like(image), np.zeros_like(image)
    for part in cover(shape, tile, halo):
        out[part.write] = image[part.read][part.crop]
        count[part.write] += 1
    np.testing.assert_array_equal(out, image)
    assert np.all(count == 1)


@given(shape=shapes, tile=st.one_of(st.none(), st.integers(1, 50)), data=st.data())
def test_cover_of_a_window_is_that_of_the_whole_cut_to_it(shape, tile, data):
    starts = [data.draw(st.integers(0, n - 1)) for n in shape[-2:]]
    stops = [data.draw(st.integers(start + 1, n)) for start, n in zip(starts, shape[-2:], strict=True)]
    window = tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))
    parts = cover(shape, tile, 2, window)
    expected = []
    for part in cover(shape, tile, 0):
        *leading, rows, columns = part.write
        cut = [slice(max(s.start, w.start), min(s.stop, w.stop)) for s, w in zip((rows, columns), window, strict=True)]
        if all(s.start < s.stop for s in cut):
            expected.append((*leading, *cut))
    assert [part.write for part in parts] == expected


@given(shape=shapes, tile=st.integers(1, 50), halo=st.integers(0, 25), align=st.integers(1, 4))
def test_cover_reads_the_halo_and_whole_squares_except_beyond_edges(shape, tile, halo, align):
    for part in cover(shape, tile, halo, align=align):
        for read, write, n in list(zip(part.read, part.write, shape, strict=True))[-2:]:
            check_read(read, write, n, halo, align)
            assert write.stop - write.start <= tile


def check_read(read, write, n, halo, align):
    """The smallest part that holds the halo and is made of whole squares."""
    assert read.start % align == 0
    assert 0 <= max(0, write.start - halo) - read.start < align
    assert read.stop == n or read.stop % align == 0
    assert 0 <= read.stop - min(n, write.stop + halo) < align


@given(shape=shapes, tile=st.integers(1, 50), halo=st.integers(0, 25), align=st.integers(1, 4))
def test_halve_writes_the_same_pixels_once(shape, tile, halo, align):
    for part in cover(shape, tile, halo, align=align)[-2:]:
        expected, count = np.zeros(shape, int), np.zeros(shape, int)
        expected[part.write] = 1
        pieces = halve(part, shape, halo, align)
        for piece in pieces:
            count[piece.write] += 1
            for axis in (-2, -1):
                check_read(piece.read[axis], piece.write[axis], shape[axis], halo, align)
        np.testing.assert_array_equal(count, expected)
        assert len(pieces) == math.prod(min(2, s.stop - s.start) for s in part.write[-2:])


def test_none_takes_each_plane_in_one_piece():
    assert [t.write for t in cover((2, 5, 6), None, 3)] == [
        (slice(i, i + 1), slice(0, 5), slice(0, 6)) for i in range(2)
    ]


@pytest.mark.parametrize(
    ("tile", "error"),
    [(0, ValueError), (-3, ValueError), (2.5, TypeError), ("8", TypeError), (np.array([9]), TypeError)],
)
def test_bad_tile_is_named(tile, error):
    with pytest.raises(error, match="`tile` must be"):
        cover((4, 4), tile, 1)


def test_align_of_zero_is_named():
    with pytest.raises(ValueError, match="`align` must be an integer of at least 1, got 0"):
        cover((4, 4), 2, 1, align=0)


def test_negative_halo_is_named():
    with pytest.raises(ValueError, match="`halo` must be an integer of at least 0, got -1"):
        cover((4, 4), 2, -1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 2, 1), "`shape` must be .*rows, columns., got 5"),
        (((5,), 2, 1), "`shape` must be .*rows, columns., got .5,."),
        (((-3, 5), 2, 1), "`shape` must be an integer of at least 0, got -3"),
        (((5, 5), 2, 1.5), "`halo` must be an integer of at least 0, got 1.5"),
    ],
)
def test_cover_names_wrong_arguments(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        cover(*arguments)


def test_tile_of_any_integer_type():
    assert cover((300, 300), np.int8(100), np.uint8(20)) == cover((300, 300), 100, 20)
