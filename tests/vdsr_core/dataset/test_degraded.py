import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vdsr_core import degrade
from vdsr_core.dataset.degraded import degrade_at_random, estimate_condition, mean_step
from vdsr_core.network.model import Condition


def draws(image, count=60, scale=2):
    return [degrade_at_random(image, scale, np.random.default_rng(seed)) for seed in range(count)]


def test_noise_has_the_variance_that_the_network_is_told():
    """Of an image of two intensities, far from black and white, so that nothing is clipped."""
    image = np.repeat([0.4, 0.6], 200)[:, None] * np.ones(400)
    noisy = [(low, told) for low, told in draws(image) if not told.compression and told != Condition()]
    assert {told.gain > 0 for _, told in noisy} == {True, False}
    for low, told in noisy:
        for half, value in ((low[:90], 0.4), (low[110:], 0.6)):
            rounding = 1 / 255**2 / 12
            assert half.var() == pytest.approx(told.gain * value + told.offset, rel=0.05, abs=2 * rounding)


def test_compressed_images_are_those_of_files(rng):
    image = np.add.outer(np.linspace(0, 0.5, 64), np.linspace(0, 0.5, 64))
    seen = 0
    for low, told in draws(image):
        if told.compression and not (told.gain or told.offset):
            qualities = [q for q in range(30, 96) if mean_step(q) == told.compression]
            options = [{"kernel": kernel} for kernel in ("bicubic", "box", "lanczos")]
            files = [degrade(image, 2, jpeg=q, **option) for q in qualities for option in options]
            seen += any(np.array_equal(low, file) for file in files)
    assert seen > 5  # the others were blurred


@pytest.mark.parametrize("quality", [30, 50, 95])
def test_mean_step_is_that_of_the_standard_table(quality):
    """The table of ISO/IEC 10918-1, Annex K, as libjpeg scales it."""
    file = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(file, "JPEG", quality=50)
    table = np.array(Image.open(file).quantization[0])
    factor = 5000 // quality if quality < 50 else 200 - 2 * quality
    scaled = np.clip((table * factor + 50) // 100, 1, 255)
    assert mean_step(quality) == pytest.approx(scaled.mean() / 255)


@given(seed=st.integers(0, 2**32), scale=st.sampled_from([1.5, 2, 3]))
def test_degraded_images_follow_from_the_seed_and_have_the_shape_of_degrade(seed, scale):
    image = np.random.default_rng(0).random((30, 41))
    (low, told), (again, same) = (degrade_at_random(image, scale, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(low, again)
    assert told == same
    assert low.shape == degrade(image, scale).shape
    assert min(told) >= 0


def test_each_kind_is_drawn(rng):
    found = {(told.compression > 0, told.gain + told.offset > 0) for _, told in draws(rng.random((16, 16)), count=200)}
    assert found == {(a, b) for a in (False, True) for b in (False, True)}


def test_estimated_condition_is_that_of_the_noise_alone(rng):
    noisy = 0.5 + rng.normal(0, 0.03, (200, 200))
    told = estimate_condition(noisy, 0.1)
    assert told.gain * 0.5 + told.offset == pytest.approx(0.03**2, rel=0.15)
    assert told.compression == 0.1
