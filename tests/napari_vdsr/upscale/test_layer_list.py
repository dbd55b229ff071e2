import numpy as np
import pytest

pytest.importorskip("napari")
from napari._qt.qt_resources import get_stylesheet
from napari.layers import Image
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_vdsr.upscale.layer_list import ROWS, LayerList


@pytest.fixture
def shown(qtbot):
    """A list in a window, with so many layers."""
    window = QWidget()
    window.setStyleSheet(get_stylesheet("dark"))
    found = LayerList()
    QVBoxLayout(window).addWidget(found)
    qtbot.addWidget(window)
    window.show()
    yield found
    window.close()


def layers(count, **keywords):
    """Layers that are not of one file."""
    return [Image(np.zeros((4 + number, 4)), name=f"layer {number}", **keywords) for number in range(count)]


def test_what_is_ticked_is_seen(shown, qtbot):
    offered = layers(3 * ROWS)
    shown.offer(offered)
    shown.tick(offered[-1:])
    seen = shown.itemAt(QPoint(5, shown.viewport().height() - 5))
    assert seen.text(0) == offered[-1].name
    shown.tick(offered[:1])
    assert shown.itemAt(QPoint(5, 5)).text(0) == offered[0].name


def test_boxes_are_seen_in_the_dark_theme(shown, qtbot):
    shown.offer(layers(2))
    picture = shown.viewport().grab().toImage()
    gray = [[picture.pixelColor(x, y).lightness() for x in range(20)] for y in range(picture.height())]
    assert np.max(gray) > np.median(gray) + 50


def test_channels_are_a_group_and_results_are_none(shown):
    channels = [Image(np.zeros((4, 4)), name=name) for name in ("cells", "cells [1]")]
    results = [
        Image(np.zeros((8, 8)), name=name, metadata={"vdsr": {}}) for name in ("cells [VDSR x2]", "cells [VDSR x2] [1]")
    ]
    shown.offer([*channels, *results])
    assert [shown.topLevelItem(row).text(0) for row in range(shown.topLevelItemCount())] == [
        "cells: 2 channels",
        "cells [VDSR x2]",
        "cells [VDSR x2] [1]",
    ]
