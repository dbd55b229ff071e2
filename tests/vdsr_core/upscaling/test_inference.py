import itertools
import math
import threading
import warnings

import numpy as np
import psutil
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsr_core import VDSR, VDSRConfig, degrade, find_range, load_model, resize, super_resolve, super_resolve_tiles
from vdsr_core.images.color import rgb_to_ycbcr
from vdsr_core.network.engine import Engine

TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}
LAYOUTS = [
    ((11, 14), {}),
    ((2, 11, 14), {}),
    ((2, 3, 11, 14), {}),
    ((3, 11, 14), {"channel_axis": 0}),
    ((11, 14, 2), {"channel_axis": -1}),
    ((2, 11, 3, 14), {"channel_axis": 2}),
    ((11, 14, 3), {"rgb": True}),
    ((11, 14, 4), {"rgb": True}),
    ((2, 11, 14, 3), {"rgb": True}),
    ((3, 11, 14), {"rgb": True, "channel_axis": 0}),
    ((2, 11, 4, 14), {"rgb": True, "channel_axis": 2}),
]


SHAPES = [{}, {"fold": 2, "blocks": True}, {"fold": 3}]  # of networks


def make_model(seed=0, depth=4, width=8, **shape):
    torch.manual_seed(seed)
    return VDSR(VDSRConfig(depth, width, **shape))


# The law: tiled == whole


