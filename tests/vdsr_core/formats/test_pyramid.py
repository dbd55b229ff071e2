from itertools import pairwise

import numpy as np
import pytest
import zarr

from vdsr_core import ImageFile, read_image, read_pyramid, write_pyramid
from vdsr_core.formats.ome_zarr import halve


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.uint16, np.float32])
def test_means_of_the_largest_numbers_are_the_largest(dtype):
    largest = np.iinfo(dtype).max if np.dtype(dtype).kind in "ui" else np.finfo(dtype).max
    np.testing.assert_array_equal(halve(np.full((2, 4), largest, dtype)), np.full((1, 2), largest, dtype))


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
@pytest.mark.parametrize(
    ("axes", "shape", "order"),
    [("YX", (45, 70), "YX"), ("YXS", (30, 41, 3), "SYX"), ("ZYXC", (2, 30, 41, 2), "CZYX"), ("TYX", (2, 9, 40), "TYX")],
)
def test_levels_are_halved_and_metadata_is_kept(tmp_path, rng, monkeypatch, axes, shape, order, suffix):
    monkeypatch.setattr("vdsr_core.formats.pyramid.TILE", 16)
    monkeypatch.setattr("vdsr_core.formats.pyramid.SHARD", 32)
    pixels = rng.integers(0, 4096, shape, np.uint16)
    path = tmp_path / f"cells{suffix}"
    known = {"by": "a test", "scale": [2, 2.5]}
    image = ImageFile(pixels, axes, (0.5, 0.25), "µm", extra={"origin": (3.0, 4.0), "provenance": known})
    write_pyramid(path, image)
    level = np.transpose(pixels, [axes.index(letter) for letter in order])
    if suffix == ".ome.zarr":
        levels = dict(zarr.open_group(path, mode="r").arrays())
        assert len(levels) > 1
        for number in range(len(levels)):
            np.testing.assert_array_equal(levels[f"{number}"][:], level)
            level = halve(level)
    read = read_image(path)
    assert (read.extra["origin"], read.extra["provenance"]) == ((3, 4), known)
    assert (read.pixel_size, read.unit) == ((0.5, 0.25), "µm")
    again = np.transpose(np.asarray(read.data[...]).squeeze(), _order(read, axes))
    np.testing.assert_array_equal(again, pixels)
    levels = read_pyramid(path)
    assert len(levels) > 1
    for finer, coarser in pairwise(levels):
        by_plane = [read.axes.index(letter) for letter in (*(set(read.axes) - set("YX")), "Y", "X")]
        both = [np.transpose(np.asarray(level.data[...]), by_plane) for level in (finer, coarser)]
        np.testing.assert_array_equal(both[1], halve(both[0]))
        assert coarser.pixel_size == pytest.approx([2 * size for size in finer.pixel_size])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def _order(read, axes):
    letters = [a for a, n in zip(read.axes, read.data.shape, strict=True) if n > 1]
    letters = [("S" if a == "C" and "S" in axes else a) for a in letters]
    return [letters.index(letter) for letter in axes]


def test_what_exists_or_cannot_be_held_is_refused(tmp_path, rng):
    image = ImageFile(rng.random((8, 8)), "YX")
    write_pyramid(tmp_path / "a.ome.zarr", image)
    with pytest.raises(FileExistsError, match="exists"):
        write_pyramid(tmp_path / "a.ome.zarr", image)
    write_pyramid(tmp_path / "a.ome.zarr", image, overwrite=True)
    with pytest.raises(ValueError, match="`axes` must be of"):
        write_pyramid(tmp_path / "b.ome.zarr", ImageFile(rng.random((2, 8, 8)), "QYX"))
    with pytest.raises(ValueError, match=r"must be an \.ome\.zarr for pixels of float16"):
        write_pyramid(tmp_path / "b.ome.tif", ImageFile(np.zeros((8, 8), np.float16), "YX"))
