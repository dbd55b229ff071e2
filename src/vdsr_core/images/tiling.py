"""Cover an image with tiles that read a halo around what they write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.arguments import check_integer

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Tile:
    """A piece of an image: the pixels that it reads, and those that it writes.

    ::

        read   |  halo  |    write    |  halo  |     on the grid of the image
        crop            |    write    |              inside read

    Attributes
    ----------
    read : tuple of slice
        The pixels with the halo, clipped at the edges of the image.
    write : tuple of slice
        The pixels without the halo; the `write` parts of a cover touch and never overlap.
    crop : tuple of slice
        `write` inside `read`: ``image[read][crop]`` is ``image[write]``.
    """

    read: Slices
    write: Slices
    crop: Slices


def cover(
    shape: Sequence[int], tile: int | None, halo: int, window: tuple[slice, slice] | None = None, *, align: int = 1
) -> list[Tile]:
    """Tiles that together write each pixel of an image, or of a window of it, once.

    Parameters
    ----------
    shape : sequence of int
        (..., rows, columns). Leading axes are independent: a tile lies in one plane.
    tile : int or None
        Side of the written part in pixels; None takes each plane in one piece.
    halo : int
        Pixels that a tile reads beyond each side of its written part, where the image has them.
    window : (slice, slice), optional
        Rows and columns to write, by default all. Tiles are cut at the same places as those of the whole image.
    align : int, optional
        What a tile reads begins and ends at multiples of this, or at the edge of the image. What it writes may begin
        and end anywhere.

    Returns
    -------
    list of Tile
        In C order.

    Raises
    ------
    ValueError
        If `tile` or `align` is not at least 1, or `halo` is negative.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.arange(63).reshape(7, 9)
    >>> out = np.zeros_like(image)
    >>> for tile in cover(image.shape, 4, 2):
    ...     out[tile.write] = image[tile.read][tile.crop]
    >>> bool((out == image).all())
    True
    >>> cover((20, 20), 5, 2, align=4)[5].read
    (slice(0, 12, None), slice(0, 12, None))
    """
    tile = check_tile(tile)
    halo = check_integer("halo", halo, hint="Take the `halo` of the network.")
    align = check_integer("align", align, 1, hint="Take the `config.fold` of the network.")
    if not isinstance(shape, tuple | list) or len(shape) < 2:
        msg = f"`shape` must be (..., rows, columns), got {shape!r}. Take the `shape` of the image."
        raise TypeError(msg)
    shape = [check_integer("shape", n, hint="Take the `shape` of the image.") for n in shape]
    *leading, rows, columns = shape
    axes = [[_span(i, i + 1, n) for i in range(n)] for n in leading]
    for n, part in zip((rows, columns), window or (slice(None), slice(None)), strict=True):
        step = tile or n
        start, stop, _ = part.indices(n)
        cuts = range(start - start % step, stop, step)
        axes.append([_span(max(i, start), min(i + step, stop), n, halo, align) for i in cuts])
    return [Tile(*zip(*parts, strict=True)) for parts in product(*axes)]


def _span(start: int, stop: int, length: int, halo: int = 0, align: int = 1) -> tuple[slice, slice, slice]:
    """(read, write, crop) of the pixels `start` to `stop` of an axis."""
    first, last = max(0, start - halo), stop + halo
    first, last = first - first % align, min(length, last + -last % align)
    return slice(first, last), slice(start, stop), slice(start - first, stop - first)


def check_tile(tile: Any) -> int | None:
    """`tile`, checked to be None or an integer of at least 1."""
    return None if tile is None else check_integer("tile", tile, 1, "Use None to take each plane in one piece.")


def halve(tile: Tile, shape: Sequence[int], halo: int, align: int = 1) -> list[Tile]:
    """Smaller tiles that write what `tile`, one of a cover, writes; cut once along each axis longer than a pixel."""
    axes = []
    margins = [(0, 1)] * (len(shape) - 2) + [(halo, align)] * 2
    for write, length, margin in zip(tile.write, shape, margins, strict=True):
        middle = (write.start + write.stop + 1) // 2
        spans = ((write.start, middle), (middle, write.stop))
        axes.append([_span(start, stop, length, *margin) for start, stop in spans if start < stop])
    return [Tile(*zip(*parts, strict=True)) for parts in product(*axes)]


@dataclass(frozen=True, eq=False)
class Region:
    """A part of an array of `shape`, in memory, that begins at `origin` and is sliced by positions in the whole.

    Examples
    --------
    >>> import numpy as np
    >>> whole = np.arange(20).reshape(4, 5)
    >>> region = Region(whole[1:3, 2:], (1, 2), whole.shape)
    >>> region[2:3, 3:5]
    array([[13, 14]])
    """

    pixels: NDArray[Any]
    origin: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the pixels."""
        return self.pixels.dtype

    def __getitem__(self, slices: Sequence[slice]) -> NDArray[Any]:
        """Pixels that lie in the region."""
        return self.pixels[tuple(slice(s.start - o, s.stop - o) for s, o in zip(slices, self.origin, strict=True))]
