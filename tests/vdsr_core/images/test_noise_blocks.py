import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from vdsr_core.images.axes import find_axes
from vdsr_core.images.noise_blocks import Places, Samples, sample
from vdsr_core.images.ranges import scan_windows

LAYOUTS = [
    ((50, 70), {}),
    ((3, 41, 60), {}),
    ((3, 41, 60), {"channel_axis": 0}),
    ((41, 60, 3), {"channel_axis": -1}),
    ((41, 60, 4), {"rgb": True}),
    ((2, 41, 2, 60), {"channel_axis": 2}),
]


def expected_blocks(image, axes):
    """Block by block, from the definition."""
    for channel in range(axes.channels):
        for place in Places.of((*Samples(axes, image.dtype).plane_of(axes.leading), *axes.plane)).slices():
            leading = list(place[:-2])
            if axes.channel is not None:
                leading.insert(axes.channel, slice(channel, channel + 1))
            piece = axes.unpack(image[axes.native((*leading, *place[-2:]))]).astype(float)
            weights = np.array([65.481, 128.553, 24.966]) / 219
            yield np.tensordot(weights, piece[:3], 1) if len(piece) > 1 else piece[0]


@pytest.mark.parametrize(("shape", "options"), LAYOUTS)
@pytest.mark.parametrize("chunked", [False, True])
def test_blocks_are_those_of_the_definition(rng, shape, options, chunked):
    image = rng.integers(0, 1000, shape, np.uint16)
    axes = find_axes(image, options.get("channel_axis"), options.get("rgb", False))
    found = sample(zarr.array(image, chunks=tuple(min(n, 16) for n in shape)) if chunked else image, axes)
    flat = np.concatenate([b.reshape(-1, *b.shape[-2:]) for b in found.blocks])
    np.testing.assert_allclose(flat, list(expected_blocks(image, axes)), rtol=1e-12)


@given(shape=st.tuples(st.integers(1, 90), st.integers(1, 90)), chunk=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_windows_together_hold_all_blocks(shape, chunk):
    image = np.random.default_rng(0).random(shape)
    axes = find_axes(image, None, False)
    whole, samples = sample(image, axes), Samples(axes, image.dtype)
    samples.blocks[0][:] = np.nan
    down, right = (range(0, n, size) for n, size in zip(shape, chunk, strict=True))
    for top in down:
        for left in right:
            window = slice(top, min(top + chunk[0], shape[0])), slice(left, min(left + chunk[1], shape[1]))
            samples.add((), window, image[window][None])
    assert np.array_equal(samples.blocks[0], whole.blocks[0])


def test_slabs_of_a_scan_hold_all_blocks(rng):
    image = rng.random((300, 200))
    axes = find_axes(image, None, False)
    samples = Samples(axes, image.dtype)
    for window in scan_windows(image.shape, (40, 60)):
        samples.add((), window, image[window][None])
    assert np.array_equal(samples.blocks[0], sample(image, axes).blocks[0])
