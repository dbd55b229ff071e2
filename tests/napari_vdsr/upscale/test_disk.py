import numpy as np
import pytest

pytest.importorskip("napari")
from hypothesis import given
from hypothesis import strategies as st
from napari.layers import Image

from napari_vdsr.layers import image_layers
from napari_vdsr.upscale import disk
from napari_vdsr.upscale.disk import Growing
from napari_vdsr.upscale.task import Task

SHAPE = (20, 24, 3)
INDICES = st.tuples(
    *(st.one_of(st.integers(0, n - 1), st.slices(n).filter(lambda s: (s.step or 1) > 0)) for n in SHAPE)
)


@given(key=INDICES, count=st.integers(0, 4))
def test_growing_result_is_the_source_where_nothing_is_written(key, count):
    """Colours, which a file has first and a layer last; sliced as NumPy slices."""
    image = np.random.default_rng(0).integers(0, 255, (10, 12, 3)).astype(np.uint8)
    written = np.random.default_rng(1).integers(0, 255, (3, 20, 24)).astype(np.uint8)
    growing = Growing(image_layers.whole(Image(image, rgb=True)), 2, written, (1, 2, 0))
    expected = np.kron(image, np.ones((2, 2, 1), np.uint8))
    for number in range(count):
        rows, columns = (slice(start, start + 8) for start in (3 * number, 4 * number))
        growing.add((slice(0, 3), rows, columns))
        expected[rows, columns] = np.moveaxis(written[:, rows, columns], 0, -1)
    assert (growing.shape, growing.ndim, growing.size, growing.dtype) == (SHAPE, 3, 1440, np.uint8)
    np.testing.assert_array_equal(growing[key], expected[key])


def test_growing_result_of_one_plane_lies_in_that_plane(rng):
    stack = rng.random((4, 5, 6)).astype(np.float32)
    source = image_layers.current_plane(Image(stack), (2, 0, 0))
    growing = Growing(source, 3, np.zeros((1, 15, 18), np.float32), (0, 1, 2))
    np.testing.assert_array_equal(growing[0], np.kron(stack[2], np.ones((3, 3), np.float32)))


@pytest.mark.parametrize("best", [False, True])
@given(rows=st.integers(4, 9000), columns=st.integers(4, 9000), scale=st.floats(1.1, 8))
def test_small_results_have_small_pieces(rows, columns, scale, best):
    source = image_layers.whole(Image(np.broadcast_to(np.uint8(0), (rows, columns)), contrast_limits=(0, 255)))
    side = disk.piece_side(Task(source, scale, self_ensemble=best))
    count = image_layers.count_tiles(source.grid(scale), source.plane_axes, side)
    assert side in ((256, 512, 1024) if best else (512, 1024))
    assert count >= disk.PIECES or side == (256 if best else 512)
    assert side == 1024 or count < 4.5 * disk.PIECES


def interrupt(*_):
    raise KeyboardInterrupt


def test_unfinished_results_are_those_whose_folder_is_there(tmp_path, monkeypatch):
    targets = [str(tmp_path / name) for name in ("a.ome.zarr", "b.ome.zarr")]
    for target in targets:
        disk.note_unfinished(target, {"layer": "cells", "settings": {"scale": 2}})
    assert disk.list_unfinished() == {}
    folder = tmp_path / ".b.ome.zarr.partial"
    folder.mkdir()
    disk.note_unfinished(targets[1], {"layer": "cells", "settings": {"scale": 2}})
    assert disk.list_unfinished() == {targets[1]: {"layer": "cells", "settings": {"scale": 2}}}
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            disk.note_unfinished(targets[0], {})
    assert list(disk.list_unfinished()) == [targets[1]]
    disk.discard(targets[1])
    assert not folder.exists()
    assert disk.list_unfinished() == {}
