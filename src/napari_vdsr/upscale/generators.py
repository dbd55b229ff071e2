"""Generators that upscale, preview and measure in a thread that is not the viewer's. No Qt, no napari."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_vdsr.background.pytorch import computing, examine_now, load_network, stop_if
from napari_vdsr.layers.image_layers import Slices, Source, count_tiles
from napari_vdsr.upscale.task import Cancellable, Found, Task, find, find_ranges, fingerprint

if TYPE_CHECKING:
    from vdsr_core import ErrorReport, Score, Tile

PARTS = 8  # of an image on which networks are tried
SMOOTH = 1 << 24  # pixels of a result that are interpolated before it begins; of more, the nearest ones are taken
LAZY_TILE = 256  # what is in view is computed in whole tiles
COARSER = 4  # times fewer pixels a side from one made level to the next
SMALLEST_LEVEL = 256  # pixels a side


@dataclass(frozen=True)
class Started:
    """The first step of a run."""

    data: Any  # what is written into; or levels, the finest first
    found: Found  # what was given or found of the image
    tile: int  # side of a tile
    count: int = 0  # how many tiles, or shards on disk, are written; none where it is computed where one looks
    done: int = 0  # how many of them are there from an earlier run


@dataclass(frozen=True)
class Base:
    """The first step of a preview."""

    found: Found  # what was given or found of the image
    pixels: NDArray[Any]  # the source, interpolated to the size of the result
    state: Hashable  # what tells the pixels of the source from those that it had before


@dataclass(frozen=True)
class PreviewTile:
    """A finished tile of a preview: its place on the grid of the whole layer's result, and its pixels."""

    place: Slices
    pixels: NDArray[Any]


def upscale(task: Task, cancelled: threading.Event) -> Iterator[Started | int]:
    """Upscale tile by tile; the first step comes when the image is known to be sound, then the number of tiles done."""
    with computing(cancelled):
        tile = task.tile or examine_now(task.model, task.device, self_ensemble=task.self_ensemble).tile
        found, source = find(task, cancelled), task.source
        out = interpolate(source, task.scale, source.grid(task.scale))
        image = Cancellable(source.data, cancelled, source.planes)
        window = source.window(task.scale)
        tiles = run_tiles(task, tile, image, out, near=task.near, window=window, **found.options(task))
        yield Started(out, found, tile, count_tiles(source.grid(task.scale), source.plane_axes, tile))
        for done, _ in enumerate(tiles, 1):
            yield done
        stop_if(cancelled)


def preview(
    task: Task, grid: Slices, places: Sequence[Slices], cancelled: threading.Event
) -> Iterator[Base | PreviewTile]:
    """Give the interpolated pixels of a grid, then the tiles that are still in `places` when those were received."""
    source = task.source
    with computing(cancelled):
        found = find(task, cancelled)
        yield Base(found, interpolate(source, task.scale, grid), fingerprint(source.data))
        image = Cancellable(source.data, cancelled, source.planes)
        for place in places:
            shape = tuple(p.stop - p.start for p in place) + tuple(source.data.shape[len(place) :])
            out = np.empty(shape, np.dtype(source.data.dtype))
            window = tuple(place[axis] for axis in source.plane_axes)
            for _ in run_tiles(task, None, image, out, window=window, **found.options(task)):
                pass
            stop_if(cancelled)
            yield PreviewTile(place, out)


def interpolate(source: Source, scale: float, grid: Slices, *, most: int = SMOOTH) -> NDArray[Any]:
    """A source, interpolated bicubically on a grid; what is large or read piece by piece gives its nearest pixels."""
    from vdsr_core import resize

    if type(source.data) is not np.ndarray or math.prod(p.stop - p.start for p in grid) > most:
        return repeat(source, scale, grid)
    axes = source.plane_axes
    part = tuple(slice(None) if axis in axes else p for axis, p in enumerate(grid))
    image = np.moveaxis(source.data[part], axes, (-2, -1))  # (..., rows, columns), colours among the leading axes
    out = resize(image, scale, window=(grid[axes[0]], grid[axes[1]]))
    return np.ascontiguousarray(np.moveaxis(out, (-2, -1), axes))


