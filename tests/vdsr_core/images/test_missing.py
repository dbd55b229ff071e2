import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsr_core.images.missing import REACH, fill, nearest, widen
from vdsr_core.images.ranges import Extent, measure


def fill_by_rings(image, rest):
    """The same as `fill`, pixel by pixel."""
    known = {index: value for index, value in np.ndenumerate(image) if not np.isnan(value)}
    for _ in range(REACH):
        ring = {}
        for row, column in np.ndindex(image.shape):
            near = [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            values = [known[index] for index in near if index in known]
            if (row, column) not in known and values:
                ring[row, column] = np.mean(values)
        known |= ring
    return np.array([known.get(index, rest) for index in np.ndindex(image.shape)]).reshape(image.shape)


@st.composite
def images(draw, share=None):
    """Float images, more or less of whose pixels are NaN."""
    rows, columns = draw(st.integers(1, 25)), draw(st.integers(1, 25))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = rng.normal(100, 30, (rows, columns))
    image[rng.random((rows, columns)) < (draw(st.sampled_from([0, 0.1, 0.9, 0.99, 1])))] = np.nan
    return image


@given(images())
def test_fill_is_the_mean_of_known_neighbours_ring_by_ring(image):
    np.testing.assert_allclose(fill(image, -7), fill_by_rings(image, -7), rtol=1e-12)


@given(images(), st.data())
def test_fill_of_a_window_is_the_window_of_the_filled(image, data):
    parts = []
    for n in image.shape:
        start = data.draw(st.integers(0, n - 1))
        parts.append(slice(start, data.draw(st.integers(start + 1, n))))
    wide = [widen(part, n) for part, n in zip(parts, image.shape, strict=True)]
    inner = tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(parts, wide, strict=True))
    np.testing.assert_array_equal(fill(image[tuple(wide)], 3)[inner], fill(image, 3)[tuple(parts)])


def test_fill_of_the_largest_numbers_is_finite():
    image = np.full((5, 5), np.finfo(float).max)
    image[2, 2] = np.nan
    assert (fill(image, 0) == np.finfo(float).max).all()


@pytest.mark.parametrize("scale", [1, 2, 3, 1.5, 2.5, 7.3])
def test_nearest_pixel_has_the_nearest_centre(scale):
    length = 11
    centres = (np.arange(round(length * scale)) + 0.5) / scale - 0.5
    distance = np.abs(centres[:, None] - np.arange(length))
    found = nearest(length, scale, slice(0, len(centres)))
    np.testing.assert_allclose(distance[np.arange(len(centres)), found], distance.min(1), atol=1e-12)
    np.testing.assert_array_equal(nearest(length, scale, slice(5, 9)), found[5:9])


@given(images())
def test_nan_is_neither_low_nor_high(image):
    extent = measure(image, keep_nan=True)
    known = image[~np.isnan(image)]
    if not known.size:
        assert extent == Extent()
        return
    assert (extent.minimum, extent.maximum) == (known.min(), known.max())
    blocks = [image[i : i + 2, j : j + 2].ravel() for i in range(image.shape[0] - 1) for j in range(image.shape[1] - 1)]
    three = [np.sort(block) for block in blocks if np.isnan(block).sum() <= 1]  # NaN comes last
    if min(image.shape) > 1:
        assert extent.low == min((block[2] for block in three), default=np.inf)
        assert extent.high == max((block[1 - np.isnan(block[3])] for block in three), default=-np.inf)


def test_infinity_is_not_kept():
    image = np.array([[1, np.nan, np.inf], [np.nan, 2, -np.inf]])
    assert measure(image, keep_nan=True).invalid == 2
    assert measure(image).invalid == 4
