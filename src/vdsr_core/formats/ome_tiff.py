"""OME-TIFF pyramids: written in one pass from the levels of an image, and read level by level."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.ome_xml import NAMESPACE, find_provenance, to_ome
from vdsr_core.formats.tiff_metadata import TEXTS, resolution_tags, to_tags
from vdsr_core.formats.tiff_write import CLASSIC_BYTES, color_options

SIDE = 1024  # of a tile, at most
BUFFER = 2**26  # bytes of tiles that wait to be written


def tile_side(side: int) -> int:
    """The side of the tiles of a file: that of the chunks they are made of, where TIFF allows it.

    Examples
    --------
    >>> tile_side(512), tile_side(100), tile_side(4096)
    (512, 112, 1024)
    """
    return min(-(-side // 16) * 16, SIDE)


def write_pyramid(
    path: Path, levels: Sequence[Any], letters: str, image: ImageFile, attributes: Mapping[str, Any], side: int
) -> None:
    """Write the levels of a pyramid, the finest first, into one OME-TIFF, tile by tile.

    The levels are arrays that can be sliced; their axes are `letters`, with rows and columns last. Of `image` only the
    metadata are used. `attributes` are written, too, as JSON. `side` is that of a tile, a multiple of 16.
    """
    import tifffile

    axes = letters.replace("S", "") + "S" * ("S" in letters)
    shape = [levels[0].shape[letters.index(letter)] for letter in axes]
    options: dict[str, Any] = {
        "compression": "adobe_deflate",
        "predictor": levels[0].dtype.kind in "iu",
        "tile": (side, side),
        "buffersize": BUFFER,
        **color_options(image, axes, tuple(shape)),
        **resolution_tags(image),
    }
    says = {"axes": axes, "MapAnnotation": {"Namespace": NAMESPACE, "plan": json.dumps(attributes)}}
    says |= to_ome(image, axes)
    tags = to_tags(image, {word: code for word, code in TEXTS.items() if word != "Description"})
    nbytes = sum(int(np.prod(level.shape)) for level in levels) * levels[0].dtype.itemsize
    with tifffile.TiffWriter(path, ome=True, bigtiff=nbytes > CLASSIC_BYTES) as tiff:
        for number, level in enumerate(levels):
            shape = [level.shape[letters.index(letter)] for letter in axes]
            first = {"subifds": len(levels) - 1, "metadata": says, "iccprofile": image.icc_profile, "extratags": tags}
            kind = first if number == 0 else {"subfiletype": 1, "metadata": None}
            tiff.write(cut_tiles(level, letters, side), shape=tuple(shape), dtype=level.dtype, **kind, **options)


def cut_tiles(level: Any, letters: str, side: int) -> Iterator[NDArray[Any]]:
    """The tiles of a level, (rows, columns[, samples]), in the order of a TIFF file: plane by plane, row by row."""
    *leading, rows, columns = level.shape
    wide = side * max(1, 2048 // side)  # what is read at once
    whole = [range(1) if letter == "S" else range(n) for letter, n in zip(letters, leading, strict=False)]
    for plane in product(*whole):
        part = [slice(None) if letter == "S" else slice(i, i + 1) for letter, i in zip(letters, plane, strict=False)]
        for row, column in product(range(0, rows, side), range(0, columns, wide)):
            window = (*part, slice(row, min(row + side, rows)), slice(column, min(column + wide, columns)))
            pixels = np.asarray(level[window])
            pixels = np.moveaxis(pixels, letters.index("S"), -1) if "S" in letters else pixels
            pixels = pixels.reshape(*pixels.shape[-3:] if "S" in letters else pixels.shape[-2:])
            for start in range(0, pixels.shape[1], side):
                yield np.ascontiguousarray(pixels[:, start : start + side])


def read_attributes(path: Path) -> dict[str, Any]:
    """What `write_pyramid` was given to say beside the image; {} if that is not there."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            xml = tiff.ome_metadata
    except tifffile.TiffFileError:
        return {}
    return find_provenance(ElementTree.fromstring(xml)) if xml else {}


class Level:
    """A level of a file that `write_pyramid` wrote: an array with `axes`, sliced in the order of `letters`."""

    def __init__(self, array: Any, axes: str, letters: str) -> None:
        self.array, self.axes, self.letters, self.dtype = array, axes, letters, array.dtype
        self.chunks = tuple(array.chunks[axes.index(letter)] for letter in letters)  # the shape of a tile

    def __getitem__(self, window: Sequence[slice]) -> NDArray[Any]:
        """Pixels of a window."""
        wanted = dict(zip(self.letters, window, strict=True))
        pixels = np.asarray(self.array[tuple(wanted.get(letter, slice(0, 1)) for letter in self.axes)])
        order = [self.axes.index(letter) for letter in self.letters]
        rest = [i for i in range(pixels.ndim) if i not in order]
        return pixels.transpose(order + rest).reshape([pixels.shape[i] for i in order])


def open_levels(path: Path, letters: str) -> list[Level]:
    """The levels of a file that `write_pyramid` wrote."""
    import tifffile
    import zarr

    opened = tifffile.TiffFile(path)
    series = opened.series[0]
    arrays = [
        zarr.open_array(series.aszarr(level=number, squeeze=False), mode="r") for number in range(len(series.levels))
    ]
    weakref.finalize(opened, opened.filehandle.close)  # stays open as long as a level is used
    return [Level(array, series.get_axes(squeeze=False), letters) for array in arrays]
