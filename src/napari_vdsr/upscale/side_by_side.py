"""Up to four pictures of the part in view beside each other: the source, bicubic interpolation, and networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyqtgraph
from napari.layers import Image
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QRectF
from qtpy.QtWidgets import QDialog, QGridLayout, QPushButton, QVBoxLayout, QWidget

from napari_vdsr.forms import choice, make_column, make_text
from napari_vdsr.layers import image_layers, regions
from napari_vdsr.models.library import list_networks
from napari_vdsr.upscale import generators
from napari_vdsr.upscale.choices import Choices
from napari_vdsr.upscale.compare import BICUBIC, SOURCE
from napari_vdsr.upscale.queue import Batch, Queue
from napari_vdsr.upscale.runs import Single
from napari_vdsr.upscale.task import Task

MOST = 1024  # rows and columns of a picture, about the middle of the view
COUNT = 4
SIZE = 900, 780  # screen pixels


class Look(Single):
    """The part in view of a layer as one network makes it; its pixels are kept, no layer is added."""

    def __init__(self, layer: Image, task: Task) -> None:
        super().__init__(layer, task, partial(generators.upscale, task), f"looking at {layer.name}")
        self.pixels: NDArray[Any] | None = None

    def step(self, step: Any) -> None:
        """Take the array first, then count the tiles that are written into it."""
        if isinstance(step, generators.Started):
            self.pixels, self.total = step.data, step.count
        else:
            self.done = step


class Pane(QWidget):
    """One of the pictures, with the choice of what it shows."""

    def __init__(self, offer: Any) -> None:
        super().__init__()
        self.side = choice("", "What is shown here.", offer)
        self.canvas = pyqtgraph.GraphicsLayoutWidget()
        self.view = self.canvas.addViewBox(lockAspect=True, invertY=True)
        self.image = pyqtgraph.ImageItem(axisOrder="row-major")
        self.view.addItem(self.image)
        self.batch: Batch | None = None  # that makes it
        make_column(self, self.side.native, self.canvas)


class SideBySide(QDialog):
    """The pictures, which zoom and move together."""

    wanted = Signal(object)  # a batch of work to be done

    def __init__(self, parent: QWidget, choices: Choices, queue: Queue) -> None:
        super().__init__(parent)
        self.setWindowTitle("Side by side")
        self.resize(*SIZE)
        self._choices, self._queue = choices, queue
        self._seen: list[tuple[Image, image_layers.Source]] = []
        self.message = make_text("Drag to move, turn the wheel to zoom: all pictures follow.")
        self.again_button = QPushButton("Take the part in view")
        self.again_button.clicked.connect(self.look)
        self.pictures = [Pane(self._offer) for _ in range(COUNT)]
        grid = QGridLayout()
        for number, picture in enumerate(self.pictures):
            grid.addWidget(picture, number // 2, number % 2)
            picture.view.setXLink(self.pictures[0].view if number else None)
            picture.view.setYLink(self.pictures[0].view if number else None)
            picture.side.changed.connect(partial(self._fill, picture))
        column = QVBoxLayout(self)
        column.addLayout(grid, 1)
        column.addWidget(self.message)
        column.addWidget(self.again_button)
        queue.ended.connect(self._ended)

    def _offer(self, box: Any) -> list[tuple[str, Any]]:
        """Bicubic interpolation, the source, and the networks."""
        networks = [(network.name, ("network", network.model)) for network in list_networks()]
        chosen = self._choices.form.model.currentData()
        if chosen is not None and ("network", chosen) not in [side for _, side in networks]:
            networks.append((image_layers.model_name(chosen), ("network", chosen)))
        networks.sort(key=lambda entry: entry[1][1] != chosen)
        return [*networks, ("Bicubic interpolation", BICUBIC), ("Source (nearest)", SOURCE)]

    def open_with(self) -> None:
        """Show as many networks as there are room for, the chosen one first, on the part in view."""
        sides = [side for _, side in self._offer(None)][:COUNT]
        for picture, side in zip(self.pictures, sides, strict=True):
            with picture.side.changed.blocked():
                picture.side.reset_choices()
                picture.side.value = side
        self.show()
        self.look()

    def look(self) -> None:
        """Take the part that is in view now."""
        choices, scale = self._choices, self._choices.form.scale.value
        try:
            seen = [(layer, choices.shown_plane(layer)[0]) for layer, _ in choices.sources()]
            seen = [(layer, regions.in_view(choices.viewer, layer, plane)) for layer, plane in seen]
        except regions.NoRegion as error:
            self.message.setText(str(error))
            return
        self._seen = [(layer, source.about_middle(max(1, int(MOST / scale)))) for layer, source in seen]
        for picture in self.pictures:
            self._fill(picture)
        if self._seen:
            self.pictures[0].view.setRange(place_of(self._seen[0][1], scale), padding=0)

    def _fill(self, picture: Pane, *_: Any) -> None:
        """Show what is chosen, now or when a network has made it."""
        side, scale = picture.side.value, self._choices.form.scale.value
        if picture.batch is not None and not picture.batch.over:
            self._queue.cancel(picture.batch)
        picture.batch = None
        if not self._seen:
            return
        if isinstance(side, tuple):
            tasks = [(layer, self._choices.task(layer, source)) for layer, source in self._seen]
            looks = [Look(layer, replace(task, model=side[1])) for layer, task in tasks]
            picture.batch = Batch(f"Side by side: {image_layers.model_name(side[1])}", looks)
            picture.image.clear()
            self.wanted.emit(picture.batch)
            return
        make = generators.interpolate if side == BICUBIC else generators.repeat
        self._draw(picture, [make(source, scale, source.grid(scale)) for _, source in self._seen])

    def _ended(self, batch: Batch) -> None:
        """Show what a network has made."""
        for picture in self.pictures:
            if picture.batch is batch:
                looks = [run.pixels for run in batch.runs if isinstance(run, Look) and run.pixels is not None]
                if batch.error is not None or len(looks) < len(self._seen):
                    self.message.setText(batch.words)
                else:
                    self._draw(picture, looks)

    def _draw(self, picture: Pane, made: Sequence[NDArray[Any]]) -> None:
        """Show pixels of all layers as they look together."""
        layers, sources = zip(*self._seen, strict=True)
        planes = [flat(pixels, source) for pixels, source in zip(made, sources, strict=True)]
        pairs = zip(layers, planes, strict=True)
        alike = [(layer, plane) for layer, plane in pairs if plane.shape[:2] == planes[0].shape[:2]]
        picture.image.setImage(blend(alike), levels=(0, 255))
        picture.image.setRect(place_of(sources[0], self._choices.form.scale.value))  # in pixels of the source

    def closeEvent(self, event: Any) -> None:
        """Compute nothing more."""
        for picture in self.pictures:
            if picture.batch is not None and not picture.batch.over:
                self._queue.cancel(picture.batch)
        super().closeEvent(event)


def place_of(source: image_layers.Source, scale: float) -> QRectF:
    """Where the result of a part lies, in pixels of its layer."""
    rows, columns = (source.grid(scale)[axis] for axis in source.plane_axes)
    sides = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    return QRectF(*(side / scale for side in sides))


def flat(pixels: NDArray[Any], source: image_layers.Source) -> NDArray[Any]:
    """The one plane of an array, (rows, columns) or (rows, columns, colours)."""
    rows, columns = (pixels.shape[axis] for axis in source.plane_axes)
    return pixels.reshape((rows, columns, -1) if source.rgb else (rows, columns))


def blend(layers: Iterable[tuple[Image, NDArray[Any]]]) -> NDArray[np.uint8]:
    """Planes in the colours of their layers, the first one below, as napari shows them: (rows, columns, 3).

    Blending that is neither opaque, translucent nor additive is taken for additive.
    """
    total: NDArray[np.float64] = np.zeros(())
    for layer, plane in layers:
        colours = paint(layer, plane)
        weight = colours[..., 3:] * layer.opacity
        below = total * (1 - weight) if layer.blending in image_layers.OPAQUE else total
        total = below + colours[..., :3] * weight
    return np.asarray(np.rint(255 * np.clip(total, 0, 1)), np.uint8)


def paint(layer: Image, plane: NDArray[Any]) -> NDArray[np.float64]:
    """A plane in the colours of its layer, (rows, columns, 4), from 0 to 1."""
    if layer.rgb:
        shades = plane / (np.iinfo(plane.dtype).max if plane.dtype.kind in "ui" else 1.0)
        opaque = np.ones((*plane.shape[:2], 1))
        return np.concatenate([shades, opaque], -1)[..., :4]
    low, high = layer.contrast_limits
    shades = np.clip((plane.astype(np.float64) - low) / max(high - low, 1e-300), 0, 1) ** layer.gamma
    return np.asarray(layer.colormap.map(shades.reshape(-1)), np.float64).reshape(*plane.shape, 4)
