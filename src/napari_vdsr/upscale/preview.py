"""A layer that shows what the network makes of the part in view, tile by tile from the middle outwards."""

from __future__ import annotations

import math
from collections.abc import Hashable
from functools import partial
from itertools import product
from typing import Any

from napari.experimental import link_layers, unlink_layers
from napari.layers import Image
from napari.viewer import Viewer
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_vdsr.background.job import Latest
from napari_vdsr.background.pytorch import Facts
from napari_vdsr.layers import image_layers
from napari_vdsr.upscale import generators
from napari_vdsr.upscale.task import Task

LARGEST = 2048  # rows and columns of the layer, about its middle
KEPT = 1 << 28  # bytes of finished tiles that are kept for when the view comes back
SIDES = (64, 96, 128, 192, 256, 384, 512)
TILE_SECONDS = 0.7  # so that the first tile is there soon after a move


class Preview(QObject):
    """What the network makes of the view of a source, as a layer of its own."""

    stepped = Signal(object)  # the preview; there is more to see
    ended = Signal(object, object)  # the preview, and the exception; it has failed

    def __init__(self, viewer: Viewer, layer: Image, facts: Facts) -> None:
        super().__init__()
        self.viewer, self.source_layer = viewer, layer
        self.layer: Image | None = None
        self._state: Hashable = None  # of the source's pixels
        self._hidden: list[Image] = []
        self.total = self.done = 0
        fits = (side for side in SIDES if (side + 2 * facts.halo) ** 2 <= TILE_SECONDS * facts.speed)
        self.side = max(fits, default=SIDES[0])
        self._tiles: dict[tuple[Any, ...], NDArray[Any]] = {}  # finished, the oldest first
        self._task: Task | None = None
        self._grid: image_layers.Slices = ()
        self._places: list[image_layers.Slices] = []
        self._work = Latest(self._stepped, self._ended)

    def show(self, task: Task) -> None:
        """Show a region: what is known of it at once, the rest as it is finished."""
        grid = tile_aligned(task.source, task.scale, self.side)
        same = self._task is not None and self._task.choices == task.choices and self._grid == grid
        if same and self._work.running:
            return
        self.stop()
        self._task, self._grid = task, grid
        self._places = cut_tiles(self._grid, task.source.plane_axes, self.side)
        self._work.start(partial(generators.preview, task, self._grid, self._places))

    def stop(self) -> None:
        """Compute nothing more; what is shown stays."""
        self._work.stop()

    def close(self) -> None:
        """Take the layer away."""
        self.stop()
        if self.layer is not None and self.layer in self.viewer.layers:
            unlink_layers([self.layer, self.source_layer], image_layers.GRAY_LOOKS)
            self.viewer.layers.remove(self.layer)
        self.layer = None
        for layer in self._hidden:
            layer.visible = True
        self._hidden = []

    @property
    def complete(self) -> bool:
        """Whether all tiles in view are there."""
        return 0 < self.total == self.done

    def _key(self, place: image_layers.Slices) -> tuple[Any, ...]:
        """What the pixels of a tile depend on."""
        assert self._task is not None
        return (self._task.choices, *((part.start, part.stop) for part in place))

    def _stepped(self, step: Any) -> None:
        """Take what the job has found, in order: the range, the pixels of the source, the tiles."""
        if isinstance(step, generators.Base):
            if step.state != self._state:  # other pixels, also in the same array
                self._tiles.clear()
            self._state = step.state
            missing = [place for place in self._places if self._key(place) not in self._tiles]
            self.total, self.done = len(self._places), len(self._places) - len(missing)
            self._lay(step.pixels)
            self._places[:] = missing  # the job waits until this step is handled
        else:
            self._keep(step)
            self.done += 1
            self._paste(step.place, step.pixels)
            if self.layer is not None:
                self.layer.refresh(extent=False, thumbnail=False, highlight=False)
        self.stepped.emit(self)

    def _lay(self, pixels: NDArray[Any]) -> None:
        """Put the layer on a new region, with the tiles that are known already."""
        assert self._task is not None
        source, scale = self._task.source, self._task.scale
        self._pixels = pixels
        for place in cut_tiles(self._grid, source.plane_axes, self.side):
            if (known := self._tiles.get(self._key(place))) is not None:
                self._paste(place, known)
        factors = source.factors(scale)
        start = [part.start / factor for part, factor in zip(self._grid, factors, strict=True)]
        placement = image_layers.placement(self.source_layer, factors, start)
        if self.layer is not None and self.layer in self.viewer.layers:
            self.layer.data = pixels
            self.layer.scale, self.layer.translate = placement["scale"], placement["translate"]
            return
        names = [layer.name for layer in self.viewer.layers]
        name = image_layers.free_name(f"{self.source_layer.name} [VDSR preview]", names)
        said = {"vdsr": {"shown": "preview"}}
        self.layer = Image(pixels, name=name, metadata=said, **placement, **image_layers.looks(self.source_layer))
        image_layers.widen_range(self.layer, self.source_layer)
        active = self.viewer.layers.selection.active
        self._hidden = image_layers.hide_checks(self.viewer.layers)
        under = image_layers.put_above(self.viewer.layers, self.source_layer, self.layer)
        self.viewer.layers.selection.active = active  # a preview is looked at, not worked with
        if not self.source_layer.rgb:
            link_layers([self.layer, self.source_layer], image_layers.GRAY_LOOKS)
        if not image_layers.covers(self.source_layer):  # both together would count twice
            self._hidden += under
            for layer in under:
                layer.visible = False

    def _keep(self, piece: generators.PreviewTile) -> None:
        """Keep a tile, and the latest others as far as there is room."""
        self._tiles[self._key(piece.place)] = piece.pixels
        room = KEPT // max(1, piece.pixels.nbytes)
        while len(self._tiles) > room:
            del self._tiles[next(iter(self._tiles))]

    def _paste(self, place: image_layers.Slices, pixels: NDArray[Any]) -> None:
        """Write a tile into the layer's array."""
        inside = tuple(slice(p.start - g.start, p.stop - g.start) for p, g in zip(place, self._grid, strict=True))
        self._pixels[inside] = pixels

    def _ended(self, error: Exception | None) -> None:
        if error is not None:
            self.ended.emit(self, error)


