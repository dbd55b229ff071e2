"""A result that is written to disk while it is computed, and seen while it grows. No Qt, no napari."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_vdsr.background.pytorch import computing, load_network, stop_if
from napari_vdsr.layers.arrays import Sliced
from napari_vdsr.layers.image_layers import Slices, Source, count_tiles
from napari_vdsr.models import library
from napari_vdsr.upscale.generators import Started, coarse_levels, repeat
from napari_vdsr.upscale.task import Cancellable, Task, find

if TYPE_CHECKING:
    from vdsr_core import ImageFile, Plan

TILE, SHARD = 512, 1024  # pixels a side: of a chunk, and of a piece, which is lost when a run is cancelled in its midst
PIECES = 64  # if there were fewer, pieces are smaller, so that progress is seen


@dataclass(frozen=True)
class Whole:
    """The last step of a run to disk: the levels of the file, the finest first, with the axes of the layer."""

    levels: list[Any]


class Growing(Sliced):
    """The finest level of a result in the making: the source's own pixels where it is not finished.

    `level` is the zarr array that is written into; `order` are its axes in the order of the layer.
    """

    def __init__(self, source: Source, scale: float, level: Any, order: Sequence[int]) -> None:
        super().__init__(source.result_shape(scale), source.data.dtype)
        self.source, self.scale, self._level, self._order = source, scale, level, tuple(order)
        self._written: list[Slices] = []

    def add(self, window: Slices) -> None:
        """Show a window of `level` from now on."""
        self._written.append(window)

    def read(self, part: Slices) -> NDArray[Any]:
        """The pixels of a part of the result."""
        firsts = (grid.start for grid in self.source.grid(self.scale))
        grid = tuple(slice(p.start + first, p.stop + first) for p, first in zip(part, firsts, strict=False))
        pixels = repeat(self.source, self.scale, grid)
        if self.source.rgb:
            pixels = pixels[..., part[-1]]
        for window in self._written:
            self._paste(pixels, part, window)
        return pixels

    def _paste(self, pixels: NDArray[Any], part: Sequence[slice], window: Slices) -> None:
        """Write what is in a window of `level` into a part of the result."""
        here, there = [], [slice(0)] * self.ndim
        for axis, p in zip(self._order, part, strict=True):
            start, stop = max(p.start, window[axis].start), min(p.stop, window[axis].stop)
            if start >= stop:
                return
            there[axis] = slice(start, stop)
            here.append(slice(start - p.start, stop - p.start))
        pixels[tuple(here)] = np.transpose(self._level[tuple(there)], self._order)


def save(
    task: Task, image: ImageFile, levels: Sequence[Any], target: str, cancelled: threading.Event
) -> Iterator[Started | int | Whole]:
    """Upscale whole planes into an OME-Zarr, the folder `target`; a run that was cancelled is resumed.

    `image` is what is to be said of the source, with the pixels of the task; `levels` are those of the source's layer.
    The first step holds the result as it grows, and coarser levels of the source to look at from afar; numbers
    of shards that are done follow.
    """
    from vdsr_core import plan, read_pyramid, stream

    source = task.source
    with computing(cancelled):
        network, found = load_network(task.model), find(task, cancelled)
        watched: Any = Cancellable(source.data, cancelled, source.planes)
        side = piece_side(task)
        image, tile = replace(image, data=watched), task.tile or min(TILE, side)
        options: dict[str, Any] = {"in_range": found.in_range, "self_ensemble": task.self_ensemble, **found.removed}
        job = plan(image, task.scale, target, model=network, tile=tile, shard=side, **options)
        shards = stream(job, image=image, model=network, device=task.device, threads=1, stop=cancelled)
        order = [job.letters.index(letter) for letter in job.axes]
        growing = Growing(source, task.scale, read_pyramid(job.folder / "image")[0].data, order)
        before = job.done
        for level, index in before:
            if level == 0:
                growing.add(job.window(0, index))
        yield Started([growing, *coarse_levels(source, levels)], found, tile, job.total, len(before))
        for done, shard in enumerate(shards, len(before) + 1):
            if shard.level == 0:
                growing.add(job.window(0, shard.index))
            yield done
        stop_if(cancelled)
        yield Whole(open_levels(job, order))


def piece_side(task: Task) -> int:
    """Rows and columns of a piece; the same when a run is resumed."""
    source = task.source
    side, least = SHARD, SHARD // (4 if task.self_ensemble else 2)
    while side > least and count_tiles(source.grid(task.scale), source.plane_axes, side) < PIECES:
        side //= 2
    return side


def open_levels(job: Plan, order: Sequence[int]) -> list[Any]:
    """The levels of a finished target, lazily, with their axes in the order of the layer."""
    import dask.array as da

    from vdsr_core import read_pyramid

    return [da.from_array(level.data).transpose(order) for level in read_pyramid(job.target)]


def list_unfinished() -> dict[str, dict[str, Any]]:
    """The results that are not finished, by their targets, each with the layer and the settings of its run."""
    try:
        noted = json.loads(_list().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {target: record for target, record in noted.items() if _partial(target).is_dir()}


def note_unfinished(target: str, record: dict[str, Any] | None) -> None:
    """Note a result that is begun; None says that it is finished, or not wanted."""
    noted = list_unfinished() | {target: record}
    _list().parent.mkdir(parents=True, exist_ok=True)
    partial = _list().with_suffix(".partial")
    partial.write_text(json.dumps({key: one for key, one in noted.items() if one is not None}), encoding="utf-8")
    os.replace(partial, _list())


def discard(target: str) -> None:
    """Delete what is there of a result that is not finished."""
    with suppress(FileNotFoundError):
        shutil.rmtree(_partial(target))
    note_unfinished(target, None)


def _list() -> Path:
    return library.data_folder() / "unfinished results.json"


def _partial(target: str) -> Path:
    """Where `vdsr_core.stream` collects a target that is not finished."""
    return Path(target).with_name(f".{Path(target).name}.partial")
