import pickle
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

da = pytest.importorskip("dask.array")

from vdsr_core import VDSR, VDSRConfig, find_range, super_resolve  # noqa: E402
from vdsr_core.network.engine import Engine  # noqa: E402

LAYOUTS = [
    ((11, 14), {}),
    ((2, 3, 11, 14), {}),
    ((3, 11, 14), {"channel_axis": 0}),
    ((11, 14, 2), {"channel_axis": -1}),
    ((2, 11, 3, 14), {"channel_axis": 2}),
    ((11, 14, 3), {"rgb": True}),
    ((2, 11, 14, 4), {"rgb": True}),
    ((3, 11, 14), {"rgb": True, "channel_axis": 0}),
]


def make_model(**shape):
    torch.manual_seed(0)
    return VDSR(VDSRConfig(4, 8, **shape))


def chunks_of(shape):
    """Any chunks of an array of that shape."""
    lengths = st.integers(1, 6)
    return st.tuples(*(st.lists(lengths, min_size=n, max_size=n).map(lambda c, n=n: fit(c, n)) for n in shape))


def fit(lengths, total):
    """The first of some lengths, cut so that they add up."""
    found = []
    for length in lengths:
        found.append(min(length, total - sum(found)))
        if sum(found) == total:
            break
    return tuple(found)


def counted(image, chunks):
    """A dask array that notes which of its chunks are read."""
    read = []

    def load(block_info=None):
        read.append(tuple(block_info[None]["chunk-location"]))
        return image[tuple(slice(*span) for span in block_info[None]["array-location"])]

    normal = da.core.normalize_chunks(chunks, image.shape, dtype=image.dtype)
    return da.map_blocks(load, chunks=normal, dtype=image.dtype, meta=np.empty((0,) * image.ndim, image.dtype)), read


# The law: lazy == eager


@pytest.mark.parametrize(("shape", "options"), LAYOUTS)
@given(scale=st.sampled_from([2, 2.37]), dtype=st.sampled_from([np.uint8, np.uint16, np.float32]), data=st.data())
@settings(max_examples=6, deadline=None)
def test_lazy_equals_eager_bit_for_bit(shape, options, scale, dtype, data):
    image = (np.random.default_rng(1).random(shape) * 200).astype(dtype)
    if options.get("rgb") and shape[-1] == 4 and dtype is np.float32:
        image[..., 3] /= 200
    chunks, tile = data.draw(chunks_of(shape)), data.draw(st.sampled_from([7, 16, None]))
    network = data.draw(st.sampled_from([{}, {"fold": 2, "blocks": True}, {"fold": 3}]))
    options = {"model": make_model(**network), "tile": tile, "self_ensemble": data.draw(st.booleans()), **options}
    eager = super_resolve(image, scale, **options)
    result = super_resolve(da.from_array(image, chunks), scale, **options)
    assert (result.shape, result.dtype) == (eager.shape, eager.dtype)
    np.testing.assert_array_equal(result.compute(), eager)


@given(shape=st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(5, 9)), data=st.data())
@settings(max_examples=25)
def test_range_of_chunks_is_that_of_the_whole(shape, data):
    """Blocks that lie across chunks count, and blocks of no chunk do not."""
    image = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 9, shape)
    chunks = data.draw(chunks_of(shape))
    for options in ({}, {"channel_axis": 0}, {"channel_axis": 2}):
        assert find_range(da.from_array(image, chunks), **options) == find_range(image, **options)


def test_a_constant_image_comes_back_constant():
    image = da.full((3, 20, 20), 7, dtype=np.uint16, chunks=(1, 8, 8))
    assert np.all(super_resolve(image, 2, model=make_model(), tile=9).compute() == 7)


@pytest.mark.parametrize(("shape", "options"), LAYOUTS)
def test_window_is_that_of_the_whole(rng, shape, options):
    image = rng.random(shape)
    if options.get("rgb") and shape[-1] == 4:
        options = {**options, "in_range": (0, 1)}
    options = {"model": make_model(), "tile": 8, **options}
    window = (slice(8, 16), slice(16, None))
    part = super_resolve(da.from_array(image, 5), 2, window=window, **options)
    np.testing.assert_array_equal(part.compute(), super_resolve(image, 2, window=window, **options))


# Lazy


def test_nothing_is_read_before_it_is_needed(rng):
    image = rng.integers(0, 4096, (2, 60, 60), np.uint16)
    source, read = counted(image, (1, 10, 10))
    result = super_resolve(source, 2, model=make_model(), tile=20, in_range=(0, 4095))
    assert read == []
    assert result.chunks == ((1, 1), (20,) * 6, (20,) * 6)
    result[1, 45:55, 62:70].compute()  # tile (2, 3), which reads 36..64 and 56..84 of 120, with its halo of 4
    assert sorted(read) == [(1, row, column) for row in (1, 2, 3) for column in (2, 3, 4)]


