"""The blocks of pixels by which the noise of an image is estimated, gathered from the windows that are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.images.axes import Axes, is_dask
from vdsr_core.images.color import TO_YCBCR

SIDE, BLOCKS = 24, 4096  # side of a block in pixels, and how many blocks at most: chosen by benchmarks/noise.py
LUMA_WEIGHTS = TO_YCBCR[0] / TO_YCBCR[0].sum()

# Where a part of a block lies among all blocks: plane, row and column of the block, rows and columns of the part.
Where = tuple[int, int, int, slice, slice]


@dataclass(frozen=True)
class Places:
    """Where the blocks of a channel lie; it follows from the shape alone.

    Blocks have `side` pixels on each side. `planes` numbers the planes that have blocks, by their indices along the
    leading axes; `rows` and `columns` are where the blocks of a plane begin.
    """

    side: int
    planes: dict[tuple[int, ...], int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    @lru_cache(maxsize=64)  # asked for each chunk of a lazy image
    def of(cls, shape: tuple[int, ...]) -> Places:
        """The places in a channel of `shape` (..., rows, columns)."""
        *leading, rows, columns = shape
        side = min(SIDE, max(8, min(rows, columns) // 6), rows, columns)
        planes = math.prod(leading)
        step = max(side / 2, math.sqrt(planes * rows * columns / BLOCKS))  # a stack has fewer blocks in each plane
        starts = [np.unique(np.linspace(0, n - side, int((n - side) // step) + 1).astype(int)) for n in (rows, columns)]
        count = min(planes, max(1, BLOCKS // (len(starts[0]) * len(starts[1]))))
        numbers = np.unique(np.linspace(0, planes - 1, count).astype(int))
        leads = [tuple(int(i) for i in np.unravel_index(number, leading)) if leading else () for number in numbers]
        found = {lead: number for number, lead in enumerate(leads)}
        return cls(side, found, tuple(starts[0].tolist()), tuple(starts[1].tolist()))

    def empty(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Room for all blocks, (planes, rows, columns, side, side)."""
        return np.empty((len(self.planes), len(self.rows), len(self.columns), self.side, self.side), dtype)

    def slices(self) -> Iterator[tuple[slice, ...]]:
        """The place of each block, in the order of `empty`; leading slices have length 1."""
        for plane, row, column in product(self.planes, self.rows, self.columns):
            yield (*(slice(i, i + 1) for i in plane), slice(row, row + self.side), slice(column, column + self.side))

    def pieces(
        self, plane: tuple[int, ...], window: Sequence[slice], values: NDArray[Any]
    ) -> Iterator[tuple[Where, NDArray[Any]]]:
        """The parts of blocks in a window of a plane whose pixels are `values`, and where they belong."""
        down = self._touched(self.rows, window[0])
        right = list(self._touched(self.columns, window[1]))
        for (i, rows, here), (j, columns, there) in product(down, right):
            yield (self.planes[plane], i, j, rows, columns), values[here, there]

    def touches(self, window: Sequence[slice]) -> bool:
        """Whether a window of a plane holds a part of a block."""
        return all(any(self._touched(*pair)) for pair in zip((self.rows, self.columns), window, strict=True))

    def _touched(self, starts: Sequence[int], part: slice) -> Iterator[tuple[int, slice, slice]]:
        """Numbers of the blocks in a part of an axis, what of each lies there, and where in the part."""
        first = int(np.searchsorted(starts, part.start - self.side, "right"))
        for number in range(first, int(np.searchsorted(starts, part.stop))):
            start = starts[number]
            low, high = max(start, part.start), min(start + self.side, part.stop)
            yield number, slice(low - start, high - start), slice(low - part.start, high - part.start)


class Samples:
    """The blocks of each channel of an image, each as `Places.empty`; `add` gets windows that together hold them.

    For colour, these are luma in the units of the image.
    """

    def __init__(self, axes: Axes, dtype: np.dtype[Any]) -> None:
        self.axes = axes
        self.places = Places.of((*self.plane_of(axes.leading), *axes.plane))
        dtype = dtype if axes.colour is None else np.dtype(np.float64)
        self.blocks = [self.places.empty(dtype) for _ in range(axes.channels)]

    def plane_of(self, index: tuple[int, ...]) -> tuple[int, ...]:
        """Numbers along the leading axes without that of the channel."""
        return tuple(number for axis, number in enumerate(index) if axis != self.axes.channel)

    def add(self, index: tuple[int, ...], window: Sequence[slice], values: NDArray[Any]) -> None:
        """Keep what blocks need of a window, (colours, rows, columns), of the plane at a leading index."""
        for channel, where, part in self.pieces(index, window, values):
            self.blocks[channel][where] = part

    def pieces(
        self, index: tuple[int, ...], window: Sequence[slice], values: NDArray[Any]
    ) -> Iterator[tuple[int, Where, NDArray[Any]]]:
        """What `add` keeps: the channel, the place and the pixels of each part."""
        plane = self.plane_of(index)
        if plane in self.places.planes and self.places.touches(window):
            channel = self.axes.channel_of([slice(i, i + 1) for i in index])
            for where, part in self.places.pieces(plane, window, to_gray(values)):
                yield channel, where, part


def sample(image: Any, axes: Axes) -> Samples:
    """The blocks of an image; only the chunks that hold them are read, each once."""
    samples = Samples(axes, image.dtype)
    if is_dask(image):
        return _sample_dask(image, samples)
    chunks = getattr(image, "chunks", None)  # of zarr and HDF5
    sides = (chunks[axes.order[-2]], chunks[axes.order[-1]]) if chunks else axes.plane
    down, right = (
        [slice(i, min(i + side, n)) for i in range(0, n, side)] for n, side in zip(axes.plane, sides, strict=True)
    )
    cells = [cell for cell in product(down, right) if samples.places.touches(cell)]
    for index in np.ndindex(*axes.leading):
        if samples.plane_of(index) in samples.places.planes:
            for cell in cells:
                place = axes.native((*(slice(i, i + 1) for i in index), *cell))
                samples.add(index, cell, axes.unpack(np.asarray(image[place])))
    return samples


def _sample_dask(image: Any, samples: Samples) -> Samples:
    """The blocks of a dask array, computed together."""
    axes, places = samples.axes, list(samples.places.slices())
    for channel, blocks in enumerate(samples.blocks):
        parts = []
        for place in places:
            leading = list(place[:-2])
            if axes.channel is not None:
                leading.insert(axes.channel, slice(channel, channel + 1))
            parts.append(image[axes.native((*leading, *place[-2:]))].rechunk(-1))  # else all are cut where one is
        pieces = np.asarray(np.stack(parts))  # NumPy stacks dask arrays as one, so each chunk is read once
        side = samples.places.side
        blocks.reshape(-1, side, side)[:] = [to_gray(axes.unpack(piece)) for piece in pieces]
    return samples


def to_gray(values: NDArray[Any]) -> NDArray[Any]:
    """Pixels (colours, rows, columns) as a plane: gray itself, or luma in the units of the image."""
    if len(values) == 1:
        gray: NDArray[Any] = values[0]
        return gray
    red, green, blue = (
        weight * plane.astype(np.float64) for weight, plane in zip(LUMA_WEIGHTS, values[:3], strict=True)
    )
    luma: NDArray[Any] = red + green + blue
    return luma
