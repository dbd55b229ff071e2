import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from vdsr_core import degrade, estimate_noise
from vdsr_core.images.noise import STRONG, least_variance
from vdsr_core.images.noise_blocks import BLOCKS, Places


def blobs(shape=(256, 320), seed=0):
    """Smooth spots on a dark ground, 10 to about 1000."""
    rng = np.random.default_rng(seed)
    spots = gaussian_filter((rng.random(shape) > 0.998).astype(float), 6)
    return 10 + 990 * spots / spots.max()


@pytest.mark.parametrize(("shot", "read"), [(0, 5), (0, 40), (2, 0), (3, 20)])
def test_added_noise_is_found(shot, read):
    image = blobs()
    noisy = degrade(image, 1, shot_noise=shot, read_noise=read, seed=1)
    gain, offset = estimate_noise(noisy)
    for level in (100, 400):
        assert gain * level + offset == pytest.approx(shot * level + read**2, rel=0.2)
    assert np.mean(np.maximum(gain * image + offset, 0)) == pytest.approx(np.mean(shot * image + read**2), rel=0.12)


def test_smooth_images_have_no_noise():
    gain, offset = estimate_noise(blobs())
    assert np.sqrt(np.maximum(gain * 500 + offset, 0)) < 1


def waves(rng, shape=(256, 256), count=12):
    """A texture of plane waves as short as 3 pixels in all directions."""
    rows, columns = np.indices(shape)
    angles, lengths, phases = rng.uniform([[0], [3], [0]], [[np.pi], [12], [6]], (3, count))
    turned = np.sin(angles)[:, None, None] * rows + np.cos(angles)[:, None, None] * columns
    return np.sin(2 * np.pi * turned / lengths[:, None, None] + phases[:, None, None]).sum(0)


@pytest.mark.parametrize("sigma", [0.0, 2.0, 5.0])
def test_texture_is_not_noise(rng, sigma):
    texture = 100 + 5 * waves(rng)
    assert texture.std() > 10
    gain, offset = estimate_noise(texture + sigma * rng.standard_normal(texture.shape))
    assert np.sqrt(max(gain * 100 + offset, 0)) == pytest.approx(sigma, rel=0.1, abs=0.2)


@pytest.mark.parametrize("sigma", [0.0, 2.0, 5.0])
def test_texture_of_all_sizes_is_not_noise(rng, sigma):
    """A spectrum that falls with frequency as that of photographs, down to the size of a pixel."""
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512))
    frequency[0, 0] = np.inf
    spectrum = (rng.standard_normal(frequency.shape) + 1j * rng.standard_normal(frequency.shape)) / frequency**1.5
    texture = np.fft.irfft2(spectrum, (512, 512))
    image = degrade(100 + 30 * texture / texture.std(), 2, read_noise=sigma, seed=1)
    gain, offset = estimate_noise(image)
    assert np.sqrt(max(gain * 100 + offset, 0)) == pytest.approx(sigma, rel=0.1, abs=0.6)


def test_strong_noise_is_not_taken_for_texture(rng):
    """Slightly blurred noise: its smallest variances differ, as those of texture do."""
    blocks = gaussian_filter(rng.standard_normal((40, 24, 24)), (0, 0.45, 0.45))
    faint, strong = (least_variance(0.5 + size * blocks, 1.0, STRONG**2) / size**2 for size in (0.02, 0.5))
    assert strong > 1.08 * faint
    assert least_variance(0.5 + blocks, 1.0, STRONG**2) == pytest.approx(strong, rel=4 * STRONG**2 / strong)


def test_noise_that_is_faint_beside_texture_is_left(rng):
    """Half a grey level of noise: found on a smooth image, and on a textured one only if it is asked for."""
    texture = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((256, 256))) * (np.hypot(*np.indices((256, 129))) < 60))
    noise = rng.normal(0, 0.5, (256, 256))
    for contrast, found in ((0, True), (30, False)):
        image = blobs((256, 256)) / 8 + contrast * texture / texture.std() + noise
        assert any(estimate_noise(image)) == found
        assert any(estimate_noise(image, faint=True))
    strong = image + rng.normal(0, 40, image.shape)
    assert estimate_noise(strong) == estimate_noise(strong, faint=True)


@pytest.mark.parametrize("seed", [0, 3])
def test_few_bright_places_tell_how_noise_grows(seed):
    """Most of the image is dark: what is bright fills no bin of intensity by itself."""
    rng = np.random.default_rng(seed)
    spots = gaussian_filter((rng.random((220, 204)) > 0.9995).astype(float), 9)
    image = 10 + 990 * spots / spots.max()
    assert np.median(image) < 30 < image.mean()
    gain, _ = estimate_noise(degrade(image, 1, shot_noise=4, seed=1))
    assert gain == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("shape", [(32, 32), (8, 200), (64, 64), (400, 300), (5, 60, 80)])
def test_white_noise_has_the_same_estimate_at_all_sizes(shape):
    found = [estimate_noise(np.random.default_rng(seed).normal(100, 5, shape)) for seed in range(8)]
    assert np.mean([100 * gain + offset for gain, offset in found]) == pytest.approx(25, rel=0.3)


@pytest.mark.parametrize("value", [0, 7])
def test_constant_images_have_no_noise(value):
    assert estimate_noise(np.full((40, 50), value, np.uint16)) == (0, 0)


