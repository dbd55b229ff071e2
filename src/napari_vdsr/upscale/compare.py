"""Two pictures of the same layers on either side of a line on the canvas, which one drags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.experimental import link_layers, unlink_layers
from napari.layers import Image
from napari.viewer import Viewer
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QObject, QPoint, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QPainter, QPen, QPolygon, QRegion
from qtpy.QtWidgets import QWidget

from napari_vdsr.layers import regions as _regions
from napari_vdsr.layers import source as _layers
from napari_vdsr.upscale.work import interpolate

MOST = 4096  # rows or columns that are drawn; of more, some are left out
SMOOTH = 1 << 22  # pixels that are interpolated while one waits
SOURCE, BICUBIC, RESULT = "source", "bicubic", "result"
GRIP = 6  # screen pixels to each side of the line where it can be taken


@dataclass(frozen=True)
class Picture:
    """What one side shows of a layer: pixels of the part in view, and where they lie."""

    pixels: NDArray[Any]
    placement: dict[str, Any]
    column: int  # axis

    def cut(self, world: NDArray[np.float64], *, left: bool) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """The pixels on one side of a point of the world, one column at least, and their `translate`."""
        whole = Image(np.empty((1,) * len(self.placement["scale"])), **self.placement)
        here = whole.world_to_data(world[-whole.ndim :])[self.column]
        length = self.pixels.shape[self.column]
        at = min(max(round(here + 0.5), 1 if left else 0), length if left else length - 1)
        part = [slice(None)] * self.pixels.ndim
        part[self.column] = slice(0, at) if left else slice(at, length)
        start = np.zeros(whole.ndim)
        start[self.column] = 0 if left else at
        return self.pixels[tuple(part)], whole.translate + _layers.linear(whole) @ start


class Compare(QObject):
    """The comparison of layers with what was made of them; the layers themselves are hidden meanwhile.

    Parameters
    ----------
    viewer : Viewer
        Where they are.
    line : CanvasLine
        What is dragged.
    """

    def __init__(self, viewer: Viewer, line: CanvasLine | None) -> None:
        super().__init__()
        self.viewer, self.line = viewer, line
        self.shown: list[tuple[Image, Image]] = []  # left and right, for each source
        self._pictures: list[tuple[Picture, Picture]] = []
        self._pairs: list[tuple[Image, Any, Any]] = []
        self._hidden: list[Image] = []
        self._links: list[Any] = []
        self.place = 0.5, 0.5  # on the canvas, from left and from the top
        if line is not None:
            line.dragged.connect(self.move)

    def show(self, pairs: Sequence[tuple[Image, Any, Any]], axis: Any, scale: float) -> None:
        """Compare, or compare anew, as when the view has moved.

        Parameters
        ----------
        pairs : sequence of (Image, side, side)
            For each source the left and the right side: `SOURCE`, `BICUBIC`, or the layer of a result.
        axis : callable
            Gives the channel axis of a source.
        scale : float
            Of `BICUBIC`.

        Raises
        ------
        NoRegion
            If a layer is not in view.
        """
        pictures = []
        for layer, *sides in pairs:
            left, right = (self._look(layer, side, axis(layer), scale) for side in sides)
            pictures.append((left, right))
        if self._pairs != list(pairs) or any(one not in self.viewer.layers for both in self.shown for one in both):
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
        plane = _layers.current_plane(of, self.viewer.dims.point, axis)
        seen = _regions.in_view(self.viewer, of, plane)
        if side == BICUBIC:
            pixels = interpolate(seen, scale, seen.grid(scale), most=SMOOTH)
            place = _layers.placement(of, seen.factors(scale), seen.start(scale))
            return Picture(pixels, place, seen.plane_axes[1])
        level = of.data[of.data_level] if of.multiscale else of.data
        part, factors, starts = [], [], []
        for number, span in enumerate(seen.part):
            coarser = level.shape[number] / seen.data.shape[number]
            start, stop = int(span.start * coarser), max(int(span.start * coarser) + 1, round(span.stop * coarser))
            step = -(-(stop - start) // MOST) if number in seen.plane_axes else 1
            part.append(slice(start, stop, step))
            factors.append(coarser / step)
            starts.append(start / coarser)
        return Picture(np.asarray(level[tuple(part)]), _layers.placement(of, factors, starts), seen.plane_axes[1])

    def _add(self, pairs: Sequence[tuple[Image, Any, Any]], pictures: list[tuple[Picture, Picture]]) -> None:
        """Add the layers, linked to what they stand for, and hide that."""
        active = self.viewer.layers.selection.active
        for (layer, *sides), both in zip(pairs, pictures, strict=True):
            looks = _layers.looks(layer) | {"interpolation2d": "nearest", "multiscale": False}
            made = []
            for side, picture in zip(("left", "right"), both, strict=True):
                shown = Image(
                    picture.pixels,
                    name=_layers.free_name(f"[{side}] {layer.name}", [other.name for other in self.viewer.layers]),
                    metadata={"vdsr": {"shown": side}},
                    **picture.placement,
                    **looks,
                )
                _layers.widen_range(shown, layer)
                made.append(shown)
                self._hidden += _layers.put_above(self.viewer.layers, layer, shown)
            self.shown.append((made[0], made[1]))
            if not layer.rgb:
                self._links += link_layers([*made, layer, *filter(is_layer, sides)], _layers.GRAY_LOOKS)
        checks = [other for other in self.viewer.layers if "check" in other.metadata.get("vdsr", {}) and other.visible]
        self._hidden += map(_layers.bare, checks)  # they lie on top
        for other in self._hidden:
            other.visible = False
        self.viewer.layers.selection.active = active

    def move(self, across: float, down: float = 0.5) -> None:
        """Let the line pass through a place of the canvas, given as fractions of its width and height."""
        self.place = min(max(across, 0.0), 1.0), min(max(down, 0.0), 1.0)
        height, width = _regions.canvas_size(self.viewer)
        camera = _regions.camera(self.viewer)
        middle, on_screen = np.asarray(camera.center[-2:]), list(self.viewer.dims.displayed)[-2:]
        world = np.asarray(self.viewer.dims.point, dtype=np.float64)
        offset = (self.place[1] - 0.5) * height, (self.place[0] - 0.5) * width
        world[on_screen] = middle + np.asarray(offset) / camera.zoom
        for layers, pictures in zip(self.shown, self._pictures, strict=True):
            for layer, picture, left in zip(layers, pictures, (True, False), strict=True):
                pixels, translate = picture.cut(world, left=left)
                layer.data = pixels
                layer.scale, layer.translate = picture.placement["scale"], translate
        if self.line is not None and self.shown:
            image, column = self.shown[0][1], self._pictures[0][1].column
            row = [axis for axis in range(image.ndim) if axis != column][-1]
            point = np.array(image.world_to_data(world[-image.ndim :]), dtype=np.float64)
            point[column] = -0.5
            ends = []
            for end in (-0.5, image.data.shape[row] - 0.5):  # along a column of the first layer, which may be turned
                point[row] = end
                down, across = (np.asarray(image.data_to_world(point))[-2:] - middle) * camera.zoom
                ends.append((across + width / 2, down + height / 2))
            self.line.put(ends[0], ends[1])

    def leave_hidden(self, layers: Sequence[Image]) -> None:
        """Do not show these when the comparison is over: others stand in their place now."""
        self._hidden = [layer for layer in self._hidden if layer not in layers]

    def close(self) -> None:
        """Take the layers away, and show again what was hidden."""
        shown = [layer for both in self.shown for layer in both]
        results = [side for _, *sides in self._pairs for side in sides if is_layer(side)]
        sources, hidden, linked = [pair[0] for pair in self._pairs], self._hidden, bool(self._links)
        # First, for layers that are removed tell of it.
        self.shown, self._hidden, self._pairs, self._pictures, self._links = [], [], [], [], []
        if linked:
            unlink_layers([*shown, *sources, *results], _layers.GRAY_LOOKS)
        for layer in shown:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        for layer in hidden:
            layer.visible = True
        if self.line is not None:
            self.line.hide()


class CanvasLine(QWidget):
    """A line over the canvas; napari has none, and layers cannot be taken hold of without being selected.

    Attributes
    ----------
    dragged : Signal(float, float)
        Where it was dragged to, as fractions of width and height.
    """

    dragged = Signal(float, float)

    def __init__(self, canvas: QWidget) -> None:
        super().__init__(canvas)
        self.setObjectName("vdsr line")
        self.setCursor(Qt.CursorShape.SplitHCursor)
        self._ends = (QPoint(0, 0), QPoint(0, 1))
        canvas.installEventFilter(self)
        self.setGeometry(canvas.rect())
        self.hide()

    def put(self, first: tuple[float, float], second: tuple[float, float]) -> None:
        """Draw the line through two points of the canvas."""
        a, b = np.asarray(first), np.asarray(second)
        along = (b - a) / max(1e-9, float(np.hypot(*(b - a))))
        across = np.array([along[1], -along[0]]) * GRIP
        far = 2 * (self.width() + self.height())
        middle = (a + b) / 2
        start, stop = middle - along * far, middle + along * far
        corners = [
            QPoint(*map(round, point)) for point in (start - across, start + across, stop + across, stop - across)
        ]
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


def is_layer(side: Any) -> bool:
    """Whether a side is the layer of a result."""
    return isinstance(side, Image)


def to_point(place: NDArray[np.float64]) -> QPoint:
    """A place on the canvas, (x, y), in whole pixels."""
    return QPoint(round(place[0]), round(place[1]))
