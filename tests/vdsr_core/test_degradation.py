import numpy as np
import pytest

from vdsr_core import degrade, resize


@pytest.mark.parametrize("scale", [2, 3, 4, 1.5, 2.37, (1, 2)])
@pytest.mark.parametrize("shape", [(24, 25), (2, 11, 9)])
def test_degrade_shape(rng, scale, shape):
    pair = scale if isinstance(scale, tuple) else (scale, scale)
    low = degrade(rng.random(shape), scale)
    assert low.shape == (*shape[:-2], *(int(n / s) for n, s in zip(shape[-2:], pair, strict=True)))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_degrade_ignores_what_the_crop_drops(rng, scale):
    image = rng.random((26, 27))
    rows, columns = (n - n % scale for n in image.shape)
    np.testing.assert_array_equal(degrade(image, scale), resize(image[:rows, :columns], 1 / scale))


@pytest.mark.parametrize("scale", [2, 3, 2.5])
def test_degrade_then_resize_keeps_centres(scale):
    """A smooth bump stays where it is: no shift by part of a pixel."""
    axis = np.arange(60) - 29.3
    bump = np.exp(-np.add.outer(axis**2, axis**2) / 200)
    back = resize(degrade(bump, scale), scale)
    rows, columns = back.shape
    mass = back / back.sum()
    centre = (mass.sum(1) @ np.arange(rows), mass.sum(0) @ np.arange(columns))
    truth = bump[:rows, :columns] / bump[:rows, :columns].sum()
    expected = (truth.sum(1) @ np.arange(rows), truth.sum(0) @ np.arange(columns))
    np.testing.assert_allclose(centre, expected, atol=0.02)


def test_integers_are_rounded(rng):
    image = rng.integers(0, 256, (12, 12), np.uint8)
    np.testing.assert_array_equal(degrade(image, 2), np.clip(np.rint(degrade(image.astype(float), 2)), 0, 255))


def test_enlarging_is_refused():
    with pytest.raises(ValueError, match=r"`scale` must be at least 1, got 0.5. Use `super_resolve`"):
        degrade(np.zeros((4, 4)), 0.5)


def test_too_small_image_is_named():
    with pytest.raises(ValueError, match=r"`image` must have at least `scale` pixels a side, got \(3, 9\)"):
        degrade(np.zeros((3, 9)), 4)
