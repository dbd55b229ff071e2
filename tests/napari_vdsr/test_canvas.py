import numpy as np
import pytest

pytest.importorskip("napari")
from qtpy.QtGui import QOpenGLContext

from napari_vdsr.canvas import find_canvas


def test_layers_are_freed_in_the_context_of_the_canvas(viewer, qtbot):
    """Otherwise drawing what is left crashes with some drivers."""
    viewer.show()
    dock, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
    qtbot.waitUntil(widget.isVisible)
    canvas = find_canvas(widget)
    viewer.window.remove_dock_widget(dock)  # also without the panel
    for _ in range(4):
        for layer in viewer.layers:
            layer.visible = False
        viewer.add_image(np.eye(9))
        qtbot.wait(100)  # it is drawn
    found = []
    viewer.layers.events.removed.connect(
        lambda event: found.append(QOpenGLContext.currentContext() is canvas.context())
    )
    while viewer.layers:
        del viewer.layers[0]
        qtbot.wait(100)
    assert found == [True] * 4