def test_chunks_are_read_once_for_the_range(rng):
    source, read = counted(rng.random((40, 40)), 10)
    find_range(source)
    assert sorted(read) == [(row, column) for row in range(4) for column in range(4)]


def test_graph_is_small(rng):
    """A key for each tile, one for the network; for the range a few for each chunk of the image."""
    source = da.from_array(rng.random((64, 64)), 16)
    result = super_resolve(source, 4, model=make_model(), tile=64, in_range=(0, 1))
    assert len(result.dask) == len(source.dask) + 16 + 1
    result = super_resolve(source, 4, model=make_model(), tile=64)
    assert len(result.dask) == len(source.dask) + 16 + 1 + 2 * 16 + 3


def test_equal_calls_have_equal_names(rng):
    source = da.from_array(rng.random((8, 8)), 4)
    first, second, other, darker = (
        super_resolve(source, 2, model=model, in_range=in_range).name
        for model, in_range in [
            (make_model(), (0, 1)), (make_model(), (0, 1)), (make_model().double(), (0, 1)), (make_model(), (0, 2))
        ]
    )  # fmt: skip
    assert first == second
    assert len({first, other, darker}) == 3


def test_graph_can_go_to_another_process(rng):
    image = rng.random((20, 20))
    options = {"model": make_model(), "tile": 16}
    result = pickle.loads(pickle.dumps(super_resolve(da.from_array(image, 8), 2, **options)))
    np.testing.assert_array_equal(result.compute(), super_resolve(image, 2, **options))


def test_network_is_made_ready_once(rng, monkeypatch):
    made, original = [], Engine.__init__

    def note(self, *args, **options):
        made.append(threading.get_ident())
        original(self, *args, **options)

    result = super_resolve(da.from_array(rng.random((40, 40)), 8), 2, model=make_model(), tile=16)
    monkeypatch.setattr(Engine, "__init__", note)
    result.compute(scheduler="threads", num_workers=4)
    assert len(made) == 1


# Bad input


@pytest.mark.parametrize("options", [{}, {"in_range": (0, 1)}])
def test_chunk_that_is_not_finite_is_named(rng, options):
    image = rng.random((20, 20))
    image[13, 7] = np.nan
    result = super_resolve(da.from_array(image, 5), 2, model=make_model(), tile=10, **options)
    with pytest.raises(ValueError, match=r"finite, got 1 NaN or infinite pixels in its chunk \(2, 1\)"):
        result.compute()


def test_other_chunks_stay_readable(rng):
    image = rng.random((20, 20))
    image[0, 0] = np.nan
    options = {"model": make_model(), "tile": 10, "in_range": (0, 1)}
    result = super_resolve(da.from_array(image, 5), 2, **options)
    np.testing.assert_array_equal(result[30:], super_resolve(image[5:], 2, **options)[20:])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scale": 0.5}, ValueError, "`scale` must be greater than 1"),
        ({"tile": 0}, ValueError, "`tile` must be an integer of at least 1"),
        ({"self_ensemble": 8}, TypeError, "`self_ensemble` must be True or False, got 8"),
        ({"in_range": (2, 1)}, ValueError, "`in_range` must be two finite numbers"),
        ({"in_range": (1, 2, 3)}, ValueError, "`in_range` must be"),
        ({"rgb": True}, ValueError, "`rgb` must name one of at least 3 axes"),
    ],
)
def test_bad_option_is_named_at_the_call(options, error, message):
    with pytest.raises(error, match=message):
        super_resolve(da.zeros((8, 8)), **{"scale": 2, **options})


def test_unknown_chunks_are_named():
    image = da.random.default_rng(0).random((8, 8), chunks=4)
    with pytest.raises(ValueError, match="chunks of known size"):
        super_resolve(image[image[:, 0] > 0.5], 2)


def test_xarray_over_dask_is_taken_for_its_dask_array(rng, tiny_model):
    xarray = pytest.importorskip("xarray")
    pixels = rng.integers(0, 1000, (2, 30, 45)).astype(np.uint16)
    image = xarray.DataArray(da.from_array(pixels, chunks=(1, 20, 20)), dims=("channel", "y", "x"))
    options = {"model": tiny_model, "channel_axis": 0, "tile": 32}
    result = super_resolve(image, 2, **options)
    assert isinstance(result, da.Array)
    np.testing.assert_array_equal(result.compute(), super_resolve(pixels, 2, **options))
    assert find_range(image, channel_axis=0) == find_range(pixels, channel_axis=0)
