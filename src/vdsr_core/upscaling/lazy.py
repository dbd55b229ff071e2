"""Super-resolve dask arrays: nothing is read or computed before the result is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.arguments import check_switch
from vdsr_core.images.axes import Axes, find_axes, open_image
from vdsr_core.images.missing import check_policy, widen
from vdsr_core.images.noise import Noise, check_noise, fit_blocks
from vdsr_core.images.noise_blocks import Places, Samples, Where
from vdsr_core.images.ranges import Extent, Range, check_ranges, default_range, is_fixed
from vdsr_core.images.resampling import check_window, make_taps, scaled_shape
from vdsr_core.images.tiling import Region, Slices, check_tile, cover
from vdsr_core.network.checkpoint import fingerprint
from vdsr_core.network.conditions import check_maps
from vdsr_core.network.devices import SharedEngine
from vdsr_core.upscaling import dask_graphs
from vdsr_core.upscaling.job import Job, Options, check_enlarges, check_scale, find_compression, find_network


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
    ranges = find_ranges_lazily(image, axes, options.in_range, keep_nan)
    check_enlarges(pair, model.maps)
    noises: Any = check_noise(options.noise, axes.channels)
    compression = find_compression(options.compression, options.known_compression, model)
    check_maps(model.maps, noise=options.noise if noises else 0, compression=compression)
    if noises is None:
        found = "noise" in model.maps
        noises = find_noise_lazily(image, axes) if found else [(0.0, 0.0)] * axes.channels

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
    rest = replace(options, scale=pair, tile=tile, model=None, window=None, device=None, compression=compression)
    compute = LazyTile(SharedEngine(model, options.device), axes, plane, rest)
    token = (fingerprint(model), rest, str(options.device))
    shared = dask_graphs.join(ranges, noises)
    result = dask_graphs.map_tiles(image, chunks, sources, compute, shared, token, keep_nan)
    return result[axes.native((*(slice(0, n) for n in axes.leading), *part))]


def find_ranges_lazily(image: Any, axes: Axes, in_range: Any, keep_nan: bool) -> Any:
    """A list of ranges, one for each channel: those that are given or fixed, else a delayed one."""
    if in_range is not None:
        return check_ranges(in_range, axes.channels)
    if is_fixed(image.dtype, axes):
        return [default_range(image.dtype, axes, Extent())]
    return find_range_lazily(image, axes, keep_nan)


def find_range_lazily(image: Any, axes: Axes, keep_nan: bool) -> Any:
    """A delayed list of ranges, one for each channel."""
    return dask_graphs.measure_chunks(dask_graphs.tidy(image, axes.colour), axes, keep_nan)


def survey_lazily(image: Any, axes: Axes, keep_nan: bool, ranges: Any, noises: Any) -> Any:
    """What is given, and the rest of ranges and noises, found in one pass over a dask array."""
    ranges = find_range_lazily(image, axes, keep_nan) if ranges is None else ranges
    noises = find_noise_lazily(image, axes) if noises is None else noises
    found = dask_graphs.join(ranges, noises)
    return found if isinstance(found, tuple) else found.compute()


def find_noise_lazily(image: Any, axes: Axes) -> Any:
    """A delayed list of noises, one for each channel; only the chunks that hold blocks are read."""
    image = dask_graphs.tidy(image, axes.colour)
    places = Samples(axes, image.dtype).places
    wanted = partial(_has_blocks, axes=axes, places=places)
    options = {"axes": axes, "dtype": image.dtype}
    return dask_graphs.gather_chunks(image, wanted, partial(_pick_blocks, **options), partial(_fit_pieces, **options))


def _has_blocks(window: Slices, axes: Axes, places: Places) -> bool:
    """Whether a window of an image, in its own axis order, holds a part of a block."""
    leading = [axis for number, axis in enumerate(axes.order[:-2]) if number != axes.channel]
    planes = product(*(range(window[axis].start, window[axis].stop) for axis in leading))
    here = places.touches([window[axis] for axis in axes.order[-2:]])
    return here and any(plane in places.planes for plane in planes)


def _pick_blocks(
    values: NDArray[Any], window: Slices, axes: Axes, dtype: np.dtype[Any]
) -> list[tuple[int, Where, NDArray[Any]]]:
    """The parts of blocks in a window of an image, in its own axis order."""
    samples, found = Samples(axes, dtype), []
    for index in product(*(range(window[axis].start, window[axis].stop) for axis in axes.order[:-2])):
        here = [slice(None)] * values.ndim
        for axis, number in zip(axes.order[:-2], index, strict=True):
            here[axis] = slice(number - window[axis].start, number - window[axis].start + 1)
        pieces = samples.pieces(index, [window[axis] for axis in axes.order[-2:]], axes.unpack(values[tuple(here)]))
        found += [(channel, where, part.copy()) for channel, where, part in pieces]  # a view would keep the chunk
    return found


def _fit_pieces(parts: list[Any], axes: Axes, dtype: np.dtype[Any]) -> list[Noise]:
    """The noise of each channel."""
    samples = Samples(axes, dtype)
    for channel, where, values in (piece for part in parts for piece in part):
        samples.blocks[channel][where] = values
    return [fit_blocks(blocks) for blocks in samples.blocks]


@dataclass(frozen=True)
class LazyTile:
    """How a chunk of a lazy result is computed."""

    network: SharedEngine
    axes: Axes
    plane: tuple[int, int]  # of the result
    options: Options

    def __call__(self, shared: tuple[list[Range], list[Noise]], index: tuple[int, ...], region: Region) -> NDArray[Any]:
        """The pixels of the chunk `index`, of the region of the image that it needs."""
        axes = self.axes
        origin, shape = list(region.origin), list(region.shape)
        for axis in axes.order[:-2]:  # the plane that the tile lies in, as if it were all
            origin[axis], shape[axis] = 0, 1
        image: Any = replace(region, origin=tuple(origin), shape=tuple(shape))
        numbers = [index[axis] for axis in axes.order]
        in_range, noise = (each[0 if axes.channel is None else numbers[axes.channel]] for each in shared)
        sides = [self.options.tile or n for n in self.plane]
        rows, columns = (
            slice(i * side, min((i + 1) * side, n)) for i, side, n in zip(numbers[-2:], sides, self.plane, strict=True)
        )
        with self.network as engine:
            if isinstance(self.options.noise, str):  # it was looked for
                (noise,) = engine.tolerance.select_noise([noise], [in_range], float(self.options.compression))
            options = replace(self.options, model=engine, in_range=in_range, noise=noise, window=(rows, columns))
            job = Job(image, options)
            out = np.empty(job.shape, image.dtype)
            for _ in job.run(out):
                pass
        return out
