"""Two pictures of the same layers on either side of a line on the canvas, which one drags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from napari.experimental import link_layers, unlink_layers
from napari.layers import Image
from napari.viewer import Viewer
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QObject, QPoint, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QPainter, QPen, QPolygon, QRegion
from qtpy.QtWidgets import QWidget

from napari_vdsr.layers import image_layers, regions
from napari_vdsr.upscale.generators import interpolate

MOST = 4096  # rows or columns that are drawn; of more, some are left out
SMOOTH = 1 << 22  # pixels that are interpolated while one waits
SOURCE, BICUBIC = "source", "bicubic"
ROUNDING = 1e-9
Values = NDArray[np.float64]
GRIP = 6  # screen pixels to each side of the line where it can be taken


@dataclass(frozen=True)
class Line:
    """Where two pictures meet on the screen; world coordinates along the axes that are shown, down and across, (2,)."""

    point: Values
    along: Values  # its direction
    right: Values  # the direction to its right; if it is level, to below it

    @classmethod
    def through(cls, point: Values, along: Values) -> Line:
        """The line in some direction."""
        along = along / np.hypot(*along)
        right = np.array([-along[1], along[0]])
        if right[1] < -ROUNDING or (right[1] < ROUNDING and right[0] < 0):
            right = -right
        return cls(point, along, right)


@dataclass(frozen=True)
class Picture:
    """What one side shows of a layer: pixels of the part in view, and where they lie in the world."""

    pixels: NDArray[Any]  # one plane; colours are the last axis
    placement: dict[str, Any]  # the keywords of its layer
    axes: tuple[int, int]  # of rows and columns
    corner: Values  # the centre of the first pixel
    row: Values  # the step to the next row
    column: Values

    @classmethod
    def of(cls, pixels: NDArray[Any], placement: dict[str, Any], axes: tuple[int, int]) -> Picture:
        """Pixels that lie somewhere."""
        ndim = len(placement["scale"])
        layer, at = Image(np.empty((1,) * ndim), **placement), np.eye(ndim)
        corner = np.asarray(layer.data_to_world(np.zeros(ndim)))
        row, column = (np.asarray(layer.data_to_world(at[axis])) - corner for axis in axes)
        return cls(pixels, placement, axes, corner, row, column)

    def on_grid_of(self, other: Picture) -> Picture:
        """The same layer on the grid of a picture that lies as it does: each pixel is the nearest one of this."""
        steps = np.stack([self.row, self.column], axis=1)
        first = np.linalg.lstsq(steps, other.corner - self.corner)[0]
        pixels = self.pixels
        for axis, start, mine, its in zip(self.axes, first, steps.T, (other.row, other.column), strict=True):
            places = start + np.arange(other.pixels.shape[axis]) * np.linalg.norm(its) / np.linalg.norm(mine)
            pixels = pixels.take(np.rint(places).astype(int), axis, mode="clip")
        return replace(other, pixels=pixels)

    def to_the_left(self, line: Line, seen: Sequence[int]) -> NDArray[np.bool_]:
        """Which pixels lie to the left of a line; all axes of the layer, of length 1 but for rows and columns."""
        corner, row, column = (float(place[seen] @ line.right) for place in (self.corner, self.row, self.column))
        rows, columns = (np.arange(self.pixels.shape[axis]) for axis in self.axes)
        aside = np.add.outer(corner - line.point @ line.right + row * rows, column * columns) < 0
        return np.expand_dims(aside, tuple(axis for axis in range(len(self.corner)) if axis not in self.axes))


def bring_together(left: Picture, right: Picture) -> tuple[Picture, Picture]:
    """Two pictures of a layer on the grid of the finer one."""
    if np.linalg.norm(left.row) < np.linalg.norm(right.row):
        return left, right.on_grid_of(left)
    return left.on_grid_of(right), right


def join(left: Picture, right: Picture, line: Line, seen: Sequence[int]) -> NDArray[Any]:
    """The pixels of two pictures on one grid, which meet at a line."""
    aside = left.to_the_left(line, seen)
    return np.where(aside if left.pixels.ndim == aside.ndim else aside[..., None], left.pixels, right.pixels)


class Compare(QObject):
    """The comparison of layers with what was made of them; the layers themselves are hidden meanwhile."""

    def __init__(self, viewer: Viewer, line: CanvasLine | None) -> None:
        super().__init__()
        self.viewer, self.line = viewer, line
        self.shown: list[Image] = []  # one for each source
        self._pictures: list[tuple[Picture, Picture]] = []
        self._pairs: list[tuple[Image, Any, Any]] = []
        self._hidden: list[Image] = []
        self._links: list[Any] = []
        self.place = 0.5, 0.5  # on the canvas, from left and from the top
        if line is not None:
            line.dragged.connect(self.move)

    def show(self, pairs: Sequence[tuple[Image, Any, Any]], axis: Any, scale: float) -> None:
        """Start a comparison, or update it after the view has moved; `NoRegion` if a layer is not in view.

        `pairs` are, for each source, itself and its left and right side: `SOURCE`, `BICUBIC` with this `scale`, or the
        layer of a result. `axis` gives the channel axis of a source.
        """
        pictures = []
        for layer, *sides in pairs:
            left, right = (self._look(layer, side, axis(layer), scale) for side in sides)
            pictures.append(bring_together(left, right))
        if self._pairs != list(pairs) or any(one not in self.viewer.layers for one in self.shown):
            self.close()
            self._pairs = list(pairs)
            self._add(pairs, pictures)
        self._pictures = pictures
        self.move(*self.place)
        if self.line is not None:
            self.line.show()

    def _look(self, layer: Image, side: Any, axis: int | None, scale: float) -> Picture:
        """What a side shows of a layer."""
        of = side if isinstance(side, Image) else layer
        plane = image_layers.current_plane(of, self.viewer.dims.point, axis)
        seen = regions.in_view(self.viewer, of, plane)
        if side == BICUBIC:
            pixels = interpolate(seen, scale, seen.grid(scale), most=SMOOTH)
            place = image_layers.placement(of, seen.factors(scale), seen.start(scale))
            return Picture.of(pixels, place, seen.plane_axes)
        level = of.data[of.data_level] if of.multiscale else of.data
        part, factors, starts = [], [], []
        for number, span in enumerate(seen.part):
            coarser = level.shape[number] / seen.data.shape[number]
            start, stop = int(span.start * coarser), max(int(span.start * coarser) + 1, round(span.stop * coarser))
            step = -(-(stop - start) // MOST) if number in seen.plane_axes else 1
            part.append(slice(start, stop, step))
            factors.append(coarser / step)
            starts.append(start / coarser)
        return Picture.of(np.asarray(level[tuple(part)]), image_layers.placement(of, factors, starts), seen.plane_axes)

    def _add(self, pairs: Sequence[tuple[Image, Any, Any]], pictures: list[tuple[Picture, Picture]]) -> None:
        """Add the layers, linked to what they stand for, and hide that."""
        active = self.viewer.layers.selection.active
        line, seen = self._find_line(pictures)
        for (layer, *sides), both in zip(pairs, pictures, strict=True):
            shown = Image(
                join(*both, line, seen),
                name=image_layers.free_name(f"[compare] {layer.name}", [other.name for other in self.viewer.layers]),
                metadata={"vdsr": {"shown": "compare"}},
                **both[0].placement,
                **image_layers.looks(layer) | {"interpolation2d": "nearest", "multiscale": False},
            )
            image_layers.widen_range(shown, layer)
            self._hidden += image_layers.put_above(self.viewer.layers, layer, shown)
            self.shown.append(shown)
            if not layer.rgb:
                results = [side for side in sides if isinstance(side, Image)]
                self._links += link_layers([shown, layer, *results], image_layers.GRAY_LOOKS)
        self._hidden += image_layers.hide_checks(self.viewer.layers)
        for other in self._hidden:
            other.visible = False
        self.viewer.layers.selection.active = active

    def _find_line(self, pictures: Sequence[tuple[Picture, Picture]]) -> tuple[Line, list[int]]:
        """The line at its place, along the columns of the first layer, and the axes that are shown, from the last."""
        seen = [axis - self.viewer.dims.ndim for axis in self.viewer.dims.displayed[-2:]]
        camera, size = regions.camera(self.viewer), np.asarray(regions.canvas_size(self.viewer))
        offset = (np.asarray(self.place[::-1]) - 0.5) * size / camera.zoom
        return Line.through(np.asarray(camera.center[-2:]) + offset, pictures[0][1].row[seen]), seen

    def move(self, across: float, down: float = 0.5) -> None:
        """Let the line pass through a place of the canvas, given as fractions of its width and height."""
        self.place = min(max(across, 0.0), 1.0), min(max(down, 0.0), 1.0)
        if not self.shown:
            return
        line, seen = self._find_line(self._pictures)
        for layer, both in zip(self.shown, self._pictures, strict=True):
            layer.data = join(*both, line, seen)
            layer.scale, layer.translate = both[0].placement["scale"], both[0].placement["translate"]
        if self.line is not None:
            height, width = regions.canvas_size(self.viewer)
            self.line.put((self.place[0] * width, self.place[1] * height), line.along)

    def leave_hidden(self, layers: Sequence[Image]) -> None:
        """Do not show these when the comparison is over: others stand in their place now."""
        self._hidden = [layer for layer in self._hidden if layer not in layers]

    def close(self) -> None:
        """Take the layers away, and show again what was hidden."""
        shown = self.shown
        results = [side for _, *sides in self._pairs for side in sides if isinstance(side, Image)]
        sources, hidden, linked = [pair[0] for pair in self._pairs], self._hidden, bool(self._links)
        # First, for layers that are removed tell of it.
        self.shown, self._hidden, self._pairs, self._pictures, self._links = [], [], [], [], []
        if linked:
            unlink_layers([*shown, *sources, *results], image_layers.GRAY_LOOKS)
        for layer in shown:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        for layer in hidden:
            layer.visible = True
        if self.line is not None:
            self.line.hide()


class CanvasLine(QWidget):
    """A line over the canvas; napari has none, and layers cannot be taken hold of without being selected."""

    dragged = Signal(float, float)  # where to, as fractions of width and height

    def __init__(self, canvas: QWidget) -> None:
        super().__init__(canvas)
        self.setObjectName("vdsr line")
        self.setCursor(Qt.CursorShape.SplitHCursor)
        self._ends = (QPoint(0, 0), QPoint(0, 1))
        canvas.installEventFilter(self)
        self.setGeometry(canvas.rect())
        self.hide()

    def put(self, place: tuple[float, float], direction: Values) -> None:
        """Draw the line through a point of the canvas, (x, y), in a direction, (down, across)."""
        along = direction[::-1]
        across = np.array([along[1], -along[0]]) * GRIP
        far = 2 * (self.width() + self.height())
        start, stop = place - along * far, place + along * far
        corners = [to_point(end) for end in (start - across, start + across, stop + across, stop - across)]
        self._ends = (to_point(start), to_point(stop))
        self.setMask(QRegion(QPolygon(corners)))
        self.update()

    def paintEvent(self, event: Any) -> None:
        """Draw it, light on dark, so that it shows on any image."""
        painter = QPainter(self)
        for colour, width in ((QColor(0, 0, 0), 4), (QColor(255, 255, 255), 2)):
            painter.setPen(QPen(colour, width))
            painter.drawLine(*self._ends)
        painter.end()

    def mouseMoveEvent(self, event: Any) -> None:
        """Follow the pointer while a button is down."""
        self.dragged.emit(event.position().x() / max(1, self.width()), event.position().y() / max(1, self.height()))

    def mousePressEvent(self, event: Any) -> None:
        """Take hold of the line."""
        event.accept()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Stay as large as the canvas."""
        if event is not None and event.type() == QEvent.Type.Resize and isinstance(watched, QWidget):
            self.setGeometry(watched.rect())
        return False


def to_point(place: NDArray[np.float64]) -> QPoint:
    """A place on the canvas, (x, y), in whole pixels."""
    return QPoint(round(place[0]), round(place[1]))
