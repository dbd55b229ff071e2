import warnings

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from vdsr_core import (
    ImageFile,
    VDSRConfig,
    degrade,
    estimate_noise,
    find_range,
    load_model,
    make_model,
    noise_fraction,
    resize,
    super_resolve,
    super_resolve_tiles,
    survey,
)
from vdsr_core.images.color import rgb_to_ycbcr
from vdsr_core.images.intensity import Rescale
from vdsr_core.images.noise_blocks import to_gray
from vdsr_core.network.conditions import to_condition
from vdsr_core.network.model import Condition

da = pytest.importorskip("dask.array")

MAPS = ("scale", "noise", "compression")
MODEL = make_model(0, VDSRConfig(4, 8, fold=2, blocks=True, maps=MAPS))
PLAIN = make_model(0, VDSRConfig(4, 8))
KINDS = [{}, {"channel_axis": 0}, {"rgb": True, "channel_axis": 0}]


def noisy_image(shape=(3, 60, 70), dtype=np.uint16, seed=0):
    """Ramps with Poisson and Gaussian noise above a black level."""
    rows, columns = np.ogrid[: shape[-2], : shape[-1]]
    ramp = 100 + 10.0 * rows + 7.0 * columns
    planes = np.broadcast_to(ramp, shape) * np.linspace(1, 1.4, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (degrade(planes, 1, shot_noise=3, read_noise=12, seed=seed) + 50).astype(dtype)


def difference(a, b):
    return np.abs(np.asarray(a, float) - np.asarray(b, float)).max()


# The law: tiled == whole == lazy, with what is found


@pytest.mark.parametrize("options", KINDS)
@given(
    dtype=st.sampled_from([np.uint16, np.float32]),
    scale=st.sampled_from([2, 1, 2.5]),
    tile=st.integers(9, 60),
    chunks=st.tuples(st.integers(1, 3), st.integers(7, 60), st.integers(7, 70)),
    in_range=st.sampled_from([None, (0, 2000)]),
)
@settings(max_examples=6)
def test_tiled_and_lazy_equal_whole(options, dtype, scale, tile, chunks, in_range):
    image = noisy_image(dtype=dtype)
    options = options | {"model": MODEL, "in_range": in_range}
    whole = super_resolve(image, scale, tile=None, **options)
    allowed = 1 if dtype is np.uint16 else 2e-5 * np.ptp(image)
    assert difference(super_resolve(image, scale, tile=tile, **options), whole) <= allowed
    lazy = super_resolve(da.from_array(image, chunks=chunks), scale, tile=tile, **options)
    assert difference(lazy.compute(), whole) <= allowed
    assert difference(super_resolve(image, scale, noise=0, tile=None, **options), whole) > 10 * allowed


@pytest.mark.parametrize("options", KINDS)
def test_what_is_found_may_be_given(options):
    image = noisy_image()
    whole = super_resolve(image, 2, model=MODEL, **options)
    known = {"in_range": find_range(image, **options), "noise": estimate_noise(image, **options)}
    window = (slice(20, 90), slice(31, 77))
    assert difference(super_resolve(image, 2, model=MODEL, window=window, **known, **options), whole[..., *window]) <= 1
    ranges, noises = survey(image, **options)
    given = {"in_range": ranges, "noise": noises, "tile": 40}
    assert difference(super_resolve(image, 2, model=MODEL, **given, **options), whole) <= 1


def test_window_uses_the_noise_of_the_whole_image():
    image = noisy_image()
    image[:, :, 35:] = image[:, :, 35:].mean()  # noise on the left only
    window = (slice(0, 60), slice(100, 140))
    options = {"model": MODEL, "in_range": (0, 3000)}
    part = super_resolve(image, 2, window=window, **options)
    assert difference(part, super_resolve(image, 2, **options)[..., *window]) <= 1


def test_chunked_arrays_are_read_once(rng):
    class Counting:
        """A zarr array that counts the pixels that are read of it."""

        def __init__(self, array):
            self.array, self.pixels = array, 0
            self.shape, self.dtype, self.chunks = array.shape, array.dtype, array.chunks

        def __getitem__(self, slices):
            values = self.array[slices]
            self.pixels += values.size
            return values

    image = noisy_image((2, 64, 96))
    for options in ({}, {"in_range": (0, 2000)}):
        counted = Counting(zarr.array(image, chunks=(1, 16, 32)))
        ranges, noises = survey(counted, **options)
        assert counted.pixels <= 1.2 * image.size
        assert (ranges, noises) == survey(image, **options)
    untouched = Counting(zarr.array(image, chunks=(1, 16, 32)))
    assert survey(untouched, in_range=(0, 9), noise=2) == ([(0.0, 9.0)], [(0.0, 4.0)])
    assert untouched.pixels == 0


@pytest.mark.parametrize("options", KINDS)
def test_dask_arrays_give_the_same_survey(options):
    image = noisy_image()
    assert survey(da.from_array(image, chunks=(2, 17, 30)), **options) == survey(image, **options)
    assert estimate_noise(da.from_array(image, chunks=(2, 17, 30)), **options) == estimate_noise(image, **options)


def test_dask_arrays_with_range_and_noise_are_not_looked_at():
    touched = []

    def load(block):
        touched.append(block.shape)
        return block

    meta = np.empty((0, 0), np.uint16)
    image = da.from_array(noisy_image((1, 64, 96))[0], chunks=(16, 16)).map_blocks(load, dtype=np.uint16, meta=meta)
    out = super_resolve(image, 2, model=MODEL, in_range=(0, 2000), noise=9, tile=32)
    out[:32, :32].compute(scheduler="synchronous")
    assert len(touched) < image.npartitions / 2


@given(a=st.floats(0.01, 100), b=st.floats(-1000, 1000))
@settings(max_examples=8)
def test_result_follows_gain_and_offset_of_the_intensities(a, b):
    image = noisy_image(dtype=np.float64)
    model = make_model(0, MODEL.config).double()
    scaled = super_resolve(a * image + b, 2, model=model)
    expected = a * super_resolve(image, 2, model=model) + b
    assert difference(scaled, expected) <= 1e-4 * a * np.ptp(image)


def test_chroma_is_smoothed_as_noise_says(rng):
    """Where no noise is to be removed, it is the interpolated one."""
    flat = np.full((3, 60, 70), 120.0) + rng.normal(0, 8, (3, 60, 70))
    options = {"model": MODEL, "rgb": True, "channel_axis": 0, "in_range": (0, 255), "compression": 0.1}
    noisy, clean = (rgb_to_ycbcr(super_resolve(flat, 2, noise=noise, **options) / 255)[1:] for noise in (5, 0))
    interpolated = rgb_to_ycbcr(resize(flat, 2) / 255)[1:]
    assert difference(clean, interpolated) < 1e-6
    sigma = 38 * (5 * 219 / 255 / 255) * 2
    smooth = gaussian_filter(interpolated, (0, sigma, sigma), truncate=6)
    assert noisy.std() < 0.6 * clean.std()
    assert difference(noisy, smooth) < 0.1 * smooth.std()


# What the network is told


@given(
    gain=st.floats(0, 50),
    offset=st.floats(-1e4, 1e4),
    low=st.floats(-500, 500),
    span=st.floats(200, 5000),  # a standard deviation of at most the range
    v=st.floats(0, 1),
)
def test_condition_gives_the_variance_in_the_intensities_of_the_network(gain, offset, low, span, v):
    rescale = Rescale(low, low + span)
    condition = to_condition((gain, offset), 0.1, rescale, np.dtype(np.uint16))
    variance = gain * (low + v * span) + offset
    if condition != Condition(0, 0, 0.1):
        assert condition.gain * v + condition.offset == pytest.approx(variance / span**2, rel=1e-6, abs=1e-9)
    else:
        assert variance <= 1e-9
    assert condition.compression == 0.1


def test_condition_of_colour_is_that_of_luma(rng):
    """The standard deviation of luma before and after the change to 16..235, in images of constant colour."""
    image = rng.normal(120, 6, (3, 200, 200))
    gray = to_gray(image)
    luma = rgb_to_ycbcr(Rescale(0, 255).forward(image))[0]
    condition = to_condition((0.0, float(gray.var())), 20 / 255, Rescale(0, 255), np.dtype(np.uint8), colour=True)
    assert np.sqrt(condition.offset) == pytest.approx(luma.std(), rel=1e-6)
    assert condition.compression == pytest.approx(20 / 255 * 219 / 255)  # of steps of luma


@pytest.mark.parametrize(
    ("factor", "options"),
    [
        (1e27, {"in_range": (0, 255)}),  # a range far too narrow, and the noise that is found
        (1, {"noise": 1e300}),
        (1, {"noise": (1e200, -1e300), "compression": 1}),
    ],
)
def test_what_no_network_has_seen_is_bounded(factor, options):
    """It would be infinite for the network, and NaN the result."""
    image = factor * noisy_image((30, 40), np.float64)
    whole = super_resolve(image, 2, model=MODEL, **options)
    assert np.isfinite(whole).all()
    tiled = super_resolve(image, 2, model=MODEL, tile=16, **options)
    np.testing.assert_allclose(tiled, whole, atol=1e-5 * np.abs(whole).max())


def test_8_bit_steps_are_fractions_of_the_range():
    condition = to_condition((0.0, 0.0), 20 / 255, Rescale(50, 150), np.dtype(np.uint8))
    assert condition.compression == pytest.approx(0.2)


# Scale 1 cleans


@pytest.mark.parametrize("options", KINDS)
def test_scale_1_returns_clean_images_as_they_are(options):
    image = noisy_image()
    assert np.array_equal(super_resolve(image, 1, model=MODEL, noise=0, **options), image)
    lazy = super_resolve(da.from_array(image, chunks=(1, 30, 30)), 1, model=MODEL, noise=0, **options)
    assert np.array_equal(lazy.compute(), image)
    assert not np.array_equal(super_resolve(image, 1, model=MODEL, **options), image)
    flat = np.full_like(image, 7)
    assert np.array_equal(super_resolve(flat, 1, model=MODEL, **options), flat)


def test_scale_1_keeps_pixels_without_a_value():
    image = noisy_image(dtype=np.float32)[0]
    image[3:5, 7] = np.nan
    for noise in (0, 5):
        out = super_resolve(image, 1, model=MODEL, noise=noise, nan="keep")
        assert np.array_equal(np.isnan(out), np.isnan(image))


# Networks with a restorer


def with_and_without_restorer():
    model, alone = load_model(), load_model()
    alone.restorer = None
    return model, alone


@pytest.mark.parametrize("scale", [2, 2.5])
def test_noisy_channels_alone_go_through_the_restorer(scale):
    """Whole, tiled and lazy, as through the two networks one by one."""
    model, alone = with_and_without_restorer()
    rows, columns = np.ogrid[:60, :70]
    image = np.stack([noisy_image()[0], (100 + 10 * rows + 7 * columns).astype(np.uint16)])
    ranges, noises = survey(image, channel_axis=0)
    noisy = super_resolve(image[0], scale, model="restore", in_range=ranges[0], noise=noises[0])
    clean = super_resolve(image[1], scale, model=alone, in_range=ranges[1])
    expected = np.stack([noisy, clean])
    assert difference(super_resolve(image[0], scale, model=alone, noise=0), noisy) > 10
    options = {"model": model, "channel_axis": 0}
    assert np.array_equal(super_resolve(image, scale, **options), expected)
    assert difference(super_resolve(image, scale, tile=51, **options), expected) <= 1
    lazy = super_resolve(da.from_array(image, chunks=(1, 40, 40)), scale, **options)
    assert difference(lazy.compute(), expected) <= 1
    assert np.array_equal(
        super_resolve(image, scale, noise=0, **options)[0], super_resolve(image[0], scale, model=alone)
    )


@pytest.mark.parametrize("in_range", [None, (0, 1000)])
def test_weak_noise_is_removed_only_if_asked_for(rng, in_range):
    """What is found of it counts as none: whole, lazy, and in a survey."""
    model, alone = with_and_without_restorer()
    rows, columns = np.ogrid[:60, :70]
    image = 100 + 10.0 * rows + 2 * columns + rng.normal(0, 1.5, (60, 70))
    (span,), (found,) = survey(image, in_range=in_range, tolerance=(0, 0))
    assert 0.001 < noise_fraction(found, span) < model.tolerance.noise
    assert survey(image, in_range=in_range) == ([span], [(0.0, 0.0)])
    kept = super_resolve(image, 2, model=alone, in_range=in_range)
    assert np.array_equal(super_resolve(image, 2, model=model, in_range=in_range), kept)
    lazy = super_resolve(da.from_array(image, chunks=30), 2, model=model, in_range=in_range)
    assert difference(lazy.compute(), kept) <= 2e-5 * 1000
    removed = super_resolve(image, 2, model=model, in_range=in_range, noise=found)
    assert np.array_equal(removed, super_resolve(image, 2, model="restore", in_range=in_range, noise=found))
    assert difference(removed, kept) > 0.5
    slight = ImageFile(image, "YX", compression=model.tolerance.compression / 2)
    assert np.array_equal(super_resolve(slight, 2, model=model, in_range=in_range), kept)
    both = super_resolve(image, 2, model="restore", in_range=in_range, compression=0.1)
    assert np.array_equal(super_resolve(image, 2, model=model, in_range=in_range, compression=0.1), both)
    lazy = super_resolve(da.from_array(image, chunks=30), 2, model=model, in_range=in_range, compression=0.1)
    assert difference(lazy.compute(), both) <= 2e-5 * 1000
    assert survey(image, in_range=in_range, compression=0.1) == ([span], [found])


def test_compressed_files_go_through_the_restorer():
    model, alone = with_and_without_restorer()
    image = noisy_image()[0]
    file = ImageFile(image, "YX", compression=0.1)
    found = super_resolve(file, 2, model=model, noise=0)
    assert np.array_equal(found, super_resolve(file, 2, model="restore", noise=0))
    assert np.array_equal(
        super_resolve(file, 2, model=model, noise=0, compression=0), super_resolve(image, 2, model=alone)
    )


def test_a_network_with_a_restorer_cleans_without_enlarging():
    image = noisy_image()[0]
    assert np.array_equal(super_resolve(image, 1), super_resolve(image, 1, model="restore"))
    assert np.array_equal(super_resolve(image, 1, noise=0), image)


@pytest.mark.parametrize(
    ("depth", "name", "got"),
    [(4, "restore", r"8 and 2, got \(.*\), 40 and 2"), (20, "photo", r"40 and 2, got \('scale',\)")],
)
def test_a_restorer_that_does_not_fit_is_refused(depth, name, got):
    """One with another halo, and one that removes nothing."""
    model = make_model(0, VDSRConfig(depth, 8, fold=2))
    model.restorer = name
    with pytest.raises(ValueError, match=f"`restorer` must have all maps, and the halo and fold of its network, {got}"):
        super_resolve(noisy_image()[0], 2, model=model)


# Networks without maps


def test_networks_without_maps_find_nothing():
    image = noisy_image()
    assert np.array_equal(super_resolve(image, 2, model=PLAIN), super_resolve(image, 2, model=PLAIN, noise=0))
    file = ImageFile(image, "ZYX", compression=0.3)
    assert np.array_equal(super_resolve(file, 2, model=PLAIN), super_resolve(image, 2, model=PLAIN))


@pytest.mark.filterwarnings("always")
def test_networks_without_maps_warn_of_what_they_make_worse(rng):
    noisy = rng.normal(1000, 30, (60, 60)).astype(np.uint16)
    clean = np.add.outer(np.arange(60), np.arange(60)).astype(np.uint16)
    with pytest.warns(UserWarning, match="the image is too noisy for this network"):
        super_resolve(noisy, 2, model=PLAIN)
    with pytest.warns(UserWarning, match="the image is too noisy and too compressed for this network"):
        super_resolve(ImageFile(noisy, "YX", compression=0.2), 2, model=PLAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        super_resolve(clean, 2, model=PLAIN)
        super_resolve(noisy, 2, model=PLAIN, noise=0)
        super_resolve(noisy, 2, model=PLAIN, in_range=(0, 2000))  # it is not looked at
        super_resolve(ImageFile(noisy, "YX", compression=0.2), 2, model=MODEL)


@pytest.mark.parametrize("asked", [{"noise": 3}, {"noise": (1, 0)}, {"compression": 0.2}])
def test_networks_without_maps_refuse_to_remove(asked):
    image = noisy_image()
    (name,) = asked
    for pixels in (image, da.from_array(image)):
        with pytest.raises(ValueError, match=f"`{name}` must be 'auto' or 0 for a network that cannot remove it"):
            super_resolve(pixels, 2, model=PLAIN, **asked)
        with pytest.raises(ValueError, match="`scale` must be greater than 1 for a network that removes neither"):
            super_resolve(pixels, 1, model=PLAIN)


# An ImageFile says how it was compressed


def test_compression_of_a_file_is_used():
    image = noisy_image((3, 40, 50))
    file = ImageFile(image, "CYX", compression=0.2)
    options = {"model": MODEL, "channel_axis": 0}
    found = super_resolve(file, 2, model=MODEL)
    assert np.array_equal(found, super_resolve(image, 2, compression=0.2, **options))
    assert not np.array_equal(found, super_resolve(image, 2, **options))
    assert np.array_equal(super_resolve(file, 2, model=MODEL, compression=0), super_resolve(image, 2, **options))
    out = np.empty_like(found)
    for _ in super_resolve_tiles(file, 2, out, model=MODEL):
        pass
    assert np.array_equal(out, found)
    assert file.with_data(found, (2, 2)).compression == 0


# Bad input


BAD = [-1, np.nan, np.inf, "5", True, None, (1, 2, 3), (-1, 4), (0, -5), (1, np.nan), [(1, 2)] * 4, [[1], [2, 3]]]


@pytest.mark.parametrize("noise", BAD)
@pytest.mark.parametrize("lazy", [False, True])
def test_bad_noise_is_refused(noise, lazy):
    image = noisy_image((2, 20, 20))
    with pytest.raises((ValueError, TypeError), match=r"`noise` must be .* Use 0 for an image without noise"):
        super_resolve(da.from_array(image) if lazy else image, 2, model=MODEL, noise=noise)


@pytest.mark.parametrize("compression", [-0.1, 1.5, np.nan, "auto ", None, True])
@pytest.mark.parametrize("lazy", [False, True])
def test_bad_compression_is_refused(compression, lazy):
    image = noisy_image((2, 20, 20))
    with pytest.raises((ValueError, TypeError), match="`compression` must be 'auto' or a number from 0 to 1"):
        super_resolve(da.from_array(image) if lazy else image, 2, model=MODEL, compression=compression)


@pytest.mark.parametrize("scale", [2, 2.5, (2, 3), 8])
def test_the_scale_is_told(rng, scale):
    model = make_model(0, VDSRConfig(4, 8, maps=("scale",))).double()
    image = rng.random((20, 24))
    rows, columns = np.broadcast_to(scale, 2)
    ilr = torch.from_numpy(resize(image, scale))[None, None]
    with torch.inference_mode():
        expected, other = (
            ilr + model.residual(ilr, torch.tensor([Condition(scale=told)])) for told in ((rows * columns) ** 0.5, 1.5)
        )
    found = super_resolve(image, scale, model=model, in_range=(0, 1), device="cpu")
    np.testing.assert_allclose(found, expected[0, 0], rtol=0, atol=1e-12)
    assert difference(found, other[0, 0]) > 1e-3


def test_a_network_that_is_told_the_scale_alone_cannot_clean(rng):
    model = make_model(0, VDSRConfig(4, 8, maps=("scale",)))
    with pytest.raises(ValueError, match="`scale` must be greater than 1 for a network that removes neither"):
        super_resolve(rng.random((20, 24)), 1, model=model)