@pytest.mark.parametrize("scale", [2, 2.37, 3, 4, (1, 2.5)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@given(
    shape=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    tile=st.integers(8, 40),
    network=st.sampled_from(SHAPES),
    self_ensemble=st.booleans(),
)
@settings(max_examples=16, deadline=None)
def test_tiled_equals_whole(dtype, scale, shape, tile, network, self_ensemble):
    image = np.random.default_rng(1).random(shape).astype(dtype)
    model = make_model(**network).to(torch.float64 if dtype is np.float64 else torch.float32)
    options = {"model": model, "in_range": (0, 1), "self_ensemble": self_ensemble}
    whole = super_resolve(image, scale, tile=None, **options)
    tiled = super_resolve(image, scale, tile=tile, **options)
    assert np.abs(tiled - whole).max() <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_tiled_equals_whole_to_a_step_for_integers(rng, dtype, tiny_model):
    limits = np.iinfo(dtype)
    image = rng.integers(limits.min, limits.max, (30, 31), dtype, endpoint=True)
    whole, tiled = (super_resolve(image, 2, model=tiny_model, tile=tile).astype(int) for tile in (None, 17))
    assert np.abs(whole - tiled).max() <= 1


def test_default_network_is_tiled_exactly(rng):
    """The network that ships, depth 20: a halo of 19 would show as 2e-5."""
    image = rng.random((40, 36)).astype(np.float32)
    whole, tiled = (super_resolve(image, 2, tile=tile, in_range=(0, 1)) for tile in (None, 29))
    assert np.abs(whole - tiled).max() < 5e-6


@pytest.mark.parametrize(("shape", "options"), LAYOUTS)
def test_result_is_the_interpolated_image_plus_the_residual(rng, shape, options):
    """Against the definition, plane by plane, for every layout of axes."""
    image = rng.random(shape)
    model = make_model().double()
    out = super_resolve(image, 2, model=model, in_range=(0, 1), tile=9, **options)
    axis = options.get("channel_axis", -1 if options.get("rgb") else None)
    planes, result = (image, out) if axis is None else (np.moveaxis(image, axis, -3), np.moveaxis(out, axis, -3))

    def network(plane):
        ilr = torch.from_numpy(resize(plane, 2))
        return model(ilr.reshape(-1, 1, *ilr.shape[-2:])).detach().numpy().reshape(ilr.shape)

    if not options.get("rgb"):
        np.testing.assert_allclose(result, network(planes), atol=1e-12)
        return
    colour, alpha = planes[..., :3, :, :], planes[..., 3:, :, :]
    if alpha.size:
        np.testing.assert_allclose(result[..., 3:, :, :], np.clip(resize(alpha, 2), 0, 1), atol=1e-12)
        return  # colour: see test_opaque_alpha_changes_nothing and test_transparent_colour_does_not_bleed
    ycbcr, got = (rgb_to_ycbcr(np.moveaxis(x, -3, 0)) for x in (colour, result))
    np.testing.assert_allclose(got[0], network(ycbcr[0]), atol=1e-12)
    np.testing.assert_allclose(got[1:], resize(ycbcr[1:], 2), atol=1e-12)


@pytest.mark.parametrize(("shape", "options"), LAYOUTS)
@pytest.mark.parametrize("scale", [2, 2.37])
def test_tiles_are_yielded_after_they_are_written_once(rng, shape, options, scale, tiny_model):
    image = rng.integers(0, 4096, shape, np.uint16)
    expected = super_resolve(image, scale, model=tiny_model, tile=11, **options)
    out, count = np.zeros(expected.shape, np.uint16), np.zeros(expected.shape, int)
    for tile in super_resolve_tiles(image, scale, out, model=tiny_model, tile=11, **options):
        np.testing.assert_array_equal(out[tile.write], expected[tile.write])
        np.testing.assert_array_equal(expected[tile.read][tile.crop], expected[tile.write])
        count[tile.write] += 1
    assert np.all(count == 1)


@pytest.mark.parametrize(("shape", "options"), LAYOUTS)
@pytest.mark.parametrize("scale", [2, 2.37])
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_window_equals_that_of_the_whole(shape, options, scale, data):
    """To rounding; bit for bit where the window is made of whole tiles."""
    image = np.random.default_rng(1).random(shape)
    model = make_model(**data.draw(st.sampled_from(SHAPES))).double()
    whole = super_resolve(image, scale, model=model, tile=8, **options)
    axis = options.get("channel_axis", -1 if options.get("rgb") else None)
    lengths = np.delete(whole.shape, axis)[-2:] if axis is not None else whole.shape[-2:]
    starts = [data.draw(st.integers(0, int(n) - 1)) for n in lengths]
    stops = [data.draw(st.integers(start + 1, int(n))) for start, n in zip(starts, lengths, strict=True)]
    window = (slice(starts[0], stops[0]), slice(starts[1], stops[1]))

    for given_range in ({}, {"in_range": find_range(image, **options)}):
        found = super_resolve(image, scale, model=model, tile=8, window=window, **given_range, **options)
        np.testing.assert_allclose(found, _window(whole, axis, window), rtol=0, atol=1e-12)
        tiles = tuple(slice(start // 8 * 8, -(-stop // 8) * 8) for start, stop in zip(starts, stops, strict=True))
        found = super_resolve(image, scale, model=model, tile=8, window=tiles, **given_range, **options)
        np.testing.assert_array_equal(found, _window(whole, axis, tiles))


def _window(array, axis, window):
    """Rows and columns of an array whose colour or channel axis is `axis`."""
    if axis is None:
        return array[(..., *window)]
    return np.moveaxis(np.moveaxis(array, axis, 0)[(..., *window)], 0, axis)


def test_tiles_of_a_window_are_written_once_on_its_own_grid(rng, tiny_model):
    image = rng.integers(0, 4096, (2, 15, 14, 3), np.uint16)
    window = (slice(5, 23), slice(-20, None))
    out = np.zeros((2, 18, 20, 3), np.uint16)
    count = np.zeros(out.shape, int)
    for tile in super_resolve_tiles(image, 2, out, rgb=True, model=tiny_model, tile=11, window=window):
        count[tile.write] += 1
        np.testing.assert_array_equal(out[tile.read][tile.crop], out[tile.write])
    assert np.all(count == 1)
    np.testing.assert_array_equal(out, super_resolve(image, 2, rgb=True, model=tiny_model, tile=11)[:, 5:23, 8:28])


@pytest.mark.parametrize("engine", ["torch", "ncnn"])
@pytest.mark.parametrize("looks", [0, 1, 2, 5, 7, 13])
def test_stop_ends_in_the_midst_of_a_tile(rng, tiny_model, impatient, engine, looks):
    if engine == "ncnn":
        pytest.importorskip("ncnn")
    network = Engine(tiny_model, torch.device("cpu"), fast=engine == "ncnn")
    assert network.name == engine
    image = rng.random((1, 20, 12)).astype(np.float32)
    whole = super_resolve(image, 2, model=network, in_range=(0, 1), tile=20)
    out = np.full_like(whole, -1)
    tiles = super_resolve_tiles(image, 2, out, model=network, in_range=(0, 1), tile=20, stop=impatient(looks))
    written = [tile.write for tile in tiles]
    assert len(written) == looks // (
        1 + tiny_model.config.depth
    )  # before a tile and before each layer of its one strip
    expected = np.full_like(whole, -1)
    for write in written:
        expected[write] = whole[write]
    np.testing.assert_array_equal(out, expected)


def test_the_nearest_tiles_come_first(rng, tiny_model):
    image = rng.random((3, 15, 15))
    out, expected = np.empty((3, 30, 30)), super_resolve(image, 2, model=tiny_model, tile=10)
    tiles = list(super_resolve_tiles(image, 2, out, model=tiny_model, tile=10, near=(1, 25, 12)))
    np.testing.assert_array_equal(out, expected)
    assert [tile.write[0].start for tile in tiles[:9]] == [1] * 9
    assert [(tile.write[1].start, tile.write[2].start) for tile in tiles[:2]] == [(20, 10), (20, 0)]


def test_a_window_with_its_range_reads_only_what_it_needs(rng, tiny_model):
    image = np.full((60, 60), np.nan)
    image[20:40, 20:40] = rng.random((20, 20))
    window = (slice(60, 62), slice(60, 62))
    options = {"model": tiny_model, "window": window}
    assert np.isfinite(super_resolve(image, 2, in_range=(0, 1), **options)).all()
    with pytest.raises(ValueError, match="must be finite"):
        super_resolve(image, 2, **options)
    image[27, 30] = np.nan  # within the halo alone
    with pytest.raises(ValueError, match="must be finite, got 1 NaN"):
        super_resolve(image, 2, in_range=(0, 1), **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"window": (slice(0, 4), 3)}, TypeError, "`window` must be two slices"),
        ({"window": slice(0, 4)}, TypeError, "`window` must be two slices"),
        ({"window": (slice(4, 4), slice(0, 4))}, ValueError, "`window` must hold pixels of the result"),
        ({"window": (slice(0, 4), slice(0, 4, 2))}, ValueError, "in steps of 1"),
        ({"window": (slice(90, 99), slice(0, 4))}, ValueError, "`window` must hold pixels of the result"),
        ({"near": (1,)}, ValueError, "`near` must have a number for each axis"),
    ],
)
def test_bad_window_is_named(rng, options, error, message):
    with pytest.raises(error, match=message):
        super_resolve_tiles(rng.random((6, 6)), 2, np.empty((12, 12)), **options)


