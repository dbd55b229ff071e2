import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsr_core import Rescale
from vdsr_core.images.intensity import cast

DTYPES = [
    np.uint8,
    np.int8,
    np.uint16,
    np.int16,
    np.uint32,
    np.int32,
    np.uint64,
    np.int64,
    np.float32,
    np.float64,
]


@pytest.mark.parametrize("dtype", DTYPES[:6])
def test_rescale_roundtrip_of_the_whole_dtype(dtype):
    limits = np.iinfo(dtype)
    values = np.linspace(limits.min, limits.max, 70001).astype(dtype)
    rescale = Rescale(limits.min, limits.max)
    np.testing.assert_array_equal(rescale.inverse(rescale.forward(values), dtype), values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cast_saturates_and_never_wraps(dtype):
    values = np.array([-1e30, 1e30])
    holds = np.dtype(dtype).kind == "f"
    expected = values if holds else [np.iinfo(dtype).min, np.iinfo(dtype).max]
    np.testing.assert_array_equal(cast(values, np.dtype(dtype)), np.array(expected, dtype))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_saturate_at_the_end_of_their_dtype(dtype):
    top = float(np.finfo(dtype).max)
    rescale = Rescale(-top / 4, top / 4)
    out = rescale.inverse(np.array([-1e38, -3, 0.5, 3, 1e38]), dtype)
    np.testing.assert_array_equal(out, np.array([-top, -top, 0, top, top], dtype))


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1e300, exclude_min=True))
def test_finite_pixels_stay_finite_in_both_directions(value, width):
    rescale = Rescale(0, width)
    mapped = rescale.forward(np.array([value]))
    assert np.isfinite(mapped.astype(np.float32)).all()
    assert np.isfinite(rescale.inverse(mapped, np.float64)).all()


def test_cast_rounds():
    np.testing.assert_array_equal(cast(np.array([0.4, 0.6, 254.6]), np.dtype(np.uint8)), [0, 1, 255])


@pytest.mark.parametrize("limits", [(1, 1), (2, 1), (np.nan, 1), (0, np.inf), (-1e308, 1e308)])
def test_bad_range_is_named(limits):
    with pytest.raises(ValueError, match="`in_range` must be two finite numbers, low < high"):
        Rescale(*limits)
