import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vdsr_core import resize
from vdsr_core.images.resampling import apply_taps, make_taps

SCALES = [2, 3, 4, 2.5, 2.37, 1.5, 1 / 2, 1 / 3, 1 / 4, 0.4]


def imresize_axis(values, scale, length):
    """MATLAB's imresize along the last axis, as its definition reads: one sum over a mirrored, unbounded input."""
    n = values.shape[-1]
    shrink = min(scale, 1.0)
    out = np.empty((*values.shape[:-1], length))
    for i in range(length):
        u = (i + 0.5) / scale - 0.5
        total, weights = 0.0, 0.0
        for j in range(math.floor(u - 2 / shrink) - 1, math.ceil(u + 2 / shrink) + 2):
            x = abs(shrink * (u - j))
            if x <= 1:
                w = 1.5 * x**3 - 2.5 * x**2 + 1
            elif x <= 2:
                w = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
            else:
                continue
            k = j % (2 * n)
            total = total + w * values[..., k if k < n else 2 * n - 1 - k]
            weights += w
        out[..., i] = total / weights
    return out


@pytest.mark.parametrize("scale", SCALES)
def test_resize_matches_definition_of_imresize(rng, scale):
    image = rng.random((13, 17))
    rows, columns = (max(1, round(scale * n)) for n in image.shape)
    expected = imresize_axis(imresize_axis(image.T, scale, rows).T, scale, columns)
    np.testing.assert_allclose(resize(image, scale), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("scale", [2, 3, 4, 2.5, 1.5, 1 / 2, 1 / 4])
def test_resize_matches_pillow_on_a_mirrored_image(rng, scale):
    """Pillow's bicubic has the same kernel, antialiasing and positions, but other edges: those are mirrored first."""
    image = rng.random((24, 32), dtype=np.float32)
    margin = 16
    padded = Image.fromarray(np.pad(image, margin, mode="symmetric"))
    size = tuple(round(scale * n) for n in padded.size)
    edge = round(scale * margin)
    expected = np.asarray(padded.resize(size, Image.Resampling.BICUBIC))[edge:-edge, edge:-edge]
    np.testing.assert_allclose(resize(image, scale), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@given(data=st.data(), scale=st.sampled_from([*SCALES, (2, 1), (1 / 3, 2.2)]))
def test_resize_window_equals_whole_bit_for_bit(dtype, data, scale):
    shape = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    image = (np.random.default_rng(1).random(shape) * 255).astype(dtype)
    whole = resize(image, scale)
    window = []
    for n in whole.shape:
        start = data.draw(st.integers(0, n - 1))
        window.append(slice(start, data.draw(st.integers(start + 1, n))))
    np.testing.assert_array_equal(resize(image, scale, window=tuple(window)), whole[tuple(window)])


@pytest.mark.parametrize("scale", SCALES)
def test_resize_keeps_constants_and_positions(scale):
    assert np.all(np.abs(resize(np.full((9, 11), 0.3), scale) - 0.3) < 1e-15)
    ramp = np.arange(200.0)[None] * np.ones((8, 1))
    out = resize(ramp, scale)[0]
    centres = (np.arange(out.size) + 0.5) / scale - 0.5
    inside = slice(out.size // 4, -out.size // 4)  # the mirrored edge bends the ramp
    # A stretched kernel keeps the mean position only where its samples are symmetric or many.
    np.testing.assert_allclose(out[inside], centres[inside], atol=0.01 if scale == 0.4 else 1e-10)


def test_resize_saturates_and_rounds_integers():
    image = np.zeros((6, 6), np.uint8)
    image[:, 3:] = 255
    exact = resize(image.astype(float), 2)
    assert exact.min() < 0
    assert exact.max() > 255
    np.testing.assert_array_equal(resize(image, 2), np.clip(np.rint(exact), 0, 255))


def test_resize_output_shape_only_says_where_it_ends(rng):
    image = rng.random((10, 10))
    np.testing.assert_array_equal(resize(image, 2.37, output_shape=(20, 23)), resize(image, 2.37)[:20, :23])


def test_resize_leading_axes_are_independent(rng):
    stack = rng.random((2, 3, 7, 8))
    np.testing.assert_array_equal(resize(stack, 2)[1, 2], resize(stack[1, 2], 2))


def test_taps_of_a_far_window_read_only_near_pixels():
    taps = make_taps(10**6, 2.5, 10**6, 10**6 + 100)
    assert taps.source.stop - taps.source.start < 100 / 2.5 + 6
    np.testing.assert_allclose(taps.weight.sum(0), 1, rtol=1e-15)


def test_identity_at_scale_one(rng):
    image = rng.random((5, 6)).astype(np.float32)
    np.testing.assert_array_equal(apply_taps(image, make_taps(6, 1, 0, 6), -1), image)


@pytest.mark.parametrize(
    ("scale", "error"),
    [
        *((value, ValueError) for value in (0, -1, math.nan, math.inf, (2, 2, 2))),
        *((value, TypeError) for value in ("2", None, True, (2, "2"), 2j)),
    ],
)
def test_bad_scale_is_named(scale, error):
    with pytest.raises(error, match="`scale` must be"):
        resize(np.zeros((4, 4)), scale)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_shape": 5}, "`output_shape` must be .rows, columns., got 5"),
        ({"output_shape": (0, 5)}, "`output_shape` must be an integer of at least 1, got 0"),
        ({"output_shape": (2.5, 5)}, "`output_shape` must be an integer of at least 1, got 2.5"),
        ({"window": (3, 4)}, "`window` must be two slices"),
        ({"window": (slice(500, 600), slice(0, 3))}, "`window` must hold pixels of the result, .16, 16."),
        ({"window": (slice(0, 4, 2), slice(0, 3))}, "`window` must hold pixels of the result, .16, 16., in steps of 1"),
        ({"window": (slice(0.5, 4), slice(0, 3))}, "`window` must be two slices of integers"),
    ],
)
def test_resize_names_wrong_options(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        resize(np.zeros((8, 8)), 2, **options)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [2.3, 0.5])
def test_resize_keeps_the_largest_numbers_finite(rng, dtype, scale):
    ends = np.finfo(dtype)
    image = rng.uniform(-1, 1, (8, 9)).astype(dtype) * ends.max
    image[::2], image[:, ::3] = ends.max, ends.min
    out = resize(image, scale)
    exact = np.clip(resize(image.astype(np.longdouble) / 64, scale) * 64, ends.min, ends.max)
    np.testing.assert_allclose(out, exact.astype(dtype), rtol=8 * ends.eps, atol=8 * ends.eps * ends.max)
    window = (slice(1, 3), slice(0, 3))
    np.testing.assert_array_equal(resize(image, scale, window=window), out[window])


def test_resize_spreads_nan_and_infinity_to_their_neighbours_only():
    image = np.zeros((20, 20), np.float32)
    image[3, 3], image[16, 16] = np.nan, np.inf
    out = resize(image, 2)
    assert np.isnan(out[6:8, 6:8]).all()
    assert not np.isfinite(out[32:34, 32:34]).any()
    assert not out[12:28].any()


@pytest.mark.parametrize("scale", [1e-9, 5e-324, 1e300, 1.7e308, (1, 1e9)])
def test_resize_refuses_what_memory_cannot_hold(scale):
    with pytest.raises(MemoryError, match="`image`, resized, must fit in memory, got"):
        resize(np.zeros((20, 24), np.uint8), scale)
    with pytest.raises(MemoryError, match="`image`, resized, must fit in memory, got"):
        resize(np.zeros((20, 24), np.uint8), 2, output_shape=(10**400, 1))