# Shape, dtype, range


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float16, np.float32, np.float64, ">u2"])
def test_dtype_and_shape_are_kept(rng, dtype, tiny_model):
    image = (rng.random((9, 7)) * 100).astype(dtype)
    out = super_resolve(image, 2.37, model=tiny_model)
    assert (out.dtype, out.shape) == (np.dtype(dtype), (round(9 * 2.37), round(7 * 2.37)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 5), (2, 1, 1)])
def test_images_smaller_than_the_halo_work(rng, shape):
    image = rng.random(shape).astype(np.float32)
    assert super_resolve(image, 3).shape == (*shape[:-2], 3 * shape[-2], 3 * shape[-1])


def test_integers_saturate(tiny_model):
    image = np.zeros((12, 12), np.uint8)
    image[:, 6:] = 255
    out = super_resolve(image, 2, model=make_model().double())
    exact = super_resolve(image.astype(float), 2, model=make_model().double())
    assert exact.max() > 256
    np.testing.assert_array_equal(out, np.clip(np.rint(exact), 0, 255))


@given(gain=st.floats(0.01, 100), offset=st.floats(-1000, 1000))
@settings(max_examples=10, deadline=None)
def test_gain_and_offset_pass_through(gain, offset):
    image = np.random.default_rng(0).random((12, 13))
    model = make_model().double()
    expected = gain * super_resolve(image, 2, model=model) + offset
    np.testing.assert_allclose(super_resolve(gain * image + offset, 2, model=model), expected, atol=1e-9 * gain)


def test_a_channel_comes_out_as_if_alone(rng, tiny_model):
    dim, bright = rng.integers(100, 140, (14, 15), np.uint16), rng.integers(0, 60000, (14, 15), np.uint16)
    both = super_resolve(np.stack([dim, bright]), 2, model=tiny_model, channel_axis=0)
    np.testing.assert_array_equal(both[0], super_resolve(dim, 2, model=tiny_model))
    np.testing.assert_array_equal(both[1], super_resolve(bright, 2, model=tiny_model))


def test_planes_share_one_range(rng, tiny_model):
    stack = rng.random((3, 9, 8))
    stack[1] *= 10
    out = super_resolve(stack, 2, model=tiny_model)
    alone = super_resolve(stack[0], 2, model=tiny_model, in_range=find_range(stack))
    np.testing.assert_array_equal(out[0], alone)


def test_one_hot_pixel_costs_nothing_beyond_its_halo(rng):
    """One pixel at 65535 in a 12-bit image."""
    smooth = resize(rng.random((8, 8)), 8)
    image = np.clip(smooth * 3000 + 500, 0, 4095).astype(np.uint16)
    hot = image.copy()
    hot[10, 12] = 65535
    clean, result = super_resolve(image, 2), super_resolve(hot, 2)
    far = np.ones(clean.shape, bool)
    reach = load_model().halo + 2 * 2 + 2  # halo, the taps of the hot pixel, and the rest of a square
    far[max(0, 20 - reach) : 21 + reach, max(0, 24 - reach) : 25 + reach] = False
    # Blocks of pixels that a fast convolution takes together share their rounding.
    assert np.abs(result[far].astype(int) - clean[far]).max() <= 1


