import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vdsr_core import degrade, estimate_degradation, resize
from vdsr_core.images.degradation import measure_noise


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


@pytest.mark.parametrize("noise", [0, 0.01, 0.03])
@pytest.mark.parametrize("scale", [2, 3])
def test_estimated_noise_and_blur_are_near_what_was_there(scale, noise):
    """Edges of a known softness: that of the reduced image is the same after sqrt(scale**2 - 1) times its blur."""
    rng = np.random.default_rng(0)
    edges = np.zeros((192, 192))
    for _ in range(192):
        row, column = rng.integers(0, 188, 2)
        edges[row : row + rng.integers(2, 48), column : column + rng.integers(2, 48)] = rng.random()
    image = ndimage.gaussian_filter(edges, 1.5) + noise * rng.standard_normal(edges.shape)
    blur, read_noise = estimate_degradation(image, scale)
    assert 0.8 < blur / (1.5 * np.sqrt(scale**2 - 1)) < 1.4
    assert read_noise == pytest.approx(noise, rel=0.15, abs=1e-3)
    assert estimate_degradation(1000 * image, scale) == pytest.approx((blur, 1000 * read_noise), rel=0.02, abs=1e-6)
    assert measure_noise(image + np.arange(192)) == pytest.approx(measure_noise(image), rel=0.1, abs=1e-4)


def test_nothing_is_estimated_in_a_small_image():
    with pytest.raises(ValueError, match=r"at least 16 \* `scale` pixels a side, got shape \(31, 40\)"):
        estimate_degradation(np.zeros((31, 40)), 2)


def test_integers_are_rounded(rng):
    image = rng.integers(0, 256, (12, 12), np.uint8)
    np.testing.assert_array_equal(degrade(image, 2), np.clip(np.rint(degrade(image.astype(float), 2)), 0, 255))


def test_enlarging_is_refused():
    with pytest.raises(ValueError, match=r"`scale` must be at least 1, got 0.5. Use `super_resolve`"):
        degrade(np.zeros((4, 4)), 0.5)


def test_too_small_image_is_named():
    with pytest.raises(ValueError, match=r"`image` must have at least `scale` pixels a side, got shape \(3, 9\)"):
        degrade(np.zeros((3, 9)), 4)


def test_blur_is_a_gaussian_before_the_reduction(rng):
    image = rng.random((2, 30, 40))
    expected = ndimage.gaussian_filter(image, (0, 1.5, 1.5), mode="reflect")
    np.testing.assert_allclose(degrade(image, 2, blur=1.5), degrade(expected, 2), atol=1e-4)
    assert np.abs(degrade(image, 2) - degrade(expected, 2)).max() > 0.05


@pytest.mark.parametrize(("shot", "read"), [(4, 0), (0, 30), (4, 30)])
def test_noise_has_the_mean_and_the_variance_it_should(shot, read):
    for value in (50.0, 1000.0):
        image = np.full((400, 400), value)
        noise = degrade(image, 2, shot_noise=shot, read_noise=read, seed=0) - value
        assert noise.var() == pytest.approx(shot * value + read**2, rel=0.03)
        assert abs(noise.mean()) < 4 * noise.std() / 200


def test_noise_follows_from_the_seed(rng):
    image = rng.random((20, 20))
    generator = np.random.default_rng(3)
    first, second = (degrade(image, 2, read_noise=0.1, seed=generator) for _ in range(2))
    np.testing.assert_array_equal(degrade(image, 2, read_noise=0.1, seed=3), first)
    assert not np.array_equal(first, second)


def test_noisy_integers_are_rounded_and_saturated():
    image = np.full((40, 40), 250, np.uint8)
    noisy = degrade(image, 2, read_noise=50, seed=0)
    assert noisy.dtype == np.uint8
    assert noisy.max() == 255
    assert noisy.min() > 0


@pytest.mark.parametrize("name", ["blur", "shot_noise", "read_noise"])
def test_negative_blur_or_noise_is_named(name):
    with pytest.raises(ValueError, match=f"`{name}` must be a finite number of at least 0, got -1"):
        degrade(np.ones((8, 8)), 2, **{name: -1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blur": "a"}, "`blur` must be a finite number of at least 0, got 'a'"),
        ({"shot_noise": [1]}, "`shot_noise` must be a finite number of at least 0"),
        ({"seed": "a"}, "`seed` must be an integer of at least 0, a Generator or None, got 'a'"),
        ({"seed": -1}, "`seed` must be an integer of at least 0, a Generator or None, got -1"),
    ],
)
def test_degrade_names_wrong_options(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        degrade(np.zeros((8, 8)), 2, **options)


@pytest.mark.parametrize("scale", [2, 3, (1, 4)])
def test_box_kernel_gives_the_means_of_areas(rng, scale):
    image = rng.random((2, 12, 24))
    rows, columns = np.broadcast_to(scale, 2)
    means = image.reshape(2, 12 // rows, rows, 24 // columns, columns).mean((2, 4))
    np.testing.assert_allclose(degrade(image, scale, kernel="box"), means, atol=1e-12)


def test_lanczos_kernel_is_that_of_pillow_away_from_the_edges(rng):
    image = rng.random((96, 96)).astype(np.float32)
    pillow = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS))
    ours = degrade(image.astype(np.float64), 3, kernel="lanczos")
    np.testing.assert_allclose(ours[4:-4, 4:-4], pillow[4:-4, 4:-4], atol=1e-5)


@pytest.mark.parametrize("kernel", ["box", "lanczos"])
def test_kernels_keep_constants(kernel):
    np.testing.assert_allclose(degrade(np.full((23, 31), 0.7), 2.37, kernel=kernel), 0.7, atol=1e-12)


def test_jpeg_is_what_pillow_writes_and_reads(rng, tmp_path):
    image = rng.integers(0, 256, (40, 60), np.uint8)
    Image.fromarray(degrade(image, 2)).save(tmp_path / "low.jpg", quality=60)
    expected = np.asarray(Image.open(tmp_path / "low.jpg"))
    np.testing.assert_array_equal(degrade(image, 2, jpeg=60), expected)
    floats = degrade(degrade(image, 2) / 255, 1, jpeg=60)
    np.testing.assert_allclose(floats, expected / 255, atol=1e-12)


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"kernel": "nearest"}, "`kernel` must be one of bicubic, box, lanczos, got 'nearest'"),
        ({"jpeg": 0}, "`jpeg` must be .* got 0"),
        ({"jpeg": 101}, "`jpeg` must be a quality from 1 to 100, got 101"),
    ],
)
def test_bad_kernel_or_quality_is_named(option, match):
    with pytest.raises(ValueError, match=match):
        degrade(np.zeros((8, 8)), 2, **option)


def test_jpeg_of_wide_integers_is_refused():
    with pytest.raises(TypeError, match="`image` must be 8-bit or of floats from 0 to 1 for `jpeg`, got uint16"):
        degrade(np.zeros((8, 8), np.uint16), 2, jpeg=75)
