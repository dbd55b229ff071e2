import numpy as np
import pytest
from skimage.color import rgb2ycbcr

from vdsr_core.images.color import rgb_to_ycbcr, ycbcr_to_rgb


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