@pytest.mark.parametrize("rgb", [False, True])
def test_in_range_per_image_and_per_channel(rng, tiny_model, rgb):
    image = rng.integers(0, 4096, (9, 8, 3), np.uint16)
    options = {"rgb": True} if rgb else {"channel_axis": -1}
    found = find_range(image, **options)
    default = super_resolve(image, 2, model=tiny_model, **options)
    np.testing.assert_array_equal(super_resolve(image, 2, model=tiny_model, in_range=found, **options), default)
    assert not np.array_equal(super_resolve(image, 2, model=tiny_model, in_range=(0, 9000), **options), default)


def test_range_of_8_bit_rgb_is_that_of_its_dtype(rng):
    image = rng.integers(90, 120, (6, 6, 3), np.uint8)
    assert find_range(image, rgb=True) == (0, 255)
    assert find_range(image[..., 0]) != (0, 255)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("options", [{}, {"in_range": (0, 10)}, {"in_range": (7, 7)}, {"rgb": True}])
def test_constant_image_comes_back_constant(value, options, tiny_model):
    tiny_model.layers[-1].bias.data.fill_(1)
    colours = (3,) if "rgb" in options else ()
    out = super_resolve(np.full((9, 8, *colours), value, np.uint8), 2, model=tiny_model, tile=7, **options)
    np.testing.assert_array_equal(out, np.full((18, 16, *colours), value, np.uint8))


@pytest.mark.parametrize("options", [{"in_range": (0, 10)}, {"rgb": True, "in_range": (0, 255)}])
def test_parts_of_a_constant_image_in_a_wider_range_agree(options, tiny_model):
    """Whether the whole is constant is not known to who sees a part of it: the network is asked."""
    da = pytest.importorskip("dask.array")
    image = np.full((24, 20, 3) if "rgb" in options else (24, 20), 7, np.uint8)
    window = (slice(16, 32), slice(0, 32))
    part = super_resolve(image, 2, model=tiny_model, tile=16, window=window, **options)
    assert not np.all(part == 7)
    lazy = super_resolve(da.from_array(image, 12), 2, model=tiny_model, tile=16, **options)
    np.testing.assert_array_equal(lazy[window].compute(), part)


def test_constant_channel_beside_another(rng, tiny_model):
    image = np.stack([np.full((9, 8), 3.5), rng.random((9, 8))])
    out = super_resolve(image, 2, model=tiny_model, channel_axis=0)
    assert np.all(out[0] == 3.5)
    np.testing.assert_array_equal(out[1], super_resolve(image[1], 2, model=tiny_model))


# Colour


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_opaque_alpha_changes_nothing(rng, dtype, tiny_model):
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    image = (rng.random((12, 13, 3)) * top).astype(dtype)
    opaque = np.concatenate([image, np.full((12, 13, 1), top, dtype)], -1)
    out = super_resolve(opaque, 2, model=tiny_model.double(), rgb=True)
    assert np.all(np.abs(out[..., 3] - float(top)) <= 1e-12)
    expected = super_resolve(image, 2, model=tiny_model, rgb=True)
    np.testing.assert_allclose(out[..., :3].astype(float), expected.astype(float), atol=1e-9)


def test_transparent_colour_does_not_bleed(tiny_model):
    """A red square on transparent green: no green in what is seen."""
    for parameter in tiny_model.parameters():
        parameter.data.zero_()
    image = np.zeros((20, 20, 4), np.uint8)
    image[..., 1] = 255
    image[6:14, 6:14] = [255, 0, 0, 255]
    out = super_resolve(image, 3, model=tiny_model, rgb=True)
    seen = out[out[..., 3] > 8]
    assert seen[:, 1].max() <= 1
    assert seen[:, 0].min() >= 250


# Sources and targets


def test_lists_memory_maps_and_zarr_give_the_same(rng, tmp_path, tiny_model):
    image = rng.integers(0, 999, (13, 15), np.uint16)
    expected = super_resolve(image, 2, model=tiny_model, tile=9)
    mapped = np.memmap(tmp_path / "in", np.uint16, "w+", shape=image.shape)
    mapped[:] = image
    np.testing.assert_array_equal(super_resolve(mapped, 2, model=tiny_model, tile=9), expected)
    listed = super_resolve(image.tolist(), 2, model=tiny_model, tile=9)
    np.testing.assert_array_equal(listed, super_resolve(image.astype(int), 2, model=tiny_model, tile=9))
    source = zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(5, 4))
    out = zarr.create_array(tmp_path / "out.zarr", shape=expected.shape, dtype=np.uint16, chunks=(8, 8))
    for _ in super_resolve_tiles(source, 2, out, model=tiny_model, tile=9):
        pass
    np.testing.assert_array_equal(out[:], expected)


