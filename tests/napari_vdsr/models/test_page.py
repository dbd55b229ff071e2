import warnings

import numpy as np
import pytest

pytest.importorskip("napari")
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication, QFileDialog, QMainWindow

from napari_vdsr.models import library
from napari_vdsr.models.box import FROM_FILE, NEWS, ModelBox
from napari_vdsr.models.page import ModelsPage
from vdsr_core import load_model, save_checkpoint, super_resolve


@pytest.fixture
def path(tiny_model):
    return library.save_model(tiny_model, "cells")


def test_a_renamed_network_stays_chosen_everywhere(qtbot, path):
    page, box, other = ModelsPage(), ModelBox(), ModelBox("New")
    for widget in (page, box, other):
        qtbot.addWidget(widget)
    box.choose(str(path))
    page.choose("cells")
    image = np.random.default_rng(0).random((12, 10))
    before = super_resolve(image, 2, model=box.currentData())
    with qtbot.assertNotEmitted(box.activated):
        page.rename("my cells")
    assert box.currentText() == "my cells"
    assert page.chosen().name == "my cells"
    np.testing.assert_array_equal(super_resolve(image, 2, model=box.currentData()), before)
    assert other.currentData() is None
    with qtbot.waitSignal(box.activated):
        page.delete()
    assert box.currentData() is None
    page.rename("nothing")  # the default network cannot be renamed
    assert library.list_models() == {}


def test_a_file_dialog_that_is_cancelled_changes_nothing(qtbot, monkeypatch, path, tmp_path, tiny_model):
    save_checkpoint(tmp_path / "other.safetensors", tiny_model)
    box = ModelBox()
    qtbot.addWidget(box)
    for chosen in ("microscopy", str(path)):
        box.choose(chosen)
        for answer, expected in (("", chosen), (str(tmp_path / "other.safetensors"),) * 2):
            monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, answer=answer: (answer, ""))
            box.setCurrentIndex(box.findData(FROM_FILE))
            box.activated.emit(box.currentIndex())
            box.ask_for_file()
            assert box.currentData() == expected
            load_model(box.currentData())


def test_only_own_networks_can_be_renamed_exported_and_deleted(qtbot, path, tmp_path):
    page = ModelsPage()
    qtbot.addWidget(page)
    for name, own in ((None, False), ("cells", True)):
        if name:
            page.choose(name)
        for button in (page.rename_button, page.export_button, page.delete_button):
            assert button.isEnabled() == own
        with qtbot.waitSignal(page.wanted) as wanted:
            page.use_button.click()
        assert wanted.args == [str(path) if own else None]
    page.export(str(tmp_path / "copy.safetensors"))
    page.delete()
    page.import_file(str(tmp_path / "copy.safetensors"))
    assert page.chosen().name == "copy"


def test_closed_widgets_hear_nothing(qtbot):
    box = ModelBox()
    box.deleteLater()
    qtbot.wait(10)
    NEWS.changed.emit("", "")


def test_a_network_dropped_onto_napari_joins_the_models(make_napari_viewer_proxy, qtbot, tmp_path, tiny_model):
    save_checkpoint(tmp_path / "dropped.safetensors", tiny_model)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    box = ModelBox()
    qtbot.addWidget(box)
    viewer = make_napari_viewer_proxy(show=True)
    drop([tmp_path / "dropped.safetensors", tmp_path / "bad.safetensors"])
    assert not viewer.layers
    assert box.findText("dropped") > 0
    assert list(library.list_models()) == ["dropped"]
    said = [record.message for record in notification_manager.records]
    assert any("Added to your models: “dropped”" in words for words in said)
    assert any("“bad.safetensors” is not a network" in words for words in said)


def drop(paths):
    """Drop files onto the canvas of the only window, as a file manager does."""
    window = next(widget for widget in QApplication.topLevelWidgets() if isinstance(widget, QMainWindow))
    target = window.centralWidget().findChild(QOpenGLWidget)
    while not target.acceptDrops():
        target = target.parentWidget()
    files, point = QMimeData(), QPointF(target.rect().center())
    files.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    how = Qt.DropAction.CopyAction, files, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PySide6 would have a QPointF, which PyQt6 does not take
        enter = QDragEnterEvent(point.toPoint(), *how)
    QApplication.sendEvent(target, enter)
    assert enter.isAccepted()
    QApplication.sendEvent(target, QDropEvent(point, *how))
