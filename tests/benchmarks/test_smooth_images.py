import numpy as np
import pytest
from benchmarks.smooth_images import SIDE, blur_photograph, draw_field

from vdsr_core import degrade, psnr, resize


@pytest.mark.parametrize("number", range(6))
def test_fields_are_the_same_each_time(number):
    field = draw_field(number)
    assert field.shape == (SIDE, SIDE)
    assert 0 <= field.min() < field.max() <= 1
    np.testing.assert_array_equal(draw_field(number), field)


def test_blurred_photographs_lose_almost_nothing_by_half_the_pixels(rng):
    sharp = rng.random((SIDE + 20, SIDE))
    smooth = blur_photograph(sharp, rng)
    lost = [psnr(image, resize(degrade(image, 2), 2), data_range=1) for image in (sharp, smooth)]
    assert smooth.shape == (SIDE, SIDE)
    assert lost[1] > 50 > 20 > lost[0]