@pytest.mark.parametrize(
    "lay",
    [
        np.asfortranarray,
        lambda image: image[::-1, ::-1].copy()[::-1, ::-1],
        lambda image: np.repeat(image, 3, 0)[::3],
        lambda image: image.astype(">u2"),
        lambda image: np.broadcast_to(image, image.shape),  # read-only
    ],
    ids=["Fortran", "negative strides", "gaps", "big-endian", "read-only"],
)
def test_how_pixels_lie_in_memory_does_not_matter(rng, lay, tmp_path, tiny_model):
    image = rng.integers(0, 999, (13, 15), np.uint16)
    expected = super_resolve(image, 2, model=tiny_model, tile=9)
    np.testing.assert_array_equal(super_resolve(lay(image), 2, model=tiny_model, tile=9), expected)
    mapped = np.memmap(tmp_path / "out", lay(image).dtype, "w+", shape=expected.shape)
    for out in (np.zeros((52, 60), mapped.dtype)[::2, ::-2], mapped):
        for _ in super_resolve_tiles(lay(image), 2, out, model=tiny_model, tile=9):
            pass
        np.testing.assert_array_equal(out, expected)
    mapped.flush()
    np.testing.assert_array_equal(np.fromfile(tmp_path / "out", mapped.dtype).reshape(mapped.shape), expected)


def test_only_windows_are_read(rng, tiny_model):
    """No read is larger than a tile's window, but for the rows that the range is found from."""
    image = rng.random((200, 60))

    class Spy:
        shape, dtype, largest = image.shape, image.dtype, 0

        def __getitem__(self, slices):
            piece = image[slices]
            Spy.largest = max(Spy.largest, piece.size)
            return piece

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vdsr_core.images.ranges.SLAB", 300)
        out = super_resolve(Spy(), 2, model=tiny_model, tile=20)
    np.testing.assert_array_equal(out, super_resolve(image, 2, model=tiny_model, tile=20))
    assert Spy.largest <= 400


@pytest.mark.usefixtures("one_thread")  # with several, small tiles are computed together
def test_closing_the_iterator_cancels(rng, tiny_model):
    out = np.full((40, 40), -1.0)
    tiles = super_resolve_tiles(rng.random((20, 20)), 2, out, model=tiny_model, tile=20)
    first = next(tiles)
    tiles.close()
    assert np.all(out[first.write] != -1)
    assert np.count_nonzero(out == -1) == 1200


def test_two_threads_at_once_never_mix(rng, tiny_model):
    images = [rng.random((40, 40)) * (10.0**k) for k in range(4)]
    expected = [super_resolve(image, 2, model=tiny_model, tile=30) for image in images]
    results = [None] * 4

    def work(k):
        results[k] = super_resolve(images[k], 2, model=tiny_model, tile=30)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result, right in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-6)


# Memory


