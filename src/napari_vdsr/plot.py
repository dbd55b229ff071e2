"""Small plots that are only looked at."""

from __future__ import annotations

import pyqtgraph


def make_plot(height: int) -> pyqtgraph.PlotWidget:
    """A plot of a height in screen pixels, without menu, and which the mouse does not move."""
    plot = pyqtgraph.PlotWidget()
    plot.setFixedHeight(height)
    plot.setMouseEnabled(False, False)
    plot.hideButtons()
    plot.setMenuEnabled(False)
    return plot


def paint_plot(plot: pyqtgraph.PlotWidget, text: str, background: str) -> None:
    """Give a plot the colours of a theme."""
    plot.setBackground(background)
    for name in ("left", "bottom"):
        plot.getAxis(name).setPen(text)
        plot.getAxis(name).setTextPen(text)