def repeat(source: Source, scale: float, grid: Slices) -> NDArray[Any]:
    """The nearest pixel of a source for each pixel of a grid."""
    part, nearest = list(grid), {}
    for axis in source.plane_axes:
        wanted = np.arange(grid[axis].start, grid[axis].stop)
        index = np.minimum(((wanted + 0.5) / scale).astype(int), source.data.shape[axis] - 1)
        part[axis] = slice(int(index[0]), int(index[-1]) + 1)
        nearest[axis] = index - index[0]
    pixels = np.asarray(source.data[tuple(part)])
    for axis, index in nearest.items():
        pixels = pixels.take(index, axis)
    return pixels


def build_pyramid(task: Task, levels: Sequence[Any], cancelled: threading.Event) -> Iterator[Started]:
    """Put a super-resolved level, of which nothing is computed yet, on top of the levels of a source."""
    import dask.array as da

    from vdsr_core import super_resolve

    source = task.source
    with computing(cancelled):
        found = find(task, cancelled)
        tile = task.tile or LAZY_TILE
        data = da.asarray(source.data)[source.part]
        network = load_network(task.model)
        options = found.options(task)
        finest = super_resolve(data, task.scale, model=network, tile=tile, device=task.device, **options)
        yield Started([finest, *coarse_levels(source, levels)], found, tile)


def coarse_levels(source: Source, levels: Sequence[Any]) -> list[Any]:
    """The levels of a source that show its part when one looks from afar; made by leaving pixels out if it has one."""
    import dask.array as da

    kept = [axis for axis in range(len(source.part)) if axis not in source.plane_axes]
    if len(levels) > 1:
        same = [level for level in levels if all(level.shape[a] == source.data.shape[a] for a in kept)]
        part = tuple(slice(None) if axis in source.plane_axes else p for axis, p in enumerate(source.part))
        return [level[part] for level in same]
    found = [source.data if isinstance(source.data, np.ndarray) else da.asarray(source.data)]
    found[0] = found[0][source.part]
    fewer = tuple(slice(None, None, COARSER if axis in source.plane_axes else None) for axis in range(len(source.part)))
    while min(found[-1].shape[axis] for axis in source.plane_axes) > COARSER * SMALLEST_LEVEL:
        found.append(found[-1][fewer])
    return found


def run_tiles(
    task: Task,
    tile: int | None,
    image: Cancellable,
    out: NDArray[Any],
    **options: Any,
) -> Iterator[Tile]:
    """The core's tiles with the task's network; they end early when the work is cancelled."""
    from vdsr_core import super_resolve_tiles

    return super_resolve_tiles(
        image,  # type: ignore[arg-type]  # it is sliced, never converted
        task.scale,
        out,
        model=load_network(task.model),
        tile=tile,
        device=task.device,
        stop=image.cancelled,
        **options,
    )


def try_out(task: Task, models: Mapping[str, str | None], cancelled: threading.Event) -> Iterator[Score | ErrorReport]:
    """Make parts of a plane small, let networks upscale them back, and score each; bicubic interpolation is first.

    At last, how well the errors of the chosen network are predicted, if they were measured at such a scale. The task is
    for one plane, of which the first channel is taken; `models` are the networks, by the names that their scores get.
    """
    from vdsr_core import compare_errors, compare_models

    source = task.source
    with computing(cancelled):
        in_range = find_ranges(task, cancelled)
        in_range = in_range[0] if isinstance(in_range, list) else in_range
        pixels = np.asarray(source.data[source.part]).reshape(_lengths(source))
        options: dict[str, Any] = {"rgb": source.rgb, "in_range": in_range, "device": task.device}
        options["self_ensemble"] = task.self_ensemble
        scores = compare_models(pixels, task.scale, models=dict(models), **options)
        for score in scores:
            stop_if(cancelled)
            yield score
        network = load_network(task.model)
        table = network.errors
        if table is not None and table.scales[0] <= task.scale <= table.scales[-1]:
            yield from compare_errors(pixels, task.scale, model=network, pieces=PARTS, **options)


def _lengths(source: Source) -> list[int]:
    """Rows, columns and colours of a source of one plane."""
    sides = [source.part[axis].stop - source.part[axis].start for axis in source.plane_axes]
    return sides + list(source.data.shape[len(source.part) :])