@pytest.mark.parametrize(("shape", "options"), [((30, 31), {}), ((3, 30, 31), {"channel_axis": 0})])
@pytest.mark.parametrize("fits", [2000, 900, 300])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("network", [{}, {"fold": 3, "blocks": True}])
def test_out_of_memory_goes_on_with_smaller_tiles(rng, monkeypatch, network, shape, options, fits, batch):
    """A device on which only `fits` pixels fit: the same image, each tile yielded once."""
    image = rng.random(shape)
    model = make_model(**network).double()
    fits *= model.config.fold  # its halo is larger
    expected = super_resolve(image, 2, model=model, tile=20, **options)
    run, calls = Engine.run, itertools.count()

    def small(self, windows, taps, *others, **options):
        if sum(rows.index.shape[1] * columns.index.shape[1] for rows, columns in taps) > fits:
            next(calls)
            raise MemoryError("out of memory")
        return run(self, windows, taps, *others, **options)

    monkeypatch.setattr(Engine, "run", small)
    monkeypatch.setattr(Engine, "__init__", patched_batch(Engine.__init__, batch))
    out, count = np.zeros_like(expected), np.zeros(expected.shape, int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tile in super_resolve_tiles(image, 2, out, model=model, tile=20, **options):
            count[tile.write] += 1
    np.testing.assert_allclose(out, expected, atol=1e-12)
    assert np.all(count == 1)
    assert next(calls) <= 8  # what did not fit once is not tried again


def patched_batch(init, batch):
    def patched(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.pixels = 0 if batch == 1 else batch * (20 + 2 * self.halo) ** 2

    return patched


def test_out_of_memory_warns_and_names_the_device(rng, monkeypatch, tiny_model):
    run = Engine.run

    def small(self, windows, taps, *others, **options):
        if taps[0][0].index.shape[1] > 20:
            raise MemoryError("tried to allocate 2 GB")
        return run(self, windows, taps, *others, **options)

    monkeypatch.setattr(Engine, "run", small)
    with pytest.warns(
        UserWarning, match=r"cpu ran out of memory \(tried to allocate 2 GB\); continuing with smaller tiles"
    ):
        super_resolve(rng.random((20, 20)), 2, model=tiny_model)


def test_no_memory_at_all_is_an_error(rng, monkeypatch, tiny_model):
    def fail(*_, **__):
        raise MemoryError("nothing left")

    monkeypatch.setattr(Engine, "run", fail)
    with pytest.raises(MemoryError, match="nothing left"), pytest.warns(UserWarning, match="smaller tiles"):
        super_resolve(rng.random((5, 5)), 2, model=tiny_model)


@pytest.mark.parametrize("in_range", [None, (0, 9)])
def test_what_cannot_fit_is_refused_before_it_is_read(tiny_model, in_range):
    class Unread:
        shape, dtype = (10**6, 10**6), np.dtype(np.uint16)

        def __getitem__(self, window):
            raise AssertionError("pixels were read")

    with pytest.raises(MemoryError, match="must fit in memory"):
        super_resolve(Unread(), 2, model=tiny_model, in_range=in_range)


def test_what_cannot_fit_is_refused_beforehand(monkeypatch):
    image = np.broadcast_to(np.arange(3.0)[:, None, None], (3, 10, 10))
    free = psutil.virtual_memory()._replace(available=10**6)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(MemoryError, match=r"`super_resolve_tiles` with `out` on disk"):
        super_resolve(image, 1000)
    with pytest.raises(MemoryError, match=r"Use a smaller `tile`"):
        super_resolve(image, 8, tile=None)


# Bad input


@pytest.mark.parametrize(
    ("scale", "error", "message"),
    [
        (
            1,
            ValueError,
            "`scale` must be greater than 1 for a network that removes neither noise nor compression, got 1.",
        ),
        (0.5, ValueError, r"greater than 1, got 0.5"),
        ((2, 0.5), ValueError, "greater than 1"),
        (10**400, ValueError, "finite"),
        pytest.param(10**5000, ValueError, "finite", id="more digits than Python prints"),
        (np.array([2, 2, 2]), ValueError, "pair"),
        (np.array("2"), TypeError, "number or a pair"),
        ((1, 1), ValueError, "greater than 1"),
        (math.nan, ValueError, "finite"),
        (math.inf, ValueError, "finite"),
        (1e300, ValueError, "at most 1000"),
        ("2", TypeError, "number or a pair"),
        (None, TypeError, "number or a pair"),
    ],
)
def test_bad_scale_is_named(scale, error, message, tiny_model):
    with pytest.raises(error, match=message):
        super_resolve(np.eye(4), scale, model=tiny_model)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((0, 4)), ValueError, r"must not be empty, got shape \(0, 4\)"),
        (np.float64(3), ValueError, r"at least 2 axes \(rows, columns\), got shape \(\)"),
        (np.zeros(5), ValueError, r"at least 2 axes \(rows, columns\), got shape \(5,\)"),
        (np.zeros((4, 4), bool), TypeError, r"real dtype, got bool. Use `image.astype\(np.uint8\)`"),
        (np.zeros((4, 4), complex), TypeError, "real dtype, got complex128"),
        (np.zeros((4, 4), object), TypeError, "real dtype, got object"),
        ("image.png", TypeError, "real dtype, got <U9"),
        (np.zeros((4, 4), [("red", "u1")]), TypeError, "real dtype, got .*red"),
        (np.zeros((0, 5, 5)), ValueError, r"must not be empty, got shape \(0, 5, 5\)"),
        (np.zeros((5, 5, 0)), ValueError, r"must not be empty, got shape \(5, 5, 0\)"),
        ([[1, 2], [3]], TypeError, "`image` must be an array or convert to one, got list: .*inhomogeneous"),
        (torch.ones(4, 4, dtype=torch.bfloat16), TypeError, "convert to one, got Tensor"),
        (np.array([[1.0, np.nan], [np.inf, 0]]), ValueError, "must be finite, got 2 NaN or infinite pixels"),
        (
            np.zeros((9, 9, 3)),
            ValueError,
            r"declare its channels, got shape \(9, 9, 3\). Use `rgb=True`.*`channel_axis",
        ),
        (np.zeros((9, 9, 2)), ValueError, "declare its channels"),
    ],
)
def test_bad_image_is_named(image, error, message):
    with pytest.raises(error, match=message):
        super_resolve(image, 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rgb": True}, ValueError, r"`rgb=True` needs 3 or 4 channels along axis 2, got shape \(3, 6, 5\)"),
        ({"rgb": True, "channel_axis": 1}, ValueError, "needs 3 or 4 channels along axis 1"),
        ({"channel_axis": 3}, ValueError, "`channel_axis` must name one of at least 3 axes, got axis 3"),
        ({"channel_axis": 0.5}, TypeError, "`channel_axis` must be an integer or None"),
        ({"tile": 0}, ValueError, "`tile` must be an integer of at least 1, got 0"),
        ({"tile": np.array([9])}, TypeError, "`tile` must be an integer of at least 1, got array"),
        ({"tile": -4}, ValueError, "`tile` must be an integer of at least 1, got -4"),
        ({"in_range": (5, 5)}, ValueError, "`in_range` must be two finite numbers, low < high"),
        ({"in_range": (9, 5)}, ValueError, "`in_range` must be two finite numbers, low < high"),
        ({"in_range": np.ma.array([0, 1], mask=[0, 1])}, ValueError, "`in_range` must have no masked pixels"),
        ({"window": (slice(0.5, 3), slice(3))}, TypeError, "`window` must be two slices of integers"),
        ({"in_range": 5}, ValueError, r"`in_range` must be \(low, high\)"),
        ({"in_range": "dtype"}, ValueError, r"`in_range` must be \(low, high\)"),
        ({"in_range": [(0, 1)] * 2, "channel_axis": 0}, ValueError, "or 3 of them, one for each channel"),
        ({"device": "gpu"}, ValueError, "`device` must be one of cpu"),
        ({"device": "meta"}, ValueError, "`device` must be one of cpu"),
        ({"device": "hpu"}, ValueError, "`device` must be one of cpu"),
        ({"in_range": (0, 10**400)}, ValueError, r"`in_range` must be \(low, high\)"),
        ({"model": "nope"}, ValueError, "`model` must be one of"),
        ({"model": 5}, TypeError, "`model` must be a VDSR, a name, a path"),
    ],
)
def test_bad_options_are_named(rng, options, error, message):
    with pytest.raises(error, match=message):
        super_resolve(rng.random((3, 6, 5)), 2, **options)


