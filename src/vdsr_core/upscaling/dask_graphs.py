"""Graphs of dask arrays that upscale: a chunk of the result is one tile, made of the source chunks that it needs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import DataNode, GraphNode, List, Task, TaskRef
from numpy.typing import NDArray

from vdsr_core.images.axes import Axes
from vdsr_core.images.ranges import Extent, Range, default_range, measure_channels
from vdsr_core.images.tiling import Region, Slices

Index = tuple[int, ...]
FAN_IN = 32  # extents that one task merges


def tidy(image: da.Array, whole: int | None) -> da.Array:
    """An array with known chunks, none of them empty, in one piece along the axis `whole`."""
    if any(np.isnan(image.shape)):
        msg = f"`image` must have chunks of known size, got shape {image.shape}. Use `image.compute_chunk_sizes()`."
        raise ValueError(msg)
    chunks = [tuple(n for n in axis if n) for axis in image.chunks]
    if whole is not None:
        chunks[whole] = (image.shape[whole],)
    tidied: da.Array = image.rechunk(tuple(chunks))
    return tidied


def map_tiles(
    image: da.Array,
    chunks: Sequence[Sequence[int]],
    sources: Sequence[Sequence[slice]],
    compute: Callable[[Any, Index, Region], NDArray[Any]],
    shared: Any,
    options: tuple[Any, ...],
    keep_nan: bool,
) -> da.Array:
    """An array, each chunk of which is computed from a window of `image`, an array from `tidy`.

    For each axis, `chunks` are the lengths of the chunks of the result, and `sources` the parts of `image` that they
    need; only the chunks that hold these are read. `compute` makes the pixels of a chunk from `shared` (a value, or a
    Delayed that is computed once), the index of the chunk, and the window. It is one key of the graph, so a worker
    receives it once. `options` are all that the pixels depend on besides `image`, for the name of the result.
    """
    token = tokenize(image.name, options)
    name, task = f"super-resolve-{token}", f"super-resolve-tiles-{token}"
    dependencies: list[Any] = [image]
    if isinstance(shared, Delayed):
        dependencies.append(shared)
        shared = TaskRef(shared.key)
    cuts = [list(accumulate(lengths, initial=0)) for lengths in image.chunks]
    touched = [[_touched(cut, part) for part in parts] for cut, parts in zip(cuts, sources, strict=True)]
    tiles = TileMaker(compute, image.shape, image.dtype, cuts, [list(parts) for parts in sources], keep_nan)
    graph: dict[Any, GraphNode] = {task: DataNode(task, tiles)}
    for index in np.ndindex(*map(len, sources)):
        pieces = product(*(axis[i] for axis, i in zip(touched, index, strict=True)))
        key = (name, *index)
        found = (TaskRef((image.name, *piece)) for piece in pieces)
        graph[key] = Task(key, compute_tile, TaskRef(task), shared, index, *found)
    layers = HighLevelGraph.from_collections(name, graph, dependencies)
    lengths = tuple(tuple(axis) for axis in chunks)
    return da.Array(layers, name, lengths, meta=np.empty((0,) * image.ndim, image.dtype))


def join(*values: Any) -> Any:
    """Several values as one, delayed if any of them is."""
    waiting: list[Any] = [value for value in values if isinstance(value, Delayed)]
    if not waiting:
        return values
    name = f"join-{tokenize(*values)}"
    parts = [TaskRef(value.key) if isinstance(value, Delayed) else value for value in values]
    graph: dict[Any, GraphNode] = {name: Task(name, tuple, List(*parts))}
    return Delayed(name, HighLevelGraph.from_collections(name, graph, waiting))


@dataclass(frozen=True)
class TileMaker:
    """What all chunks of a result have in common."""

    compute: Callable[[Any, Index, Region], NDArray[Any]]
    shape: Index
    dtype: np.dtype[Any]
    cuts: list[list[int]]  # where the chunks of the image begin, for each axis
    sources: list[list[slice]]
    keep_nan: bool

    def join(self, index: Index, pieces: Sequence[NDArray[Any]]) -> Region:
        """The window that a chunk needs, of the pieces that hold it."""
        wanted = [parts[i] for parts, i in zip(self.sources, index, strict=True)]
        touched = [_touched(cut, part) for cut, part in zip(self.cuts, wanted, strict=True)]
        pixels = np.empty([part.stop - part.start for part in wanted], self.dtype)
        for chunk, piece in zip(product(*touched), pieces, strict=True):
            there, here = [], []
            for cut, i, part in zip(self.cuts, chunk, wanted, strict=True):
                start, stop = max(cut[i], part.start), min(cut[i + 1], part.stop)
                there.append(slice(start - part.start, stop - part.start))
                here.append(slice(start - cut[i], stop - cut[i]))
            values = np.asarray(piece)[tuple(here)]
            check_finite(values, chunk, self.keep_nan)
            pixels[tuple(there)] = values
        return Region(pixels, tuple(part.start for part in wanted), self.shape)


def compute_tile(tiles: TileMaker, shared: Any, index: Index, *pieces: NDArray[Any]) -> NDArray[Any]:
    """The pixels of one chunk of the result."""
    return tiles.compute(shared, index, tiles.join(index, pieces))


def _touched(cuts: list[int], part: slice) -> range:
    """The numbers of the chunks that hold a part of an axis."""
    return range(bisect_right(cuts, part.start) - 1, bisect_left(cuts, part.stop))


def check_finite(values: NDArray[Any], chunk: Index, keep_nan: bool) -> None:
    """Raise, naming the chunk, where pixels are not finite; NaN may be kept."""
    if values.dtype.kind != "f":
        return
    if invalid := np.count_nonzero(np.isinf(values) if keep_nan else ~np.isfinite(values)):
        msg = f"`image` must be finite, got {invalid} NaN or infinite pixels in its chunk {chunk}. "
        msg += "Replace them, for instance by `da.nan_to_num`."
        raise ValueError(msg)


def gather_chunks(
    image: da.Array,
    wanted: Callable[[Slices], bool],
    pick: Callable[[NDArray[Any], Slices], Any],
    finish: Callable[[list[Any]], Any],
) -> Delayed:
    """One delayed value that `finish` finds from a list of what `pick` keeps of the chunks that are `wanted`.

    `image` is from `tidy`. `wanted` gets the slices of a chunk, `pick` its pixels and slices.
    """
    name = f"gather-{tokenize(image.name, pick, finish)}"
    cuts = [list(accumulate(lengths, initial=0)) for lengths in image.chunks]
    graph: dict[Any, GraphNode] = {}
    for index in np.ndindex(*image.numblocks):
        window = tuple(slice(cut[i], cut[i + 1]) for cut, i in zip(cuts, index, strict=True))
        if wanted(window):
            key = (f"{name}-pick", *index)
            graph[key] = Task(key, pick, TaskRef((image.name, *index)), window)
    graph[name] = Task(name, finish, List(*map(TaskRef, list(graph))))
    dependencies: list[Any] = [image]
    return Delayed(name, HighLevelGraph.from_collections(name, graph, dependencies))


# One reduction over the whole array: extents inside chunks, then across the seams between them, then all merged.


@dataclass(frozen=True)
class Scan:
    """What is known of a chunk: extents by channel, and its outermost rows and columns, which seams need."""

    extents: dict[int, Extent]
    top: NDArray[Any]
    bottom: NDArray[Any]
    left: NDArray[Any]
    right: NDArray[Any]


@dataclass(frozen=True)
class Measure:
    """How to find the extents of the channels in a part of an array, and their ranges in the end.

    `dtype` and `axes` are those of the whole array, of which NaN may be a part with `keep_nan`.
    """

    dtype: np.dtype[Any]
    axes: Axes
    keep_nan: bool

    def __call__(self, values: NDArray[Any], first: int) -> dict[int, Extent]:
        """Extents by channel, the first of which has that number."""
        piece = replace(self.axes, shape=values.shape)
        found = measure_channels(values, piece, keep_nan=self.keep_nan)
        if any(n < min(2, whole) for n, whole in zip(piece.plane, self.axes.plane, strict=True)):
            found = [replace(extent, low=np.inf, high=-np.inf) for extent in found]  # no 2 x 2 block inside
        return dict(enumerate(found, first))

    def scan(self, values: NDArray[Any], index: Index, first: int) -> Scan:
        """What is known of a chunk."""
        values = np.asarray(values)
        check_finite(values, index, self.keep_nan)
        ends = product(self.axes.order[-2:], (0, -1))
        return Scan(self(values, first), *(values.take([end], axis) for axis, end in ends))

    def seam(self, first: int, here: Scan, right: Scan | None, below: Scan | None, across: Scan | None) -> Any:
        """Extents of a chunk, and of the blocks that it shares with those right of it, below it, and both."""
        found, (rows, columns) = [here.extents], self.axes.order[-2:]
        if right:
            found.append(self(np.concatenate([here.right, right.left], columns), first))
        if below:
            found.append(self(np.concatenate([here.bottom, below.top], rows), first))
        if right and below and across:
            upper = [here.bottom.take([-1], columns), right.bottom.take([0], columns)]
            lower = [below.top.take([-1], columns), across.top.take([0], columns)]
            block = [np.concatenate(pair, columns) for pair in (upper, lower)]
            found.append(self(np.concatenate(block, rows), first))
        return merge(found)

    def ranges(self, extents: dict[int, Extent]) -> list[Range]:
        """The default range of each channel."""
        return [default_range(self.dtype, self.axes, extents[channel]) for channel in sorted(extents)]


def merge(parts: Sequence[dict[int, Extent]]) -> dict[int, Extent]:
    """Extents of parts together, by channel."""
    total: dict[int, Extent] = {}
    for part in parts:
        for channel, extent in part.items():
            total[channel] = total.get(channel, Extent()).merge(extent)
    return total


def measure_chunks(image: da.Array, axes: Axes, keep_nan: bool) -> Delayed:
    """The delayed ranges of all channels of an image from `tidy`; each chunk is read once."""
    measure = Measure(image.dtype, axes, keep_nan)
    channel = None if axes.channel is None else axes.order[axes.channel]
    firsts = [0] if channel is None else list(accumulate(image.chunks[channel], initial=0))
    name = f"find-range-{tokenize(image.name, measure)}"
    graph: dict[Any, GraphNode] = {}
    parts = []
    for index in np.ndindex(*image.numblocks):
        first = 0 if channel is None else firsts[index[channel]]
        scan, seam = ((f"{name}-{step}", *index) for step in ("scan", "seam"))
        graph[scan] = Task(scan, measure.scan, TaskRef((image.name, *index)), index, first)
        near = _neighbours(index, image.numblocks, *axes.order[-2:])
        beside = [TaskRef((f"{name}-scan", *other)) if other else None for other in near]
        graph[seam] = Task(seam, measure.seam, first, TaskRef(scan), *beside)
        parts.append(seam)
    while len(parts) > 1:
        groups = [parts[i : i + FAN_IN] for i in range(0, len(parts), FAN_IN)]
        level = f"{name}-merge-{len(parts)}"
        for number, group in enumerate(groups):
            graph[level, number] = Task((level, number), merge, List(*map(TaskRef, group)))
        parts = [(level, number) for number in range(len(groups))]
    graph[name] = Task(name, measure.ranges, TaskRef(parts[0]))
    dependencies: list[Any] = [image]
    return Delayed(name, HighLevelGraph.from_collections(name, graph, dependencies))


def _neighbours(index: Index, blocks: Index, rows: int, columns: int) -> Iterator[Index | None]:
    """The chunks right of a chunk, below it, and right below it, where there are any."""
    for down, right in ((0, 1), (1, 0), (1, 1)):
        other = list(index)
        other[rows] += down
        other[columns] += right
        yield tuple(other) if other[rows] < blocks[rows] and other[columns] < blocks[columns] else None
