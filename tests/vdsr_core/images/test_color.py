import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2ycbcr

from vdsr_core.images.color import rgb_to_ycbcr, smooth_chroma, ycbcr_to_rgb


def test_ycbcr_matches_scikit_image(rng):
    rgb = rng.random((9, 7, 3))
    expected = np.moveaxis(rgb2ycbcr(rgb), -1, 0) / 255
    np.testing.assert_allclose(rgb_to_ycbcr(np.moveaxis(rgb, -1, 0)), expected, atol=1e-14)


def test_ycbcr_roundtrip(rng):
    rgb = rng.random((3, 9, 7)) * 3 - 1
    np.testing.assert_allclose(ycbcr_to_rgb(rgb_to_ycbcr(rgb)), rgb, atol=1e-13)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_gray_has_no_chroma(value):
    y, cb, cr = rgb_to_ycbcr(np.full((3, 2, 2), value)) * 255
    np.testing.assert_allclose(y, 16 + 219 * value, atol=1e-12)
    np.testing.assert_allclose([cb, cr], 128, atol=1e-12)


def test_smooth_chroma_is_a_gaussian_within_its_reach(rng):
    values = rng.random((4, 40, 50))
    smooth = smooth_chroma(values, 0.02, (2, 3), 40)
    expected = gaussian_filter(values[1:3], (0, 38 * 0.02 * 2, 38 * 0.02 * 3), truncate=6)
    assert np.abs(smooth[1:3] - expected).max() < 5e-3  # cut off at three standard deviations
    assert np.array_equal(smooth[[0, 3]], values[[0, 3]])
    assert np.array_equal(smooth_chroma(values, 0.0, (2, 2), 40), values)
    changed = values.copy()
    changed[:, 20, 20] += 1
    rows, columns = np.nonzero((smooth_chroma(changed, 0.1, (4, 4), 6) != smooth_chroma(values, 0.1, (4, 4), 6))[1])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (14, 26, 14, 26)