@pytest.mark.parametrize("out", [np.zeros((8, 9), np.float64), np.zeros((8, 8), np.float32)])
def test_wrong_out_is_named_before_the_first_tile(out):
    with pytest.raises(ValueError, match=r"`out` must have shape \(8, 8\) and dtype float64, got"):
        super_resolve_tiles(np.eye(4), 2, out)


def test_float_alpha_above_one_is_named(rng, tiny_model):
    image = rng.random((9, 11, 4)) * 200
    image[..., 3] = 255
    with pytest.raises(ValueError, match="`image` must have alpha of at most 1 where it is float, got 255"):
        super_resolve(image, 2, model=tiny_model, rgb=True)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("offset", [0, 1, 12345, 2**62])
def test_constant_of_64_bits_comes_back_exactly(dtype, offset, tiny_model):
    image = np.full((5, 6), np.iinfo(dtype).max - offset, dtype)
    np.testing.assert_array_equal(super_resolve(image, 2, model=tiny_model), np.full((10, 12), image[0, 0]))


# The ends of the dtypes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("alpha", [1, 2, 100])
def test_faint_alpha_keeps_its_colour(rng, dtype, alpha, tiny_model):
    """One step of alpha is enough to have a colour."""
    for parameter in tiny_model.parameters():
        parameter.data.zero_()
    top = min(np.iinfo(dtype).max, 65535) if np.dtype(dtype).kind in "ui" else 1
    opaque = np.iinfo(dtype).max if np.dtype(dtype).kind in "ui" else 1
    image = resize(rng.random((3, 4, 4)), 4).transpose(1, 2, 0).clip(0.1, 0.9) * top
    step = opaque / 65535 if dtype == np.int32 else top / 65535 if top == 1 else 1
    faint = np.concatenate([image, np.full((16, 16, 1), alpha * step)], -1).astype(dtype)
    out = super_resolve(faint, 2, model=tiny_model, rgb=True, in_range=(0, top))
    expected = super_resolve(faint[..., :3], 2, model=tiny_model, rgb=True, in_range=(0, top))
    np.testing.assert_allclose(out[..., :3] / top, expected / top, atol=0.03 / alpha)
    np.testing.assert_allclose(out[..., 3], faint[0, 0, 3], rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "value", "hot"),
    [
        (np.float64, 1, 1e39),
        (np.float64, 1e-3, 1e308),
        (np.float32, 1e-3, 1e36),
        (np.float32, 1, 3.4e38),
        (np.float16, 1, 65504),
        (np.float16, 30000, 65504),
        (np.float32, 1.5e38, 3.4e38),
    ],
)
@pytest.mark.parametrize("rgb", [False, True])
def test_finite_pixels_give_finite_pixels(rng, dtype, value, hot, rgb):
    model = make_model()
    image = (rng.random((16, 17, 3) if rgb else (16, 17)) * value).astype(dtype)
    image[3, 4] = hot
    image[8:10, 8:12] = value
    for tile in (None, 9):
        out = super_resolve(image, 2, model=model, rgb=rgb, tile=tile)
        assert np.isfinite(out).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_overshoot_ends_at_the_largest_float(dtype):
    top = float(np.finfo(dtype).max)
    image = np.zeros((12, 12), dtype)
    image[:, 6:] = top
    out = super_resolve(image, 2, model=make_model().double())
    exact = super_resolve(image.astype(float), 2, model=make_model().double())
    assert exact.max() > top
    np.testing.assert_array_equal(out, np.clip(exact, -top, top).astype(dtype))


