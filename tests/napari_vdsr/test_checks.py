import threading

import numpy as np
import pytest

pytest.importorskip("napari")
from napari.layers import Image

from napari_vdsr import _checks, _layers
from vdsr_core import resize, super_resolve


def difference(kind, source, scale, result):
    (found,) = _checks.compare(kind, source, scale, result, threading.Event())
    return found


def test_bicubic_interpolation_adds_nothing(rng):
    stack = rng.integers(0, 4000, (2, 12, 20)).astype(np.uint16)
    source = _layers.whole(Image(stack)).within(slice(2, 9), slice(3, 20))
    window = source.window(2.5)
    found = difference(_checks.ADDED, source, 2.5, resize(stack.astype(np.float32), 2.5, window=window))
    assert found.pixels.shape == source.result_shape(2.5)
    np.testing.assert_allclose(found.pixels, 0, atol=1e-3)
    assert found.spread == pytest.approx(np.mean(stack.astype(float).std((1, 2))))


def test_added_detail_is_what_is_left_of_the_result(rng, tiny_model):
    image = rng.random((12, 20, 5)).astype(np.float32)
    source = _layers.whole(Image(image, rgb=False), channel_axis=2)
    sr = super_resolve(image, 2, model=tiny_model, channel_axis=2)
    found = difference(_checks.ADDED, source, 2, sr)
    expected = sr - np.moveaxis(resize(np.moveaxis(image, 2, 0), 2), 0, 2)
    np.testing.assert_allclose(found.pixels, expected, atol=1e-5)
    assert found.rms == pytest.approx(np.sqrt(np.mean(expected.astype(float) ** 2)), rel=1e-4)


def test_consistency_of_a_smooth_image_is_near_zero_and_an_offset_shows():
    rows, columns = np.mgrid[:24, :30] / 10
    image = np.dstack([np.sin(rows + columns)] * 3).astype(np.float32)
    source = _layers.whole(Image(image, rgb=True))
    sr = np.moveaxis(resize(np.moveaxis(image, 2, 0), 2), 0, 2)
    found = difference(_checks.CONSISTENCY, source, 2, sr + 0.25)
    assert found.pixels.shape == (24, 30)
    np.testing.assert_allclose(found.pixels, 0.25, atol=0.01)


def test_limits_are_symmetric_and_ignore_a_lone_pixel():
    pixels = np.linspace(-1, 0.5, 10000, dtype=np.float32).reshape(100, 100)
    pixels[3, 5] = 1000
    low, high = _checks.limits(pixels)
    assert low == -high
    assert 0.9 < high < 1.1
    assert _checks.limits(np.zeros((4, 4), np.float32)) == (-1, 1)
