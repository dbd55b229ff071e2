import threading
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("napari")
from napari.layers import Image

from napari_vdsr.layers import image_layers
from napari_vdsr.upscale import differences
from vdsr_core import calibrate, predict_error, resize, save_checkpoint, super_resolve


def difference(kind, source, scale, result, upscaled=None):
    (found,) = differences.compare(kind, source, upscaled or source, scale, result, threading.Event())
    return found


@pytest.mark.parametrize("kind", [differences.ADDED, differences.CONSISTENCY])
@pytest.mark.parametrize("scale", [2, 1.5, 2.37, 3.25])
@pytest.mark.parametrize("region", [False, True])
def test_a_part_is_compared_as_it_is_among_the_whole(rng, kind, scale, region):
    image = rng.random((2, 260, 130)).astype(np.float32)
    whole = image_layers.whole(Image(image))
    result = rng.random(whole.result_shape(scale)).astype(np.float32)
    expected = difference(kind, whole, scale, result).pixels
    part = whole.within(slice(120, 241), slice(0, 90))
    if region:
        found = difference(kind, part, scale, result[:, *part.window(scale)])
    else:
        found = difference(kind, part, scale, result, whole)
        assert found.source.part[1:] == part.part[1:] or scale == 2.37
    window = found.source.grid(scale) if kind == differences.ADDED else found.source.part
    assert all(p.stop - p.start > 0 for p in found.source.part)
    np.testing.assert_allclose(found.pixels, expected[window], atol=2e-6)


def test_a_part_at_an_odd_scale_or_of_a_few_pixels_is_refused(rng):
    whole = image_layers.whole(Image(rng.random((30, 30)).astype(np.float32)))
    part = whole.within(slice(10, 15), slice(10, 15))
    with pytest.raises(ValueError, match="simple fraction"):
        difference(differences.ADDED, part, np.sqrt(3), np.zeros((9, 9)), whole)
    with pytest.raises(ValueError, match="larger one"):
        difference(differences.CONSISTENCY, part, 2, np.zeros((10, 10)))


def test_bicubic_interpolation_adds_nothing(rng):
    stack = rng.integers(0, 4000, (2, 12, 20)).astype(np.uint16)
    source = image_layers.whole(Image(stack)).within(slice(2, 9), slice(3, 20))
    window = source.window(2.5)
    found = difference(differences.ADDED, source, 2.5, resize(stack.astype(np.float32), 2.5, window=window))
    assert found.pixels.shape == source.result_shape(2.5)
    np.testing.assert_allclose(found.pixels, 0, atol=1e-3)
    assert found.spread == pytest.approx(np.mean(stack[:, 2:9, 3:20].astype(float).std((1, 2))))


def test_added_detail_is_what_is_left_of_the_result(rng, tiny_model):
    image = rng.random((12, 20, 5)).astype(np.float32)
    source = image_layers.whole(Image(image, rgb=False), channel_axis=2)
    sr = super_resolve(image, 2, model=tiny_model, channel_axis=2)
    found = difference(differences.ADDED, source, 2, sr)
    expected = sr - np.moveaxis(resize(np.moveaxis(image, 2, 0), 2), 0, 2)
    np.testing.assert_allclose(found.pixels, expected, atol=1e-5)
    assert found.rms == pytest.approx(np.sqrt(np.mean(expected.astype(float) ** 2)), rel=1e-4)


def test_consistency_of_a_smooth_image_is_near_zero_and_an_offset_shows():
    rows, columns = np.mgrid[:24, :30] / 10
    image = np.dstack([np.sin(rows + columns)] * 3).astype(np.float32)
    source = image_layers.whole(Image(image, rgb=True))
    sr = np.moveaxis(resize(np.moveaxis(image, 2, 0), 2), 0, 2)
    found = difference(differences.CONSISTENCY, source, 2, sr + 0.25)
    assert found.pixels.shape == (24, 30)
    np.testing.assert_allclose(found.pixels, 0.25, atol=0.01)


def test_limits_are_symmetric_and_ignore_a_lone_pixel():
    pixels = np.linspace(-1, 0.5, 10000, dtype=np.float32).reshape(100, 100)
    pixels[3, 5] = 1000
    low, high = differences.limits(pixels)
    assert low == -high
    assert 0.9 < high < 1.1
    assert differences.limits(np.zeros((4, 4), np.float32)) == (-1, 1)


@pytest.mark.parametrize("region", [False, True])
def test_expected_errors_of_a_part_are_those_of_the_whole(rng, tiny_model, tmp_path, region):
    image = rng.random((2, 60, 50)).astype(np.float32)
    tiny_model.errors = calibrate(tiny_model, image, 2)
    save_checkpoint(tmp_path / "tiny.safetensors", tiny_model)
    whole, ranges = image_layers.whole(Image(image), channel_axis=0), [(0, 1), (-1, 2)]
    result = rng.random(whole.result_shape(2)).astype(np.float32)

    def expect(source, upscaled, result):
        model = str(tmp_path / "tiny.safetensors")
        (found,) = differences.expect(source, upscaled, 2, result, model, {"in_range": ranges}, threading.Event())
        return found.pixels

    expected = predict_error(result, 2, model=tiny_model, channel_axis=0, in_range=ranges)
    np.testing.assert_array_equal(expect(whole, whole, result), expected)
    part = replace(whole.within(slice(10, 41), slice(0, 30)), part=(slice(1, 2), slice(10, 41), slice(0, 30)))
    upscaled = whole.within(slice(5, 50), slice(0, 50)) if region else whole
    piece = result[:, 10:100] if region else result
    np.testing.assert_array_equal(expect(part, upscaled, piece), expected[1:, 20:82, :60])


def test_expected_errors_are_those_of_the_network_that_restored_a_channel(rng):
    image, ranges = rng.random((2, 30, 20)).astype(np.float32), [(0, 1), (0, 1)]
    whole = image_layers.whole(Image(image), channel_axis=0)
    result = rng.random(whole.result_shape(2)).astype(np.float32)
    asked = {"channel_axis": 0, "in_range": ranges}
    clean = predict_error(result, 2, **asked)
    assert np.all(clean < predict_error(result, 2, model="restore", noise=0.05, **asked))
    for removed in ({}, {"compression": 0.2}, {"noise": [(0, 0), (0, 0.01)]}, {"noise": (0.01, 0.0001)}):
        expected = predict_error(result, 2, model="restore", **removed, **asked)
        if not removed:
            expected = clean
        elif "noise" in removed and isinstance(removed["noise"], list):
            expected[0] = clean[0]  # nothing was removed there
        record = {"in_range": ranges, **removed}
        (found,) = differences.expect(whole, whole, 2, result, None, record, threading.Event())
        np.testing.assert_array_equal(found.pixels, expected)