@pytest.mark.parametrize("in_range", [(0, 1e300), (0, 1e-300), (1e200, 2e200)])
def test_range_far_from_the_image_is_named(rng, in_range, tiny_model):
    with pytest.raises(ValueError, match=r"`in_range` must be near the values of `image`, 0\..* Leave it out"):
        super_resolve(rng.random((5, 6), np.float32), 2, model=tiny_model, in_range=in_range)


@pytest.mark.parametrize("image", [np.array([[0, 1.7e308], [1.7e308, 0]]), np.array([[2**62, 2**62 + 1]] * 2)])
def test_image_that_has_no_range_is_named(image, tiny_model):
    with pytest.raises(ValueError, match=r"`image` must span a range that float64 resolves and holds, got .* Subtract"):
        super_resolve(image, 2, model=tiny_model)


# Doors


def test_masked_pixels_are_named():
    image = np.ma.masked_array(np.eye(9), np.eye(9) > 0)
    for call in (
        lambda: super_resolve(image, 2),
        lambda: super_resolve_tiles(image, 2, np.empty((18, 18))),
        lambda: find_range(image),
        lambda: resize(image, 2),
        lambda: degrade(image, 2),
    ):
        with pytest.raises(ValueError, match=r"`image` must have no masked pixels, got 9. Use its `.filled\(value\)`"):
            call()
    plain = np.ma.masked_array(np.eye(9))
    np.testing.assert_array_equal(super_resolve(plain, 2), super_resolve(np.eye(9), 2))


@pytest.mark.parametrize("scale", [np.array(2), np.float32(2), np.uint8(2), np.array([2, 2]), np.array([2.0, 2.0])])
def test_scale_may_be_numpys(scale, rng, tiny_model):
    image = rng.random((5, 6))
    np.testing.assert_array_equal(
        super_resolve(image, scale, model=tiny_model), super_resolve(image, 2, model=tiny_model)
    )


@pytest.mark.parametrize("out", [None, [[0.0] * 8] * 8, 3])
def test_out_that_is_no_array_is_named(out):
    with pytest.raises(TypeError, match=r"`out` must be an array, got .* Use `np.empty\(\(8, 8\), 'float64'\)`"):
        super_resolve_tiles(np.eye(4), 2, out)


def test_out_that_cannot_be_written_is_named(tmp_path):
    frozen = np.zeros((8, 8))
    frozen.flags.writeable = False
    np.zeros((8, 8)).tofile(tmp_path / "out")
    for out in (frozen, np.memmap(tmp_path / "out", float, "r", shape=(8, 8))):
        with pytest.raises(ValueError, match="`out` must be writable"):
            super_resolve_tiles(np.eye(4), 2, out)
    zarr.create_array(tmp_path / "out.zarr", shape=(8, 8), dtype=float)
    with pytest.raises(ValueError, match="`out` must be writable"):
        super_resolve_tiles(np.eye(4), 2, zarr.open_array(tmp_path / "out.zarr", mode="r"))


def test_out_over_the_image_is_named():
    buffer = np.zeros((8, 8))
    with pytest.raises(ValueError, match="`out` must not share memory with `image`"):
        super_resolve_tiles(buffer[:4, :4], 2, buffer)


@pytest.mark.parametrize("near", [5, "ab", (None, 1), (1.5, 2), (1e300, 2)])
def test_near_must_be_whole_numbers(tiny_model, near):
    with pytest.raises(TypeError, match="`near` must be integers"):
        super_resolve_tiles(np.eye(4), 2, np.empty((8, 8)), model=tiny_model, near=near)


def test_constant_colour_at_the_end_of_float64_names_the_image(tiny_model, rng):
    image = np.full((8, 9, 4), 1e308)
    image[..., 3] = rng.random((8, 9))
    with pytest.raises(ValueError, match="`image` must span a range that float64 resolves and holds, got 1e"):
        super_resolve(image, 2, rgb=True, model=tiny_model)


@pytest.mark.parametrize(("scale", "warns"), [(1.5, True), (1.99, True), ((1, 1.5), True), (2, False), ((1, 2), False)])
def test_scales_below_the_trained_ones_warn(rng, tiny_model, scale, warns):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        super_resolve(rng.random((6, 6)), scale, model=tiny_model)
        super_resolve_tiles(rng.random((6, 6)), 2, np.empty((12, 12)), model=tiny_model)
    assert [("trained for x2, 3, 4" in str(w.message), w.filename) for w in caught] == [(True, __file__)] * warns
    tiny_model.scales = (1.5, 2)
    super_resolve(rng.random((6, 6)), 1.5, model=tiny_model)
