"""What is seen of a training: curves of loss and gain, and a held-out part as it is restored."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QWidget

from napari_vdsr.forms import make_column
from napari_vdsr.plot import make_plot, paint_plot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vdsr_core import Preview

HEIGHT = 110  # of a plot, screen pixels
MOST = 2000  # points of a curve; further ones are means
SIDE = 64  # pixels of the held-out part that are shown
TILE = 150  # pixels of the screen for them
COLOURS = {"loss": "#5dade2", "gain": "#58d68d", "zero": "#888888"}


class Curves(QWidget):
    """The gain over the network before on the part kept for testing, and the loss, by steps."""

    def __init__(self) -> None:
        super().__init__()
        self._loss, self._gain = make_plot(HEIGHT), make_plot(HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        make_column(self, self._gain, self._loss).setSpacing(0)
        for plot, words in (
            (self._gain, "Gain over the network before, in dB"),
            (self._loss, "Error in training, by steps"),
        ):
            plot.getAxis("left").setWidth(60)
            plot.setTitle(words, size="9pt")
        self._loss.setLogMode(y=True)
        self._zero = pyqtgraph.InfiniteLine(
            0, angle=0, pen=pyqtgraph.mkPen(COLOURS["zero"], style=Qt.PenStyle.DashLine)
        )
        self._gain.addItem(self._zero)
        self._loss_curve = self._loss.plot(pen=pyqtgraph.mkPen(COLOURS["loss"], width=1.5))
        self._gain_curve = self._gain.plot(
            pen=pyqtgraph.mkPen(COLOURS["gain"], width=2), symbol="o", symbolSize=6, symbolBrush=COLOURS["gain"]
        )
        self.setToolTip(
            "<qt>Above: how much better than before (the dashed line) the network restores the part that is kept for "
            "testing; this decides. Below: how far it is from the patches it trains with (the loss).</qt>"
        )

    def show_points(self, gains: list[tuple[int, float]], losses: list[tuple[int, float]]) -> None:
        """Show these steps and values."""
        self._loss.setVisible(bool(losses))
        steps, values = thinned(losses)
        self._loss_curve.setData(steps, values)
        if len(values):
            ticks = [(float(np.log10(value)), f"{value:g}") for value in spread_ticks(values.min(), values.max())]
            self._loss.getAxis("left").setTicks([ticks])
        self._gain_curve.setData(*np.reshape(np.asarray(gains, dtype=float), (-1, 2)).T)

    def paint_as(self, text: str, background: str) -> None:
        """Take the colours of a theme."""
        for plot in (self._loss, self._gain):
            paint_plot(plot, text, background)
            plot.setTitle(plot.getPlotItem().titleLabel.text, color=text)


def thinned(points: list[tuple[int, float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values, at most `MOST`: means of as many neighbours as needed."""
    array = np.reshape(np.asarray(points, dtype=float), (-1, 2))
    group = -(-len(array) // MOST) or 1
    whole = array[len(array) % group :]
    steps, values = whole.reshape(-1, group, 2).mean(1).T
    return steps, values


def spread_ticks(low: float, high: float) -> list[float]:
    """Up to three values from one to another for an axis of logarithms, in two or three digits.

    Examples
    --------
    >>> spread_ticks(0.0008, 0.02), spread_ticks(0.00213, 0.00214), spread_ticks(0.5, 0.5)
    ([0.0008, 0.004, 0.02], [0.00213, 0.00214], [0.5])
    """
    for wanted in ((low, math.sqrt(low * high), high), (low, high)):
        for digits in (2, 3):
            found = [float(f"{value:.{digits}g}") for value in wanted]
            if len(set(found)) == len(found):
                return found
    return [low]


class Tiles(QWidget):
    """A tested part four times: interpolated, by the network before, by that of now, and as it is."""

    def __init__(self) -> None:
        super().__init__()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        self.pictures: dict[str, QLabel] = {}
        for number, words in enumerate(("interpolated", "before", "now", "original")):
            picture, caption = QLabel(), QLabel(words)
            picture.setFixedSize(TILE, TILE)
            caption.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            caption.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            grid.addWidget(picture, 2 * (number // 2), number % 2, Qt.AlignmentFlag.AlignHCenter)
            grid.addWidget(caption, 2 * (number // 2) + 1, number % 2)
            self.pictures[words] = picture
        self.setToolTip("The tested part that bicubic interpolation restores worst, enlarged.")

    def show_preview(self, preview: Preview) -> None:
        """Show the window with the most detail that interpolation misses, in one range of brightness."""
        window = busiest(np.abs(preview.hr - preview.ilr), SIDE)
        sharp = preview.hr[window]
        low, high = float(sharp.min()), float(sharp.max())
        images = (preview.ilr, preview.before, preview.sr, preview.hr)
        for picture, image in zip(self.pictures.values(), images, strict=True):
            shades = np.clip((image[window] - low) / max(high - low, 1e-9), 0, 1)
            pixmap = to_pixmap(np.rint(shades * 255).astype(np.uint8), TILE)
            picture.setPixmap(pixmap)
            picture.setFixedSize(pixmap.size())


def busiest(detail: NDArray[Any], side: int) -> tuple[slice, slice]:
    """The window of up to `side` pixels with the largest sum."""
    total = np.pad(detail, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    rows, columns = (min(side, n) for n in detail.shape)
    sums = total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
    row, column = np.unravel_index(np.argmax(sums), sums.shape)
    return slice(int(row), int(row) + rows), slice(int(column), int(column) + columns)


def to_pixmap(shades: NDArray[np.uint8], side: int) -> QPixmap:
    """A gray picture, enlarged without smoothing."""
    rows, columns = shades.shape
    image = QImage(shades.tobytes(), columns, rows, columns, QImage.Format.Format_Grayscale8)
    return QPixmap.fromImage(image).scaled(side, side, Qt.AspectRatioMode.KeepAspectRatio)
