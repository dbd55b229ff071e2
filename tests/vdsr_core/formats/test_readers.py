"""Every way to read a TIFF gives the same array: whole, lazily, by windows, as one of several images."""

import random
from itertools import product

import numpy as np
import pytest
import tifffile

from vdsr_core import image_names, read_image
from vdsr_core.streaming.source import open_source

DTYPES = ["u1", "i1", "u2", "i2", "u4", "f2", "f4", "f8", "u8"]
COMPRESSIONS = [None, "zlib", "lzw", "packbits", "zstd"]
LAYOUTS = {  # axes of the file, options; a plane is 21 x 37
    "gray": ("YX", {"photometric": "minisblack"}),
    "pages": ("ZYX", {"photometric": "minisblack"}),
    "rgb": ("YXS", {"photometric": "rgb", "planarconfig": "contig"}),
    "rgb pages": ("ZYXS", {"photometric": "rgb", "planarconfig": "contig"}),
    "planar": ("SYX", {"photometric": "rgb", "planarconfig": "separate"}),
    "alpha": ("YXA", {"photometric": "rgb", "planarconfig": "contig", "extrasamples": ["unassalpha"]}),
    "samples": ("YXS", {"photometric": "minisblack", "planarconfig": "contig"}),
    "planar samples": ("ZSYX", {"photometric": "minisblack", "planarconfig": "separate"}),
}
PIECES = {"strip": {}, "strips": {"rowsperstrip": 5}, "tiles": {"tile": (16, 32)}}
KINDS = ["plain", "shaped", "ome", "imagej", "bigtiff", "second"]
SIZES = {"Z": 2, "Y": 21, "X": 37, "S": 3, "A": 4}
EVERY = list(product("<>", DTYPES, COMPRESSIONS, [False, True], LAYOUTS, PIECES, KINDS))
SAMPLE = random.Random(0).sample(EVERY, 1000)


def write(path, data, byteorder, compression, predictor, layout, pieces, kind):
    """Write a TIFF; False if there is no such."""
    axes, options = LAYOUTS[layout]
    if predictor and (compression in (None, "packbits") or data.dtype.kind == "f" or data.dtype.itemsize > 4):
        return False
    if kind == "imagej" and (data.dtype.name not in ("uint8", "uint16", "float32") or "planar" in layout):
        return False
    if kind == "imagej" and (layout in ("alpha", "samples") or ("rgb" in layout and data.dtype != np.uint8)):
        return False
    if kind == "ome" and (data.dtype.name in ("float16", "uint64") or layout == "planar samples"):
        return False
    how = {**options, **PIECES[pieces], "compression": compression, "predictor": predictor}
    names = axes.replace("A", "S")
    with tifffile.TiffWriter(
        path, byteorder=byteorder, bigtiff=kind == "bigtiff", ome=kind == "ome", imagej=kind == "imagej"
    ) as tiff:
        if kind == "second":
            tiff.write(np.zeros((9, 9), np.uint8), metadata=None)
        known = {"axes": names} if kind in ("shaped", "ome", "imagej") else None
        tiff.write(data, metadata=known, contiguous=None if kind in ("shaped", "ome", "imagej") else False, **how)
    return True


@pytest.mark.parametrize("part", range(8))
def test_every_way_to_read_a_tiff_gives_the_same(tmp_path, part):
    checked = 0
    for number, (order, dtype, *how) in enumerate(SAMPLE[part::8]):
        path = tmp_path / f"{number}.tif"
        axes = LAYOUTS[how[2]][0]
        numbers = np.random.default_rng(number).integers(0, 100, [SIZES[letter] for letter in axes])
        data = numbers.astype(dtype)
        if not write(path, data, order, *how):
            continue
        name = image_names(path)[-1] or None
        whole = read_image(path, name=name)
        lazy = read_image(path, lazy=True, name=name)
        note = (order, dtype, *how)
        assert whole.data.shape == data.shape, note
        np.testing.assert_array_equal(whole.data, data, str(note))
        np.testing.assert_array_equal(np.asarray(lazy.data[...]), data, str(note))
        assert whole.data.dtype == np.dtype(dtype), note
        assert lazy.axes == whole.axes, note
        window = tuple(slice(3, 19) if n > 20 else slice(0, n) for n in data.shape)
        np.testing.assert_array_equal(np.asarray(lazy.data[window]), data[window], str(note))
        streamed = open_source(path, lazy.axes, name)
        np.testing.assert_array_equal(np.asarray(streamed.data[window]), data[window], str(note))
        checked += 1
    assert checked >= 50  # of 8 parts: at least 400
