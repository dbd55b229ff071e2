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
ROUNDING = 1e-9
Values = NDArray[np.float64]
GRIP = 6  # screen pixels to each side of the line where it can be taken


@dataclass(frozen=True)
class Line:
    """Where two pictures meet on the screen; world coordinates along the axes that are shown, down and across.

    Attributes
    ----------
    point, along, right : (2,) ndarray
        A point of the line, its direction, and the direction to its right; of a level line, to below it.
    """

    point: Values
    along: Values
    right: Values

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
    """What one side shows of a layer: pixels of the part in view, and where they lie.

    Attributes
    ----------
    pixels : ndarray
        One plane; colours are the last axis.
    placement : dict
        The keywords of its layer.
    axes : (int, int)
        Of rows and columns.
    corner, row, column : ndarray
        The centre of the first pixel, and the steps to the next row and column, in the world.
    step : ndarray
        The step to the next column in `placement`, before its affine.
    """

    pixels: NDArray[Any]
    placement: dict[str, Any]
    axes: tuple[int, int]
    corner: Values
    row: Values
    column: Values
    step: Values

    @classmethod
    def of(cls, pixels: NDArray[Any], placement: dict[str, Any], axes: tuple[int, int]) -> Picture:
        """Pixels that lie somewhere."""
        ndim = len(placement["scale"])
        layer, at = Image(np.empty((1,) * ndim), **placement), np.eye(ndim)
        corner = np.asarray(layer.data_to_world(np.zeros(ndim)))
        row, column = (np.asarray(layer.data_to_world(at[axis])) - corner for axis in axes)
        return cls(pixels, placement, axes, corner, row, column, _layers.linear(layer)[:, axes[1]])

    def away(self, line: Line, seen: Sequence[int]) -> tuple[float, float, float]:
        """How far the first pixel is to the right of a line, and how much farther the next row and column are."""
        corner, row, column = self.corner[seen], self.row[seen], self.column[seen]
        return tuple(float(each @ line.right) for each in (corner - line.point, row, column))  # type: ignore[return-value]

    def is_oblique(self, line: Line, seen: Sequence[int]) -> bool:
        """Whether a line passes through it aslant, by half a pixel or more."""
        _, row, column = self.away(line, seen)
        return bool(abs(row) * self.pixels.shape[self.axes[0]] >= abs(column) / 2)

    def cut(self, line: Line, seen: Sequence[int], *, left: bool) -> tuple[NDArray[Any], Values]:
        """The pixels on one side of a line, one column at least, and their `translate`.

        Where the line is oblique, all pixels, of which those on the other side are transparent.
        """
        first, row, column = self.away(line, seen)
        if self.is_oblique(line, seen):
            rows, columns = (np.arange(self.pixels.shape[axis]) for axis in self.axes)
            aside = np.add.outer(first + row * rows, column * columns) < 0  # to the left
            order = np.expand_dims(aside, tuple(a for a in range(len(self.step)) if a not in self.axes))
            return fade(self.pixels, order != left), np.asarray(self.placement["translate"])
        length, low = self.pixels.shape[self.axes[1]], left == (column > 0)  # or the last columns are on the left
        at = min(max(round(0.5 - first / column), 1 if low else 0), length if low else length - 1)
        part = [slice(None)] * self.pixels.ndim
        part[self.axes[1]] = slice(0, at) if low else slice(at, length)
        return self.pixels[tuple(part)], self.placement["translate"] + (0 if low else at) * self.step


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
        return Picture.of(np.asarray(level[tuple(part)]), _layers.placement(of, factors, starts), seen.plane_axes)

    def _add(self, pairs: Sequence[tuple[Image, Any, Any]], pictures: list[tuple[Picture, Picture]]) -> None:
        """Add the layers, linked to what they stand for, and hide that."""
        active = self.viewer.layers.selection.active
        line, seen = self._find_line(pictures)
        for (layer, *sides), both in zip(pairs, pictures, strict=True):
            looks = _layers.looks(layer) | {"interpolation2d": "nearest", "multiscale": False}
            if layer.blending == "opaque" and any(picture.is_oblique(line, seen) for picture in both):
                looks["blending"] = "translucent_no_depth"  # one side shows through the other
            made = []
            for side, picture in zip(("left", "right"), both, strict=True):
                pixels, translate = picture.cut(line, seen, left=side == "left")
                shown = Image(
                    pixels,
                    name=_layers.free_name(f"[{side}] {layer.name}", [other.name for other in self.viewer.layers]),
                    metadata={"vdsr": {"shown": side}},
                    **picture.placement | {"translate": translate},
                    **looks,
                )
                _layers.widen_range(shown, layer)
                made.append(shown)
                self._hidden += _layers.put_above(self.viewer.layers, layer, shown)
            self.shown.append((made[0], made[1]))
            if not layer.rgb:
                self._links += link_layers([*made, layer, *filter(is_layer, sides)], _layers.GRAY_LOOKS)
        self._hidden += _layers.hide_checks(self.viewer.layers)
        for other in self._hidden:
            other.visible = False
        self.viewer.layers.selection.active = active

    def _find_line(self, pictures: Sequence[tuple[Picture, Picture]]) -> tuple[Line, list[int]]:
        """The line at its place, along the columns of the first layer, and the axes that are shown, from the last."""
        seen = [axis - self.viewer.dims.ndim for axis in self.viewer.dims.displayed[-2:]]
        camera, size = _regions.camera(self.viewer), np.asarray(_regions.canvas_size(self.viewer))
        offset = (np.asarray(self.place[::-1]) - 0.5) * size / camera.zoom
        return Line.through(np.asarray(camera.center[-2:]) + offset, pictures[0][1].row[seen]), seen

    def move(self, across: float, down: float = 0.5) -> None:
        """Let the line pass through a place of the canvas, given as fractions of its width and height."""
        self.place = min(max(across, 0.0), 1.0), min(max(down, 0.0), 1.0)
        if not self.shown:
            return
        line, seen = self._find_line(self._pictures)
        for layers, pictures in zip(self.shown, self._pictures, strict=True):
            for layer, picture, left in zip(layers, pictures, (True, False), strict=True):
                pixels, translate = picture.cut(line, seen, left=left)
                layer.data = pixels
                layer.scale, layer.translate = picture.placement["scale"], translate
        if self.line is not None:
            height, width = _regions.canvas_size(self.viewer)
            self.line.put((self.place[0] * width, self.place[1] * height), line.along)

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

    def put(self, place: tuple[float, float], direction: Values) -> None:
        """Draw the line through a point of the canvas, (x, y), in a direction, (down, across)."""
        along = direction[::-1]
        across = np.array([along[1], -along[0]]) * GRIP
        far = 2 * (self.width() + self.height())
        start, stop = place - along * far, place + along * far
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


def fade(pixels: NDArray[Any], gone: NDArray[np.bool_]) -> NDArray[Any]:
    """Pixels, transparent where they are gone; `gone` has no axis of colours."""
    if gone.ndim == pixels.ndim:
        return np.where(gone, np.nan, pixels).astype(np.result_type(pixels.dtype, np.float32), copy=False)
    full = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1.0
    alpha = pixels[..., 3:] if pixels.shape[-1] == 4 else np.full_like(pixels[..., :1], full)
    return np.concatenate([pixels[..., :3], np.where(gone[..., None], 0, alpha).astype(pixels.dtype)], -1)


def is_layer(side: Any) -> bool:
    """Whether a side is the layer of a result."""
    return isinstance(side, Image)


def to_point(place: NDArray[np.float64]) -> QPoint:
    """A place on the canvas, (x, y), in whole pixels."""
    return QPoint(round(place[0]), round(place[1]))
