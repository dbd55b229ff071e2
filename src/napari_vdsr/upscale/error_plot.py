"""A plot of how well errors are predicted: those that were made over those that were expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyqtgraph
from napari.settings import get_settings
from napari.utils.theme import get_theme
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_vdsr.forms import make_column
from napari_vdsr.plot import make_plot, paint_plot

if TYPE_CHECKING:
    from vdsr_core import ErrorReport

HEIGHT = 190  # screen pixels
LEAST = 1e-3  # percent of the range; smaller errors are drawn there
TICKS = tuple(digit * 10.0**power for power in range(-3, 3) for digit in (1, 2, 5))


class ErrorPlot(QWidget):
    """A point for each tenth of the pixels; on the line, errors are as expected."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._plot = make_plot(HEIGHT)
        self._plot.setLogMode(True, True)
        make_column(self, self._plot)
        self.line = self._plot.plot(pen=pyqtgraph.mkPen("#888888", style=Qt.PenStyle.DashLine))
        self.points = self._plot.plot(pen=None, symbol="o", symbolSize=8, symbolBrush="#5dade2", symbolPen=None)
        self.setToolTip(
            "<qt>Each point is a tenth of the pixels, from smooth to detailed: the mean error that was expected there, "
            "and that was made. On the dashed line both are equal; above it errors are larger than expected.</qt>"
        )

    def show_report(self, report: ErrorReport) -> None:
        """Show what was found for an image, in the colours of napari's theme."""
        expected, made = (np.maximum(100 * np.array(row), LEAST) for row in (report.predicted, report.measured))
        ends = min(expected.min(), made.min()) / 1.2, max(expected.max(), made.max()) * 1.2
        self.points.setData(expected, made)
        self.line.setData(ends, ends)
        self._plot.setXRange(*np.log10(ends), padding=0)
        self._plot.setYRange(*np.log10(ends), padding=0)
        theme = get_theme(get_settings().appearance.theme)
        text = theme.text.as_hex()
        paint_plot(self._plot, text, theme.background.as_hex())
        for side, words in (("bottom", "expected error, % of the range"), ("left", "error made, %")):
            axis = self._plot.getAxis(side)
            axis.setTicks([[(float(np.log10(value)), f"{value:g}") for value in TICKS if ends[0] <= value <= ends[1]]])
            axis.setLabel(words, color=text)
