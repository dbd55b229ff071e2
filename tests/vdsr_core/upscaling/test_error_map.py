import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from vdsr_core import ErrorTable, VDSRConfig, find_range, load_model, make_model, model_names, predict_error
from vdsr_core.upscaling.error_map import HALO, find_detail

TABLE = ErrorTable((2.0, 4.0), ((0.0, 0.1),) * 2, ((0.0, 0.1), (0.0, 0.2)), ((0.0, 0.3), (0.0, 0.4)))

WORSE = ErrorTable((2.0, 4.0), ((0.0, 0.1),) * 2, ((0.1, 0.3), (0.1, 0.4)), ((0.3, 0.9), (0.3, 1.2)))


@pytest.fixture
def mapped():
    """A network that removes noise and compression: what is left of noise of 0.1 adds 0.1 + x to the mean error x."""
    network = make_model(0, VDSRConfig(depth=3, width=4, maps=("noise", "compression")))
    network.errors = replace(TABLE, noisy=((0.1, WORSE),), compressed=((0.2, WORSE),))
    return network


@pytest.fixture
def model(tiny_model):
    tiny_model.errors = TABLE
    return tiny_model


def test_detail_is_what_scipy_finds(rng):
    plane = rng.random((30, 41))
    expected = uniform_filter(np.abs(plane - uniform_filter(plane, 3)), 5)
    np.testing.assert_allclose(find_detail(plane), expected, atol=1e-14)


def test_error_is_the_table_in_image_units(model, rng):
    sr = rng.random((20, 30)) * 0.02 + 5  # detail stays within the table
    expected = find_detail((sr - 3) / 4) * 4
    for scale, times in ((2, 1.0), (4, 2.0), (8**0.5, 1.5)):
        error = predict_error(sr, scale, model=model, in_range=(3, 7))
        np.testing.assert_allclose(error, times * expected, rtol=1e-6)
    assert error.dtype == np.float32
    np.testing.assert_allclose(predict_error(sr, 2, model=model, in_range=(3, 7), bound=True), 3 * expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("removed", "share"),
    [
        ({"noise": 0.2}, 0.5),
        ({"noise": (0.0, 0.04)}, 0.5),
        ({"noise": 4.0}, 1.0),  # more than was measured
        ({"compression": 0.05}, 0.25),
        ({"noise": 0.1, "compression": 0.1}, 0.75),
    ],
)
def test_what_was_removed_adds_to_the_error(mapped, rng, removed, share):
    sr = rng.random((20, 30)) * 0.02 + 5
    detail = find_detail((sr - 3) / 4)
    error = predict_error(sr, 2, model=mapped, in_range=(3, 7), **removed)
    np.testing.assert_allclose(error, 4 * (detail + share * (0.1 + detail)), rtol=1e-5)


def test_noise_that_grows_is_that_of_the_local_mean(mapped, rng):
    sr = rng.random((20, 30)) * 0.02 + np.linspace(0, 0.9, 30)
    share = np.sqrt(0.01 * uniform_filter(sr, 5)) / 0.1
    detail = find_detail(sr)
    error = predict_error(sr, 2, model=mapped, in_range=(0, 1), noise=(0.01, 0.0))
    np.testing.assert_allclose(error, detail + share * (0.1 + detail), rtol=1e-5)


def test_the_restorer_made_the_errors_of_noisy_channels(rng):
    sr = rng.random((2, 20, 30))
    asked = {"channel_axis": 0, "in_range": (0, 1), "noise": [(0, 0), (0, 0.01)]}
    error = predict_error(sr, 2, **asked)
    assert np.array_equal(error[0], predict_error(sr, 2, channel_axis=0, in_range=(0, 1))[0])
    assert np.array_equal(error[1], predict_error(sr, 2, model="restore", **asked)[1])


def test_what_cannot_have_been_removed_is_named(model, mapped, rng):
    sr = rng.random((20, 30))
    with pytest.raises(ValueError, match="`noise` must be 'auto' or 0 for a network that cannot remove it"):
        predict_error(sr, 2, model=model, noise=3)
    with pytest.raises(ValueError, match="`noise` must be what was removed, got 'auto'"):
        predict_error(sr, 2, model=mapped, noise="auto")
    with pytest.raises(ValueError, match="must be ascending rows"):
        replace(TABLE, noisy=((0.1, TABLE), (0.1, TABLE)))


def test_error_follows_the_units_of_the_image(model, rng):
    sr = rng.integers(0, 1000, (20, 30)).astype(np.uint16)
    error = predict_error(sr, 3, model=model)
    np.testing.assert_allclose(predict_error(sr * 2.0 + 7, 3, model=model), 2 * error, rtol=1e-5)


def test_luma_counts_as_gray(model, rng):
    gray = rng.integers(100, 110, (20, 30)).astype(np.uint8)
    coloured = predict_error(np.stack([gray] * 3, -1), 2, model=model, rgb=True)
    assert coloured.shape == gray.shape
    np.testing.assert_allclose(coloured, predict_error(gray, 2, model=model, in_range=(0, 255)), rtol=1e-4)


