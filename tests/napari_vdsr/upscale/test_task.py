import threading
from math import prod

import numpy as np
import pytest
import torch

pytest.importorskip("napari")
from napari.layers import Image

from napari_vdsr import upscale_layer
from napari_vdsr.layers import image_layers
from napari_vdsr.upscale.task import Task, find
from vdsr_core import VDSR, VDSRConfig, estimate_noise, find_range, save_checkpoint, super_resolve

NEVER = threading.Event()


@pytest.fixture
def mapped(tmp_path):
    """A network that is told of noise."""
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "mapped.safetensors", VDSR(VDSRConfig(depth=4, width=8, maps=("noise",))))
    return str(tmp_path / "mapped.safetensors")


@pytest.fixture
def uneven(rng):
    """A stack whose planes are ever noisier."""
    planes = [rng.normal(1000 + 30 * number, 5 + 10 * number, (60, 72)) for number in range(5)]
    return np.stack(planes).astype(np.uint16)


@pytest.mark.parametrize("channel_axis", [None, 0])
def test_a_lazy_layer_is_what_super_resolve_makes_of_the_same_array(mapped, uneven, channel_axis):
    lazy = pytest.importorskip("dask.array").from_array(uneven, chunks=(2, 30, 40))
    options = {"model": mapped, "channel_axis": channel_axis}
    expected = super_resolve(lazy, 2, **options).compute()
    data, keywords, _ = upscale_layer(Image(lazy, name="lazy", rgb=False), 2, **options)
    np.testing.assert_array_equal(data, expected)
    in_memory, _, _ = upscale_layer(Image(uneven, name="here", rgb=False), 2, **options)
    np.testing.assert_array_equal(in_memory, expected)
    assert keywords["metadata"]["vdsr"]["noise"] == estimate_noise(uneven, channel_axis=channel_axis)
    part = (slice(1, 2), slice(0, 60), slice(0, 72))
    plane, _, _ = upscale_layer(Image(lazy, name="lazy", rgb=False), 2, part=part, **options)
    np.testing.assert_array_equal(plane, expected[1:2])


def test_what_is_too_weak_is_neither_removed_nor_claimed(rng):
    """The default network: one channel is noisy, in the other one there is too little noise."""
    ramp = np.add.outer(10.0 * np.arange(60), 4.0 * np.arange(50))
    pixels = 100 + np.stack([ramp + rng.normal(0, 30, ramp.shape), ramp + rng.normal(0, 0.8, ramp.shape)])
    data, keywords, _ = upscale_layer(Image(pixels, name="both", rgb=False), 2, channel_axis=0)
    np.testing.assert_array_equal(data, super_resolve(pixels, 2, channel_axis=0))
    strong, weak = keywords["metadata"]["vdsr"]["noise"]
    assert strong != (0, 0) == weak


class Vast:
    """Noise about a level, made when it is read, with an empty middle."""

    shape, dtype, ndim = (7, 1 << 17, 1 << 16), np.dtype(np.uint16), 3

    def __init__(self):
        self.read = 0

    def __getitem__(self, key):
        shape = [part.stop - part.start for part in key]
        self.read += prod(shape)
        pixels = np.random.default_rng(self.read).normal(5000, 40, shape)
        if key[1].start < (1 << 16) < key[1].stop:
            pixels[:] = 0
        return pixels.astype(np.uint16)


def test_noise_of_a_vast_pyramid_is_found_in_windows_that_are_spread_over_it(mapped):
    vast, coarse = Vast(), np.arange(7 * 64 * 32, dtype=np.uint16).reshape(7, 64, 32)
    part = tuple(slice(0, length) for length in vast.shape)
    task = Task(image_layers.Source(vast, "vast", rgb=False, channel_axis=None, part=part), 2, mapped, looked_at=coarse)
    found = find(task, NEVER)
    ((gain, offset),) = found.noise
    assert (5000 * gain + offset) ** 0.5 == pytest.approx(40, rel=0.1)
    assert vast.read <= 64 * 256 * 256
    assert found.in_range == find_range(coarse)
    assert find(task, NEVER) == found
    assert vast.read <= 64 * 256 * 256  # it is remembered
