"""Super-resolve dask arrays: nothing is read or computed before the result is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.arguments import check_switch
from vdsr_core.images.axes import Axes, find_axes, open_image
from vdsr_core.images.intensity import Extent
from vdsr_core.images.missing import check_policy, widen
from vdsr_core.images.ranges import Range, check_ranges, default_range, is_fixed, measure_channels
from vdsr_core.images.resampling import check_window, make_taps, scaled_shape
from vdsr_core.images.tiling import Region, check_tile, cover
from vdsr_core.network.checkpoint import fingerprint
from vdsr_core.network.devices import SharedEngine
from vdsr_core.upscaling import dask_graphs
from vdsr_core.upscaling.job import Job, Options, check_scale, find_network


def super_resolve_lazily(image: Any, options: Options) -> Any:
    """A dask array of the super-resolved image, whose chunks are tiles."""
    tile = check_tile(options.tile)
    axes = find_axes(open_image(image), options.channel_axis, options.rgb)
    image = dask_graphs.tidy(image, axes.colour)
    pair, keep_nan = check_scale(options.scale), check_policy(options.nan)
    check_switch("self_ensemble", options.self_ensemble)
    plane = scaled_shape(axes.plane, pair)
    part = check_window(options.window, plane)
    model = find_network(options.model, pair)
    channels = 1 if axes.channel is None else axes.leading[axes.channel]
    ranges: Any = None if options.in_range is None else check_ranges(options.in_range, channels)
    if ranges is None:
        fixed = is_fixed(image.dtype, axes)
        ranges = [default_range(image.dtype, axes, Extent())] if fixed else find_range_lazily(image, axes, keep_nan)

    chunks: list[list[int]] = [[1] * n for n in image.shape]
    sources = [[slice(i, i + 1) for i in range(n)] for n in image.shape]
    if axes.colour is not None:
        chunks[axes.colour], sources[axes.colour] = [axes.colours], [slice(0, axes.colours)]
    for axis, length, stop, factor in zip(axes.order[-2:], axes.plane, plane, pair, strict=True):
        tiles = [(t.read[1], t.write[1]) for t in cover((1, stop), tile, model.halo, align=model.config.fold)]
        chunks[axis] = [write.stop - write.start for _, write in tiles]
        sources[axis] = [make_taps(length, factor, read.start, read.stop).source for read, _ in tiles]
        if keep_nan:
            sources[axis] = [widen(source, length) for source in sources[axis]]
    # What the pixels depend on besides the image, the network and where it runs.
    rest = replace(options, scale=pair, tile=tile, model=None, window=None, device=None)
    compute = LazyTile(SharedEngine(model, options.device), axes, plane, rest)
    token = (fingerprint(model), rest, str(options.device))
    result = dask_graphs.map_tiles(image, chunks, sources, compute, ranges, token, keep_nan)
    return result[axes.native((*(slice(0, n) for n in axes.leading), *part))]


def find_range_lazily(image: Any, axes: Axes, keep_nan: bool) -> Any:
    """A delayed list of ranges, one for each channel."""
    image = dask_graphs.tidy(image, axes.colour)
    channel = None if axes.channel is None else axes.order[axes.channel]
    extents, finish = (
        partial(_measure_piece, axes=axes, keep_nan=keep_nan),
        partial(_default_ranges, dtype=image.dtype, axes=axes),
    )
    rows, columns = axes.order[-2:]
    return dask_graphs.measure_chunks(image, rows, columns, channel, extents, finish, keep_nan)


def _measure_piece(values: NDArray[Any], axes: Axes, keep_nan: bool) -> list[Extent]:
    """The extents of the channels in a piece of an image."""
    return measure_channels(values, replace(axes, shape=values.shape), keep_nan=keep_nan)


def _default_ranges(extents: list[Extent], dtype: np.dtype[Any], axes: Axes) -> list[Range]:
    """The default range of each channel."""
    return [default_range(dtype, axes, extent) for extent in extents]


@dataclass(frozen=True)
class LazyTile:
    """How a chunk of a lazy result is computed."""

    network: SharedEngine
    axes: Axes
    plane: tuple[int, int]  # of the result
    options: Options

    def __call__(self, ranges: list[Range], index: tuple[int, ...], region: Region) -> NDArray[Any]:
        """The pixels of the chunk `index`, of the region of the image that it needs."""
        axes = self.axes
        origin, shape = list(region.origin), list(region.shape)
        for axis in axes.order[:-2]:  # the plane that the tile lies in, as if it were all
            origin[axis], shape[axis] = 0, 1
        image: Any = replace(region, origin=tuple(origin), shape=tuple(shape))
        numbers = [index[axis] for axis in axes.order]
        in_range = ranges[0 if axes.channel is None else numbers[axes.channel]]
        sides = [self.options.tile or n for n in self.plane]
        rows, columns = (
            slice(i * side, min((i + 1) * side, n)) for i, side, n in zip(numbers[-2:], sides, self.plane, strict=True)
        )
        with self.network as engine:
            options = replace(self.options, model=engine, in_range=in_range, window=(rows, columns))
            job = Job(image, options)
            out = np.empty(job.shape, image.dtype)
            for _ in job.run(out):
                pass
        return out