@given(st.data())
def test_window_equals_the_whole(data):
    model = copy.copy(load_model())
    model.errors = TABLE
    sr = np.random.default_rng(0).integers(0, 4000, (2, 23, 19)).astype(np.uint16)
    rows, columns = (
        slice(*sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))) for n in (23, 19)
    )
    whole = predict_error(sr, 2.5, model=model, in_range=(0, 4000))
    part = predict_error(sr, 2.5, model=model, in_range=(0, 4000), window=(rows, columns))
    assert np.array_equal(part, whole[:, rows, columns])


def test_tiles_do_not_matter(model, rng, monkeypatch):
    sr = rng.integers(0, 4000, (40, 37)).astype(np.uint16)
    whole = predict_error(sr, 2, model=model)
    monkeypatch.setattr("vdsr_core.upscaling.error_map.TILE", 8)
    assert np.array_equal(predict_error(sr, 2, model=model), whole)


def test_only_the_halo_is_read(model):
    sr = np.full((40, 40), np.nan)
    sr[10 - HALO : 20 + HALO, 5 - HALO : 15 + HALO] = 1.0
    sr[12, 7] = 2.0
    error = predict_error(sr, 2, model=model, in_range=(0, 4), window=(slice(10, 20), slice(5, 15)))
    assert error.max() > 0
    with pytest.raises(ValueError, match="`image` must be finite"):
        predict_error(sr, 2, model=model, in_range=(0, 4), window=(slice(9, 20), slice(5, 15)))


def test_nan_is_kept_around_nan(model, rng):
    sr = rng.random((20, 20))
    sr[8, 9] = np.nan
    error = predict_error(sr, 2, model=model, nan="keep")
    expected = np.zeros(sr.shape, bool)
    expected[8 - HALO : 9 + HALO, 9 - HALO : 10 + HALO] = True
    assert np.array_equal(np.isnan(error), expected)


def test_constant_channels_have_no_error(model, rng):
    sr = rng.random((2, 20, 20))
    sr[0] = 3
    error = predict_error(sr, 2, model=model, channel_axis=0)
    assert not error[0].any()
    assert error[1].all()


def test_networks_without_errors_and_other_scales_are_named(tiny_model, rng):
    sr = rng.random((20, 20))
    with pytest.raises(ValueError, match="must have its errors measured, but those of this network were not"):
        predict_error(sr, 2, model=tiny_model)
    tiny_model.errors = TABLE
    with pytest.raises(ValueError, match=r"`scale` must lie between 2 and 4, where .* got 5"):
        predict_error(sr, 5, model=tiny_model)


@pytest.mark.parametrize(
    ("shape", "options", "chunks"),
    [
        ((40, 33), {}, (11, 9)),
        ((40, 33), {}, (2, 33)),
        ((2, 33), {}, (1, 16)),
        ((3, 20, 24), {"channel_axis": 0}, (1, 20, 10)),
        ((20, 24, 4), {"channel_axis": 2}, (7, 24, 2)),
        ((3, 20, 24), {"rgb": True, "channel_axis": 0}, (1, 9, 24)),
        ((2, 20, 24, 4), {"rgb": True}, (1, 9, 24, 2)),
    ],
)
def test_lazy_equals_eager(mapped, rng, shape, options, chunks):
    da, model = pytest.importorskip("dask.array"), mapped
    channels = shape[options["channel_axis"]] if "channel_axis" in options and "rgb" not in options else 1
    options = {**options, "noise": [(0.1 * number, 9.0) for number in range(channels)]}
    sr = rng.integers(0, 4000, shape).astype(np.uint16)
    lazy = predict_error(da.from_array(sr, chunks=chunks), 2, model=model, **options)
    eager = predict_error(sr, 2, model=model, **options)
    assert (lazy.shape, lazy.dtype) == (eager.shape, eager.dtype)
    assert np.array_equal(lazy.compute(), eager)
    given = find_range(sr, **{name: value for name, value in options.items() if name != "noise"})
    part = (slice(3, 17), slice(5, 21)) if min(shape) > 2 or len(shape) > 2 else (slice(0, 1), slice(5, 21))
    window = predict_error(da.from_array(sr, chunks=chunks), 2, model=model, in_range=given, window=part, **options)
    assert np.array_equal(window.compute(), predict_error(sr, 2, model=model, in_range=given, window=part, **options))


def test_lazy_names_the_chunk_that_is_not_finite(model, rng):
    da = pytest.importorskip("dask.array")
    sr = rng.random((40, 40))
    sr[30, 30] = np.nan
    lazy = predict_error(da.from_array(sr, chunks=20), 2, model=model, in_range=(0, 1))
    with pytest.raises(ValueError, match=r"chunk \(1, 1\)"):
        lazy.compute()


@pytest.mark.parametrize("name", model_names())
def test_embedded_networks_have_measured_errors(name):
    errors = load_model(name).errors
    assert errors is not None
    assert errors.scales[0] <= 2 < 4 <= errors.scales[-1]