def tile_aligned(source: image_layers.Source, scale: float, side: int) -> image_layers.Slices:
    """The whole tiles, on the grid of the whole layer's result, that hold a source; about its middle if it is large."""
    grid = list(source.grid(scale))
    whole = source.within(*(slice(0, source.data.shape[axis]) for axis in source.plane_axes)).grid(scale)
    for axis in source.plane_axes:
        middle = (grid[axis].start + grid[axis].stop) // 2
        start = max(grid[axis].start, middle - LARGEST // 2) // side * side
        stop = math.ceil(min(grid[axis].stop, middle + LARGEST // 2) / side) * side
        grid[axis] = slice(start, min(stop, whole[axis].stop))
    return tuple(grid)


def cut_tiles(grid: image_layers.Slices, plane_axes: tuple[int, int], side: int) -> list[image_layers.Slices]:
    """The tiles of a tile-aligned grid, those in the middle first; each holds all leading axes."""
    middle = [(grid[axis].start + grid[axis].stop) / 2 for axis in plane_axes]

    def spans(axis: int) -> list[slice]:
        return [slice(i, min(i + side, grid[axis].stop)) for i in range(grid[axis].start, grid[axis].stop, side)]

    def away(place: image_layers.Slices) -> float:
        return math.hypot(*((place[a].start + place[a].stop) / 2 - m for a, m in zip(plane_axes, middle, strict=True)))

    axes = [spans(axis) if axis in plane_axes else [part] for axis, part in enumerate(grid)]
    return sorted(product(*axes), key=away)
