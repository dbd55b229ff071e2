import numpy as np
import pytest

from vdsr_core.dataset.registration import busiest_window


@pytest.mark.parametrize("corner", [(0, 0), (0, 630), (830, 0), (830, 630), (400, 300)])
def test_busiest_window_finds_contrast_wherever_it_is(corner, rng):
    plane = np.zeros((900, 700))
    rows, columns = slice(corner[0], corner[0] + 70), slice(corner[1], corner[1] + 70)
    plane[rows, columns] = rng.random((70, 70))
    found = busiest_window(plane, 256)
    assert plane[found].shape == (256, 256)
    assert plane[found].sum() == plane.sum() or corner == (400, 300)
    assert plane[found].std() > plane.std()


def test_busiest_window_of_a_small_plane_is_all_of_it(rng):
    plane = rng.random((50, 90))
    np.testing.assert_array_equal(plane[busiest_window(plane, 256)], plane)
