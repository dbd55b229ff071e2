"""The canvas of a viewer's window, as Qt has it."""

from __future__ import annotations

from typing import Any

from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QMainWindow, QWidget


def find_canvas(widget: QWidget) -> QOpenGLWidget | None:
    """The canvas of the window that a widget is docked in."""
    above: Any = widget
    while above is not None and not isinstance(above, QMainWindow):
        above = above.parent()
    centre = above.centralWidget() if above is not None else None
    return centre.findChild(QOpenGLWidget) if centre is not None else None


def free_safely(layers: Any, canvas: QOpenGLWidget) -> None:
    """Let what a layer has on the canvas be freed in the canvas's own OpenGL context, whenever a layer is removed.

    napari frees it in the context that is current then, mostly that of the whole window, and a driver may crash when
    the canvas is drawn next: Mesa's does where another layer is hidden, as sources are in whose place a result stands.
    """

    def make_current(event: Any) -> None:
        canvas.makeCurrent()

    def leave(*_: Any) -> None:
        layers.events.removing.disconnect(make_current)

    layers.events.removing.connect(make_current)
    canvas.destroyed.connect(leave)