def test_pixels_without_a_value_do_not_count():
    noisy = degrade(blobs(), 1, shot_noise=2, read_noise=10, seed=1)
    holes = noisy.copy()
    holes[40:150, 100:230] = holes[7, 7] = np.nan
    gain, offset = estimate_noise(holes)
    assert gain * 100 + offset == pytest.approx(2 * 100 + 10**2, rel=0.2)
    assert estimate_noise(np.full_like(noisy, np.nan)) == (0, 0)


def test_black_level_makes_the_offset_negative():
    noisy = degrade(blobs(), 1, shot_noise=4, seed=1) + 500
    gain, offset = estimate_noise(noisy)
    assert gain == pytest.approx(4, rel=0.2)
    assert offset < -500


@given(st.floats(0.01, 100), st.floats(-1000, 1000))
def test_estimate_follows_gain_and_offset_of_the_intensities(a, b):
    noisy = degrade(blobs((120, 130)), 1, shot_noise=2, read_noise=10, seed=1)
    gain, offset = estimate_noise(noisy)
    scaled = estimate_noise(a * noisy + b)
    for level in (50, 400):
        np.testing.assert_allclose(scaled[0] * (a * level + b) + scaled[1], a**2 * (gain * level + offset), rtol=1e-5)


@pytest.mark.parametrize("peak", [2, 20])
def test_photon_counts_on_a_black_ground_are_noise(rng, peak):
    """Most pixels are 0, the lowest value, and yet none is clipped."""
    photons = peak * np.clip((blobs() - 100) / 900, 0, 1)
    counts = rng.poisson(photons).astype(np.uint16)
    assert (counts == 0).mean() > 0.4
    gain, offset = estimate_noise(counts)
    assert gain * photons.mean() + offset == pytest.approx(photons.mean(), rel=0.15)


@pytest.mark.parametrize("value", [0, 118, 130])
def test_filled_borders_do_not_count(rng, value):
    """As registration and stitching leave them, straight or slanted, whatever the value."""
    noisy = 120 + rng.normal(0, 8, (300, 320))
    noisy[:70] = noisy[:, :50] = value
    rows, columns = np.indices(noisy.shape)
    noisy[2.3 * rows + columns > 750] = value
    gain, offset = estimate_noise(noisy)
    assert gain * 120 + offset == pytest.approx(64, rel=0.15)


def test_narrow_filled_bands_do_not_count(rng):
    """Most blocks hold a part of a band."""
    noisy = 120 + rng.normal(0, 8, (480, 480))
    noisy[np.arange(480) % 48 < 16] = 120
    gain, offset = estimate_noise(noisy)
    assert gain * 120 + offset == pytest.approx(64, rel=0.15)


def test_blank_planes_do_not_count(rng):
    stack = np.stack([np.full((160, 160), 100.0)] * 5 + [100 + rng.normal(0, 8, (160, 160))])
    gain, offset = estimate_noise(stack)
    assert gain * 100 + offset == pytest.approx(64, rel=0.2)


def test_drawings_have_no_noise(rng):
    """Wavy hatching on constant paper: its texture is far stronger than faint noise."""
    rows, columns = np.indices((400, 400))
    waves = gaussian_filter(rng.normal(size=rows.shape), 8)
    hatching = np.sin(2 * np.pi / 5 * (0.8 * columns + 0.6 * rows + 4 * waves / waves.std())) > 0.2
    hatching[(rows > 250) | (columns > 200 + 30 * np.sin(rows / 20))] = False
    drawing = gaussian_filter(np.where(hatching, 0.0, 250.0), 0.5).round().astype(np.uint8)
    gain, offset = estimate_noise(drawing)
    assert np.sqrt(max(gain * 128 + offset, 0)) < 1


def test_clipped_blocks_do_not_count():
    rng = np.random.default_rng(0)
    image = rng.normal(100, 20, (200, 200))
    image[:, 100:] = np.clip(rng.normal(-60, 20, (200, 100)), 0, None)  # mostly black
    gain, offset = estimate_noise(np.clip(image, 0, None))
    assert gain * 100 + offset == pytest.approx(400, rel=0.15)


@pytest.mark.parametrize("shape", [(4, 4), (1, 9), (3, 5, 7), (2, 2, 30, 33)])
def test_small_images_have_some_estimate(rng, shape):
    gain, offset = estimate_noise(rng.normal(100, 5, shape))
    assert gain >= 0
    assert np.isfinite(offset)


@pytest.mark.parametrize("shape", [(40, 50), (700, 900), (20, 300, 400), (500, 30, 40), (3, 200, 64, 64)])
def test_places_are_few_and_inside(shape):
    places = list(Places.of(shape).slices())
    assert 0 < len(places) <= 1.2 * BLOCKS
    assert all(0 <= part.start < part.stop <= n for place in places for part, n in zip(place, shape, strict=True))
    assert len(set(map(str, places))) == len(places)


def test_dask_and_zarr_arrays_give_the_same(rng):
    da = pytest.importorskip("dask.array")
    zarr = pytest.importorskip("zarr")
    image = rng.poisson(blobs((90, 110))).astype(np.uint16)
    expected = estimate_noise(image)
    assert estimate_noise(da.from_array(image, chunks=(17, 30))) == expected
    assert estimate_noise(zarr.array(image, chunks=(32, 32))) == expected


@pytest.mark.parametrize("peak", [1e-200, 1e150, 1e200, 1.7e308])
def test_extreme_values_are_no_obstacle(rng, peak):
    gain, offset = estimate_noise(peak * rng.normal(0.5, 0.01, (60, 60)).clip(0, 1))
    assert np.isfinite([gain, offset]).all()
    assert estimate_noise(np.array([[-1.7e308, 1.7e308]] * 20).repeat(10, 1)) == (0, 0)
