"""Pixels without a value: `nan="keep"`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsr_core import ImageFile, find_range, plan, read_image, stream, super_resolve, super_resolve_tiles, verify
from vdsr_core.images.missing import fill

LAYOUTS = [
    ((23, 31), {}),
    ((2, 23, 31), {"channel_axis": 0}),
    ((23, 31, 3), {"rgb": True}),
    ((23, 31, 4), {"rgb": True}),
]


def draw_image(seed, shape, share, dtype=np.float32):
    """Random pixels in [0, 1], a hole, and single pixels without a value."""
    rng = np.random.default_rng(seed)
    image = rng.random(shape).astype(dtype)
    image[rng.random(shape) < share] = np.nan
    axis = 1 if shape[0] == 2 else 0
    hole = [slice(None)] * len(shape)
    hole[axis], hole[axis + 1] = slice(3, 18), slice(4, 20)
    image[tuple(hole)] = np.nan
    return image


@pytest.mark.parametrize(("shape", "options"), LAYOUTS)
@given(seed=st.integers(0, 99), share=st.sampled_from([0, 0.02, 0.5, 1]), scale=st.sampled_from([2, 2.37, (1, 3)]))
@settings(max_examples=6)
def test_tiled_equals_whole_equals_lazy_equals_window(tiny, shape, options, seed, share, scale):
    da = pytest.importorskip("dask.array")
    image = draw_image(seed, shape, share, np.float64)
    options = {**options, "model": tiny, "nan": "keep"}
    whole = super_resolve(image, scale, tile=None, **options)
    tiled = np.zeros_like(whole)
    for _ in super_resolve_tiles(image, scale, tiled, tile=11, **options):
        pass
    np.testing.assert_allclose(tiled, whole, atol=1e-12)
    chunks = tuple(n if n <= 4 else 9 for n in shape)
    lazy = super_resolve(da.from_array(image, chunks), scale, tile=11, **options)
    np.testing.assert_array_equal(lazy.compute(scheduler="sync"), tiled)
    window = (slice(5, 17), slice(9, 30))
    part = super_resolve(image, scale, tile=11, window=window, **options)
    rows = 1 if options.get("channel_axis") == 0 else 0
    np.testing.assert_array_equal(part, tiled[(slice(None),) * rows + window])


@pytest.fixture(scope="module")
def tiny():
    import torch

    from vdsr_core import VDSR, VDSRConfig

    torch.manual_seed(0)
    return VDSR(VDSRConfig(depth=4, width=8))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_result_is_that_of_the_filled_image_but_for_the_pixels_without_a_value(tiny, dtype):
    image = draw_image(0, (23, 31), 0.02, dtype)
    low, high = find_range(image, nan="keep")
    result = super_resolve(image, 3, model=tiny, nan="keep")
    assert result.dtype == dtype
    np.testing.assert_array_equal(np.isnan(result), np.isnan(image).repeat(3, 0).repeat(3, 1))
    filled = super_resolve(fill(image, low), 3, model=tiny, in_range=(low, high)).astype(dtype)
    known = ~np.isnan(result)
    np.testing.assert_allclose(result[known], filled[known], atol=1e-3 if dtype == np.float16 else 1e-6)


def test_an_image_that_has_all_values_is_upscaled_as_ever(tiny, rng):
    for image in (rng.random((9, 12)), rng.integers(0, 99, (9, 12))):
        np.testing.assert_array_equal(
            super_resolve(image, 2, model=tiny, nan="keep"), super_resolve(image, 2, model=tiny)
        )


@pytest.mark.parametrize("value", [0.0, 7.0])
@pytest.mark.parametrize(("shape", "options"), LAYOUTS[:3])  # colour with alpha goes through the network
def test_constant_images_stay_constant_around_their_holes(tiny, shape, options, value):
    image = draw_image(0, shape, 0.02)
    image[~np.isnan(image)] = value
    result = super_resolve(image, 2, model=tiny, nan="keep", **options)
    assert set(np.unique(result[~np.isnan(result)])) == set(np.unique(image[~np.isnan(image)]))


@pytest.mark.parametrize(("shape", "options"), LAYOUTS)
def test_an_image_without_any_value_stays_so(tiny, shape, options):
    da = pytest.importorskip("dask.array")
    image = np.full(shape, np.nan, np.float32)
    assert np.isnan(super_resolve(image, 2, model=tiny, nan="keep", **options)).all()
    assert np.isnan(super_resolve(da.from_array(image), 2, model=tiny, nan="keep", **options).compute()).all()


def test_a_channel_without_any_value_leaves_the_others_alone(tiny, rng):
    image = rng.random((2, 9, 12))
    image[0] = np.nan
    result = super_resolve(image, 2, model=tiny, channel_axis=0, nan="keep")
    assert np.isnan(result[0]).all()
    np.testing.assert_array_equal(result[1], super_resolve(image[1], 2, model=tiny))


def test_infinity_and_unasked_nan_are_errors(tiny):
    da = pytest.importorskip("dask.array")
    image = np.ones((8, 8))
    image[0, 0], image[1, 1] = np.nan, np.inf
    with pytest.raises(ValueError, match="got 1 NaN or infinite pixels"):
        super_resolve(image, 2, model=tiny, nan="keep")
    with pytest.raises(ValueError, match="got 1 NaN or infinite pixels in its chunk"):
        super_resolve(da.from_array(image), 2, model=tiny, nan="keep").compute()
    with pytest.raises(ValueError, match=r"got 2 NaN .* or keep NaN by `nan='keep'`"):
        super_resolve(image, 2, model=tiny)
    with pytest.raises(ValueError, match="`nan` must be 'raise' or 'keep', got 'omit'"):
        super_resolve(image, 2, model=tiny, nan="omit")


@pytest.mark.parametrize(("shape", "options"), [*LAYOUTS[:3], ((2, 3, 40, 31), {"channel_axis": 1})])
@pytest.mark.parametrize("target", ["out.ome.zarr", "out.ome.tif"])
def test_streamed_equals_whole_and_verifies(tmp_path, tiny, shape, options, target):
    image = draw_image(0, shape, 0.02)
    axes = {2: "YX", 4: "TCYX"}.get(len(shape)) or ("YXS" if "rgb" in options else "CYX")
    source = ImageFile(image, axes)
    job = plan(source, 2.5, tmp_path / target, model=tiny, tile=16, shard=32, nan="keep")
    list(stream(job, image=source, model=tiny))
    whole = super_resolve(image, 2.5, model=tiny, tile=16, nan="keep", **options)
    result = read_image(tmp_path / target)
    letters = result.axes.replace("C", "S") if "S" in axes else result.axes
    order = [axes.index(letter) for letter in letters]
    np.testing.assert_array_equal(np.asarray(result.data[...]), np.transpose(whole, order))
    checks = list(verify(tmp_path / target, source=source, model=tiny, samples=3))
    assert all(check.ok for check in checks)
    with pytest.raises(ValueError, match="must be finite"):
        plan(source, 2, tmp_path / f"other.{target}", model=tiny)
