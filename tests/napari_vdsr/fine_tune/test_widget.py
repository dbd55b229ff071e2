import errno
import gc
import os
import shlex
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pyqtgraph")
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication

from napari_vdsr.fine_tune import data as _train_data
from napari_vdsr.fine_tune import unfinished as _unfinished
from napari_vdsr.fine_tune.choices import NEW_RATE, read_scales
from napari_vdsr.fine_tune.data import Data
from napari_vdsr.fine_tune.form import CAMERA, FOLDER, GIVEN, LAYERS, PAIRS
from napari_vdsr.fine_tune.recipe import NEW, Recipe
from napari_vdsr.fine_tune.widget import TRAINING
from napari_vdsr.fine_tune.work import Control, Finished, start_network, train
from napari_vdsr.layers.image_layers import whole
from napari_vdsr.models import library as _models
from vdsr_core import FineTuneConfig, degrade, load_checkpoint, save_checkpoint, super_resolve

WAIT = 60_000


@pytest.fixture
def network(tmp_path, tiny_model):
    """A tiny network, all but bicubic interpolation: it can only get better."""
    import torch

    with torch.no_grad():
        for parameter in tiny_model.convolutions[-1].parameters():
            parameter *= 0.1
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, tiny_model)
    return str(path)


@pytest.fixture
def opened(viewer, qtbot, network):
    """Open the widget with settings for a tiny network; `opened(layer data, ...)` adds layers first."""

    def open_with(*images, steps=300, **keywords):
        for image in images:
            viewer.add_image(image, **keywords)
        _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Fine-tune")
        widget.form.model.choose(network)
        widget._model_chosen()
        widget.form.scales.value = "2"
        widget.form.steps.value = steps
        widget.form.every.value = 10
        widget.form.patience.value = 1000
        widget.form.rate.value = 5e-3
        widget.form.batch.value = 4
        widget.form.patch.value = 24
        qtbot.waitUntil(lambda: widget.choices.speed is not None, timeout=WAIT)
        return widget

    return open_with


def rectangles(side, seed=0):
    """An image of sharp-edged rectangles: there is something to learn."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side))
    for _ in range(side):
        row, column = rng.integers(0, side - 4, 2)
        image[row : row + rng.integers(2, side // 4), column : column + rng.integers(2, side // 4)] = rng.random()
    return (image * 4000 + 100).astype(np.uint16)


def click(qtbot, button):
    assert button.isEnabled(), button.toolTip()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def wait_for_the_end(qtbot, widget):
    qtbot.waitUntil(lambda: widget.training.job is None, timeout=WAIT)


def helps(widget):
    """Whether the training has beaten the start and interpolation."""
    scores = widget.training.scores.values()
    return bool(scores) and all(found["after"] > max(found["before"], found["bicubic"]) + 0.1 for found in scores)


def weights(model):
    import torch

    return torch.cat([parameter.detach().ravel() for parameter in model.parameters()]).numpy()


def test_what_is_offered_and_how_it_looks(viewer, opened, qtbot):
    """One viewer: results are no sharp images, words and numbers fit, controls are hidden where they mean nothing."""
    viewer.add_image(rectangles(64), name="cells")
    for name, said in (
        ("cells [VDSR photo x2]", {"scale": 2}),
        ("a preview", {"shown": 1}),
        ("a check", {"check": ""}),
    ):
        viewer.add_image(rectangles(64), name=name, metadata={"vdsr": said})
    widget = opened()
    form, page = widget.form, widget.page
    assert [layer.name for layer in form.layers.ticked()] == ["cells"]
    widget.choices.choose_layer(viewer.layers["cells [VDSR photo x2]"])
    assert [layer.name for layer in form.layers.layers()] == ["cells"]
    assert [layer.name for layer in form.pairs.rows[0].sharp.choices] == ["cells"]

    widget.choices.choose_layer(viewer.layers["cells"])
    for text, words in (
        ("1,5; 2", "\u00d71.5 and \u00d72."),
        ("2,5", "\u00d72.5."),
        ("2, 3, 4", "\u00d72, \u00d73 and \u00d74."),
    ):
        form.scales.value = text
        assert f"Learns to enlarge by {words}" in page.estimate.text()
    form.rate.native.lineEdit().setText("0,002")
    form.rate.native.interpretText()
    assert form.rate.value == 0.002
    assert form.length.value == GIVEN
    form.length.value = "Quick look"
    assert (form.steps.value, form.batch.value) == (100, 8)
    assert form.length.current_choice.startswith("Quick look, ")

    for kind, layers, pairs, folder in (
        (LAYERS, True, False, False), (PAIRS, False, True, False), (FOLDER, False, False, True)
    ):  # fmt: skip
        form.kind.value = kind
        shown = [row.isVisibleTo(page) for row in (form.layers, form.pairs, form.folder.native, form.part.native)]
        assert shown == [layers, pairs, folder, layers]
    assert page.reason.isVisibleTo(page)
    assert "Choose a folder" in page.reason.text()
    assert not any(
        part.isVisibleTo(widget.watch) for part in (widget.watch.curves, widget.watch.tiles, widget.watch.bar)
    )
    assert "Nothing has been trained yet" in widget.watch.message.text()

    for control in (form.length.native, form.model, form.rate.native, form.steps.native):
        point = QPointF(control.rect().center())
        down = QWheelEvent(
            point, point, QPoint(), QPoint(0, -120), Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase, False,
        )  # fmt: skip
        before = form.length.value, form.model.currentIndex(), form.rate.value, form.steps.value
        QApplication.sendEvent(control, down)
        assert before == (form.length.value, form.model.currentIndex(), form.rate.value, form.steps.value)


@pytest.mark.parametrize(
    ("text", "scales"),
    [
        ("2, 3, 4", (2, 3, 4)),
        ("4,3,2", (2, 3, 4)),
        ("1,5; 2", (1.5, 2)),
        ("2,5", (2.5,)),
        ("1.5 2", (1.5, 2)),
        (" 3 ,", (3,)),
        ("2,5, 3", (2.5, 3)),
    ],
)
def test_scales_are_read_with_points_and_commas(text, scales):
    assert read_scales(text) == scales


@pytest.mark.parametrize(("dtype", "rgb", "model"), [(np.uint16, False, "microscopy"), (np.uint8, True, None)])
def test_the_start_fits_the_images_unless_the_user_chooses(viewer, qtbot, dtype, rgb, model):
    viewer.add_image(np.zeros((64, 64, 3) if rgb else (64, 64), dtype), name="cells", rgb=rgb)
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Fine-tune")
    assert widget.form.model.currentData() == model
    widget.form.model.setCurrentIndex(widget.form.model.findData(NEW))
    widget.form.model.activated.emit(widget.form.model.currentIndex())
    assert widget.form.rate.value == NEW_RATE
    viewer.add_image(np.zeros((64, 64), dtype), name="more")
    assert widget.form.model.currentData() == NEW
    qtbot.waitUntil(lambda: widget.choices.speed is not None, timeout=WAIT)


def test_a_panel_that_is_closed_and_opened_again_shows_the_training(viewer, opened, qtbot):
    widget = opened(rectangles(64), name="cells", steps=100_000)
    click(qtbot, widget.page.start_button)
    qtbot.waitUntil(lambda: len(widget.training.gains) >= 2, timeout=WAIT)
    viewer.window.remove_dock_widget(widget.parent())
    _, again = viewer.window.add_plugin_dock_widget("napari-vdsr", "Fine-tune")
    assert again is not widget
    assert not widget.choices.following
    assert again.tabs.currentIndex() == TRAINING
    assert not again.page.start_button.isEnabled()
    assert "under way" in again.page.reason.text()
    steps = len(again.training.losses)
    qtbot.waitUntil(lambda: len(again.training.losses) > steps, timeout=WAIT)
    assert again.watch.curves.isVisibleTo(again.watch)
    click(qtbot, again.watch.cancel_button)
    wait_for_the_end(qtbot, again)
    assert "Cancelled" in again.watch.message.text()
    qtbot.waitUntil(lambda: again.choices.speed is not None, timeout=WAIT)


def test_train_watch_pause_stop_use_and_find_again(viewer, opened, qtbot, make_napari_viewer_proxy):
    image = rectangles(128)
    widget = opened(image, name="cells", steps=100_000)
    assert "Time: at most about" in widget.page.estimate.text()
    assert widget.form.name.value == "cells fine-tuned"
    click(qtbot, widget.page.start_button)
    assert not widget.page.start_button.isEnabled()
    qtbot.waitUntil(lambda: len(widget.training.gains) >= 3, timeout=WAIT)
    assert "left" in widget.watch.bar.format()
    assert not widget.watch.tiles.pictures["now"].pixmap().isNull()
    click(qtbot, widget.watch.pause_button)
    qtbot.wait(300)
    losses = len(widget.training.losses)
    qtbot.wait(300)
    assert len(widget.training.losses) == losses
    assert "Paused" in widget.watch.message.text()
    click(qtbot, widget.watch.pause_button)
    qtbot.waitUntil(lambda: helps(widget), timeout=WAIT)
    click(qtbot, widget.watch.stop_button)
    wait_for_the_end(qtbot, widget)
    assert "Fine-tuning helped" in widget.watch.message.text()
    assert list(_models.list_models()) == ["cells fine-tuned"]
    assert _unfinished.list_unfinished() == {}
    path = _models.find_model("cells fine-tuned")
    card = load_checkpoint(path).card
    assert card["name"] == "cells fine-tuned"
    scores = card["hold_out"]["2"]
    assert f"<td align=right>{scores['after']:.2f}</td>" in widget.watch.scores.text()
    assert widget.form.name.value == "cells fine-tuned 2"

    click(qtbot, widget.watch.use_button)
    _, upscale = viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
    assert upscale.form.model.currentData() == str(path)
    qtbot.waitUntil(lambda: upscale.facts is not None, timeout=WAIT)
    upscale.choose_layer(viewer.layers["cells"])
    click(qtbot, upscale.face.run_button)
    qtbot.waitUntil(lambda: upscale.run is None, timeout=WAIT)
    np.testing.assert_array_equal(viewer.layers[-1].data, super_resolve(image, 2, model=path))

    again = make_napari_viewer_proxy()
    _, upscale = again.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
    assert upscale.form.model.findData(str(path)) > 0
    _, widget = again.window.add_plugin_dock_widget("napari-vdsr", "Fine-tune")
    widget.own.choose("cells fine-tuned")
    assert card["summary"].replace("held-out part", "part kept for testing") in widget.own.card.text()
    widget.own.rename("cells")
    assert widget.own.chosen().name == "cells"
    assert widget.form.model.findData(str(_models.find_model("cells"))) > 0
    widget.own.delete()
    assert _models.list_models() == {}
    qtbot.waitUntil(lambda: upscale.facts is not None and widget.choices.speed is not None, timeout=WAIT)


@pytest.mark.filterwarnings("ignore:Fine-tuning")  # so few steps may not, on some machines
def test_the_script_gives_the_same_weights(viewer, opened, qtbot, tmp_path, monkeypatch):
    import torch

    stack = np.stack([rectangles(64), rectangles(64, 1), rectangles(64, 2)], 1)
    widget = opened(stack, name="stack", steps=12, axis_labels=("y", "c", "x"))
    widget.form.low_side.value = CAMERA
    widget.form.theta.value = 0.01
    text = widget.copy_python()
    click(qtbot, widget.page.start_button)
    wait_for_the_end(qtbot, widget)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    namespace = {"viewer": viewer}
    try:
        exec(text, namespace)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(weights(namespace["network"]), weights(widget.training.finished.network))
    hold_out = widget.training.finished.network.card["hold_out"]
    assert namespace["network"].card["hold_out"] == hold_out
    assert "3 planes" in widget.training.finished.network.card["data"]
    saved = load_checkpoint(tmp_path / "stack fine-tuned.safetensors")
    np.testing.assert_array_equal(weights(saved), weights(widget.training.finished.network))


KILLED = """
import sys, threading
import numpy as np
from napari_vdsr.models import library as _models
from napari_vdsr.fine_tune import recipe as _recipe
from napari_vdsr.fine_tune import data as _train_data
from napari_vdsr.fine_tune import work as _training
from napari_vdsr.fine_tune import unfinished as _unfinished
from napari_vdsr.layers.image_layers import Source
from pathlib import Path
from vdsr_core import FineTuneConfig

_models.data_folder = lambda: Path(sys.argv[1])
image = np.load(sys.argv[2])
source = Source(image, "cells", False, None, (slice(0, 64), slice(0, 64)))
config = FineTuneConfig(scales=2, steps=40, batch_size=2, patch=16, learning_rate=5e-3, validate_every=5, strips=True)
recipe = _recipe.Recipe("cells", config, sys.argv[3])
for step in _training.train(recipe, _train_data.Data({"cells": source}), _training.Control(), threading.Event()):
    if isinstance(step, list) and step[-1].step >= 12:
        print("now", flush=True)
        threading.Event().wait()
"""


def test_killed_in_the_middle_and_resumed(viewer, opened, qtbot, tmp_path, network, data_folder):
    """Kill -9 keeps the last checkpoint; what is resumed ends as if there had been no interruption."""
    image = rectangles(64)
    np.save(tmp_path / "image.npy", image)
    arguments = [sys.executable, "-c", KILLED, str(data_folder), str(tmp_path / "image.npy"), network]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)
    widget = opened()
    assert not widget.page.unfinished_box.isHidden()
    assert widget.page.unfinished.value == "cells"
    click(qtbot, widget.page.resume_button)
    wait_for_the_end(qtbot, widget)
    assert widget.training.losses[0][0] in (11, 16)
    options = {"scales": 2, "steps": 40, "batch_size": 2, "patch": 16, "learning_rate": 5e-3, "validate_every": 5}
    whole_run = Recipe("whole", FineTuneConfig(**options, strips=True), network)
    source = whole(viewer.add_image(image, name="whole"))
    *_, last = train(whole_run, Data({"cells": source}), Control(), threading.Event())
    assert isinstance(last, Finished)
    np.testing.assert_array_equal(weights(widget.training.finished.network), weights(last.network))
    assert widget.page.unfinished_box.isHidden()


@pytest.mark.parametrize(
    "at",  # in the thread of the training
    [
        "_training.save_model = lambda *_: wait()",
        "_training.remove = lambda name: wait() if _models.list_models() else _unfinished.remove(name)",
    ],
    ids=["before", "after"],
)
def test_killed_when_its_network_was_saved_and_resumed(opened, qtbot, tmp_path, network, data_folder, at):
    """The steps are all done, and the training is not forgotten yet: resuming saves its network once, in no step."""
    np.save(tmp_path / "image.npy", rectangles(64))
    wait = "def wait():\n    print('now', flush=True)\n    threading.Event().wait()"
    program = KILLED.replace("\nfor step", f"\n{wait}\n{at}\nfor step").replace(">= 12", ">= 99")
    arguments = [sys.executable, "-c", program]
    arguments += [str(data_folder), str(tmp_path / "image.npy"), network]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)
    assert list(_models.list_models()) == (["cells"] if "remove" in at else [])
    kept = load_checkpoint(_unfinished.run_folder("cells") / "network.safetensors")
    widget = opened()
    click(qtbot, widget.page.resume_button)
    wait_for_the_end(qtbot, widget)
    assert widget.training.losses == []
    assert kept.card["summary"].startswith("Fine-tuning helped")
    assert widget.watch.message.text().endswith(" Saved as “cells”, under My models.")
    assert list(_models.list_models()) == ["cells"]
    np.testing.assert_array_equal(weights(load_checkpoint(_models.list_models()["cells"])), weights(kept))
    assert _unfinished.list_unfinished() == {}


def test_another_napari_that_trains_is_left_alone(viewer, opened, qtbot, tmp_path, network, data_folder):
    """Neither resumed, discarded nor begun anew while it lives; taken over when it was killed."""
    image = rectangles(64)
    np.save(tmp_path / "image.npy", image)
    arguments = [sys.executable, "-c", KILLED, str(data_folder), str(tmp_path / "image.npy"), network]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout.readline() == "now\n"
        widget = opened(image, name="cells")
        assert widget.page.unfinished_box.isHidden()
        widget.form.name.value = "cells"
        assert "Another napari is training “cells”" in widget.page.reason.text()
        widget._begin(_unfinished.list_unfinished()["cells"], None)  # offered before the other one went on with it
        wait_for_the_end(qtbot, widget)
        assert "Another napari is training “cells”" in widget.watch.message.text()
        assert "resumed" not in widget.watch.message.text()
        _unfinished.discard("cells")
        assert list(_unfinished.list_unfinished()) == ["cells"]
        process.send_signal(signal.SIGKILL)
        process.wait()
    widget._list_unfinished()
    click(qtbot, widget.page.resume_button)
    wait_for_the_end(qtbot, widget)
    assert widget.training.finished.network.card["summary"]
    assert _unfinished.list_unfinished() == {}


def test_cancel_ends_within_a_step_and_can_be_resumed_or_discarded(viewer, opened, qtbot):
    widget = opened(rectangles(64), name="cells", steps=100_000)
    click(qtbot, widget.page.start_button)
    qtbot.waitUntil(lambda: len(widget.training.gains) >= 2, timeout=WAIT)
    viewer.layers.remove("cells")
    click(qtbot, widget.watch.cancel_button)
    wait_for_the_end(qtbot, widget)
    assert "Cancelled" in widget.watch.message.text()
    assert _models.list_models() == {}
    assert widget.page.unfinished.value == "cells fine-tuned"
    click(qtbot, widget.page.resume_button)
    qtbot.waitUntil(lambda: bool(widget.training.losses), timeout=WAIT)
    assert widget.training.losses[0][0] > 10
    assert not widget.page.copy_button.isEnabled()
    assert "resumed" in widget.page.copy_button.toolTip()
    click(qtbot, widget.watch.cancel_button)
    wait_for_the_end(qtbot, widget)
    click(qtbot, widget.page.discard_button)
    assert _unfinished.list_unfinished() == {}


def test_viewer_closed_while_training_keeps_the_checkpoint(make_napari_viewer, qtbot, network):
    viewer = make_napari_viewer()
    viewer.add_image(rectangles(64), name="cells")
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Fine-tune")
    widget.form.model.choose(network)
    widget.form.scales.value = "2"
    widget.form.every.value = 10
    click(qtbot, widget.page.start_button)
    qtbot.waitUntil(lambda: len(widget.training.gains) >= 2, timeout=WAIT)
    job = widget.training.job
    viewer.close()
    gc.collect()
    QApplication.processEvents()
    qtbot.waitUntil(lambda: not job.worker.is_running, timeout=WAIT)
    assert list(_unfinished.list_unfinished()) == ["cells fine-tuned"]


def test_a_deep_network_is_cancelled_within_a_step(viewer, opened, qtbot):
    """With the default network and a large batch a step takes long; the worker looks in the midst of it."""
    widget = opened(rectangles(96), name="cells")
    widget.form.model.choose("")
    widget.form.batch.value = 64
    widget.form.patch.value = 48
    click(qtbot, widget.page.start_button)
    qtbot.waitUntil(lambda: bool(widget.training.gains), timeout=WAIT)
    qtbot.wait(200)
    steps = len(widget.training.losses)
    click(qtbot, widget.watch.cancel_button)
    wait_for_the_end(qtbot, widget)
    assert len(widget.training.losses) <= steps + 1


def test_upscaling_meanwhile_takes_its_turn(viewer, opened, qtbot, network):
    image = rectangles(64)
    widget = opened(image, name="cells", steps=100_000)
    click(qtbot, widget.page.start_button)
    qtbot.waitUntil(lambda: len(widget.training.gains) >= 2, timeout=WAIT)
    _, upscale = viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
    upscale.choose_model_file(network)
    qtbot.waitUntil(lambda: upscale.facts is not None, timeout=WAIT)
    click(qtbot, upscale.face.run_button)
    qtbot.waitUntil(lambda: upscale.run is None, timeout=WAIT)
    np.testing.assert_array_equal(viewer.layers[-1].data, super_resolve(image, 2, model=network))
    losses = len(widget.training.losses)
    qtbot.waitUntil(lambda: len(widget.training.losses) > losses, timeout=WAIT)
    click(qtbot, widget.watch.cancel_button)
    wait_for_the_end(qtbot, widget)


def test_where_it_does_not_help_nothing_is_saved_unless_asked_for(viewer, opened, qtbot):
    widget = opened(np.random.default_rng(0).integers(0, 1000, (64, 64)).astype(np.uint16), name="noise", steps=3)
    click(qtbot, widget.page.start_button)
    wait_for_the_end(qtbot, widget)
    assert "not saved" in widget.watch.message.text()
    assert _models.list_models() == {}
    assert widget.watch.use_button.isHidden()
    click(qtbot, widget.watch.save_button)
    assert list(_models.list_models()) == ["noise fine-tuned"]


def test_rectangles_of_rotated_and_scaled_layers(viewer):
    layer = viewer.add_image(np.zeros((3, 60, 80)), scale=(1, 2, 0.5), rotate=30, translate=(5, 10, -7))
    corners = np.array([[1, 9.5, 19.5], [1, 9.5, 49.5], [1, 39.5, 49.5], [1, 39.5, 19.5]])
    shapes = viewer.add_shapes([np.array([layer.data_to_world(corner) for corner in corners])[:, 1:]])
    (part,) = _train_data.rectangles(layer, whole(layer), shapes)
    rows, columns = part.part[1:]
    assert part.part[0] == slice(0, 3)
    assert abs(rows.start - 10) <= 1
    assert abs(rows.stop - 40) <= 1
    assert abs(columns.start - 20) <= 1
    assert abs(columns.stop - 50) <= 1


def test_why_start_is_disabled(viewer, opened, tiny_model, tmp_path):
    widget = opened()

    def why():
        assert not widget.page.start_button.isEnabled()
        assert widget.page.start_button.toolTip() == widget.page.reason.text()
        return widget.page.reason.text()

    assert "Open an image" in why()
    viewer.add_image(rectangles(64), name="cells")
    assert "Tick at least one layer" in why()
    widget.choices.choose_layer(viewer.layers["cells"])
    assert widget.page.start_button.isEnabled()
    for scales in ("2, x", "1.05"):
        widget.form.scales.value = scales
        assert "numbers from 1.1 to 32" in why()
    widget.form.scales.value = "2"
    _models.save_model(tiny_model, "mine")
    widget.form.name.value = "mine"
    assert "There is a model “mine” already" in why()
    widget.form.name.value = "a/b"
    assert "leave out /" in why()
    widget.form.name.value = "new"
    shapes = viewer.add_shapes([], name="regions")
    widget.form.part.value = viewer.layers["regions"].__wrapped__
    assert "no shape on “cells”" in why()
    shapes.add_rectangles([[[0, 0], [0, 40], [40, 40], [40, 0]], [[30, 30], [30, 60], [60, 60], [60, 30]]])
    widget.update_state()
    assert "Shapes 1 and 2 overlap" in why()
    widget.form.part.value = None
    small = viewer.add_image(rectangles(20), name="small")
    widget.choices.choose_layer(small)
    assert "at least 32 a side" in why()
    widget.form.kind.value = PAIRS
    assert "Choose two layers" in why()
    widget.form.kind.value = FOLDER
    assert "Choose a folder" in why()
    widget.form.folder.value = tmp_path / "user data" / "models"
    assert "holds no images" in why()


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([np.full((64, 64), 7, np.uint16)], "layer 0: constant"),
        ([np.full((64, 64), np.nan, np.float32)], "finite"),
        (
            [degrade(rectangles(128), 2), np.roll(rectangles(128), 9, 0)],
            "shifted by 9 rows and 0 columns in “layer 0” and “layer 1”",
        ),
        ([degrade(rectangles(128), 2), rectangles(128, 4)], "hardly resemble each other in “layer 0” and “layer 1”"),
        ([rectangles(64)[:50], rectangles(128)], "one field of view"),
    ],
    ids=["constant", "nan", "unregistered", "unrelated", "unequal"],
)
def test_bad_layers_are_one_sentence(viewer, opened, qtbot, images, words):
    for number, image in enumerate(images):
        viewer.add_image(image, name=f"layer {number}")
    widget = opened()
    widget.choices.choose_layer(viewer.layers[0])
    if len(images) == 2:
        widget.form.kind.value = PAIRS
        widget.form.pairs.rows[0].low.value = widget.viewer.layers[0]
        widget.form.pairs.rows[0].sharp.value = widget.viewer.layers[1]
    click(qtbot, widget.page.start_button)
    wait_for_the_end(qtbot, widget)
    assert words in widget.page.reason.text()
    assert "`" not in widget.page.reason.text()
    assert _unfinished.list_unfinished() == {}


@pytest.mark.filterwarnings("ignore:Fine-tuning")  # so few steps may not, on some machines
def test_several_pairs_and_their_script(viewer, opened, qtbot, tmp_path, monkeypatch):
    import torch

    for number in range(2):
        viewer.add_image(degrade(rectangles(96, number), 2), name=f"low {number}")
        viewer.add_image(rectangles(96, number), name=f"sharp {number}")
    widget = opened(steps=6)
    widget.form.kind.value = PAIRS
    for _ in range(2):
        click(qtbot, widget.form.pairs.add_button)
    names = [[box.value.name for box in row.boxes] for row in widget.form.pairs.rows]
    assert names[:2] == [["low 0", "sharp 0"], ["low 1", "sharp 1"]]  # the first that are in no pair
    assert not widget.form.scales.visible
    click(qtbot, widget.form.pairs.rows[2].remove_button)
    for number, row in enumerate(widget.form.pairs.rows):
        row.low.value = viewer.layers["low 0"]
        row.sharp.value = viewer.layers["sharp 0"]
        assert bool(number) == ("the sharp layer of two pairs" in widget.page.reason.text())
    widget.form.pairs.rows[1].low.value = viewer.layers["low 1"]
    widget.form.pairs.rows[1].sharp.value = viewer.layers["sharp 1"]
    text = widget.copy_python()
    click(qtbot, widget.page.start_button)
    wait_for_the_end(qtbot, widget)
    assert "2 pairs (2 planes)" in widget.training.finished.network.card["data"]
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    namespace = {"viewer": viewer}
    try:
        exec(text, namespace)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(weights(namespace["network"]), weights(widget.training.finished.network))


def test_a_folder_with_a_broken_file(opened, qtbot, tmp_path):
    from vdsr_core import ImageFile, write_image

    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        write_image(folder / f"{number}.tif", ImageFile(rectangles(64, number), "YX"))
    (folder / "broken.tif").write_bytes(b"II*\0 nothing")
    widget = opened(steps=4)
    widget.form.kind.value = FOLDER
    widget.form.folder.value = folder
    click(qtbot, widget.page.start_button)
    wait_for_the_end(qtbot, widget)
    assert "broken.tif" in widget.watch.warning.text()
    assert "3 images" in widget.training.finished.network.card["data"]


def test_the_command_gives_the_same_weights(opened, qtbot, tmp_path, network):
    from vdsr_core import ImageFile, write_image

    folder = tmp_path / "my images"
    folder.mkdir()
    for number in range(3):
        write_image(folder / f"{number}.tif", ImageFile(rectangles(64, number), "YX"))
    widget = opened(steps=12)
    assert not widget.page.command_button.isEnabled()
    assert "learn from a folder" in widget.page.command_button.toolTip()
    widget.form.kind.value = FOLDER
    widget.form.folder.value = folder
    widget.form.low_side.value = CAMERA
    widget.form.hold_out.value = 40
    click(qtbot, widget.page.command_button)
    words = shlex.split(QApplication.clipboard().text())
    click(qtbot, widget.page.start_button)
    wait_for_the_end(qtbot, widget)
    assert words[0] == "vdsr"
    done = subprocess.run(
        [sys.executable, "-m", "vdsr_core", *words[1:]], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    saved = load_checkpoint(tmp_path / "fine-tuned.safetensors")
    np.testing.assert_array_equal(weights(saved), weights(widget.training.finished.network))
    assert saved.card["hold_out"] == widget.training.finished.network.card["hold_out"]


def test_a_new_network_is_that_of_the_command():
    """`vdsr fine-tune --new` begins with `make_model`."""
    from vdsr_core import VDSRConfig, make_model
    from vdsr_core.training.recipe import NETWORK

    started = start_network(Recipe("new", FineTuneConfig(seed=3), NEW))
    expected = make_model(3, VDSRConfig(**NETWORK), start="identity")
    np.testing.assert_array_equal(weights(started), weights(expected))
    assert started.config == expected.config


@pytest.mark.parametrize("place", ["images", "checkpoint", "network"])
def test_a_full_disk_is_a_sentence(viewer, opened, qtbot, monkeypatch, place):
    """While the images are kept, while a checkpoint is written, and in the end."""
    import vdsr_core

    def refuse(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    widget = opened(rectangles(128), name="cells", steps=100_000)
    with monkeypatch.context() as patch:
        if place == "images":
            patch.setattr(np, "savez", refuse)
        if place == "checkpoint":
            patch.setattr("vdsr_core.training.resume.save_checkpoint", refuse)
        click(qtbot, widget.page.start_button)
        if place == "network":
            qtbot.waitUntil(lambda: helps(widget), timeout=WAIT)
            patch.setattr(vdsr_core, "save_checkpoint", refuse, raising=False)
            click(qtbot, widget.watch.stop_button)
        wait_for_the_end(qtbot, widget)
    if place == "network":
        assert "It could not be saved" in widget.watch.message.text()
        assert list(_unfinished.list_unfinished()) == ["cells fine-tuned"]  # nothing is lost
        click(qtbot, widget.watch.save_button)
        assert list(_models.list_models()) == ["cells fine-tuned"]
    else:
        assert "The disk is full" in widget.page.reason.text()
    assert _unfinished.list_unfinished() == {}


def test_no_memory_is_a_sentence(opened, qtbot, monkeypatch):
    def refuse(*arguments, **keywords):
        raise MemoryError("Unable to allocate 9.00 TiB")

    widget = opened(rectangles(64), name="cells", steps=2)
    with monkeypatch.context() as patch:
        patch.setattr("napari_vdsr.fine_tune.work.gather", refuse)
        click(qtbot, widget.page.start_button)
        wait_for_the_end(qtbot, widget)
    assert "There is not enough memory" in widget.page.reason.text()
    widget.update_state()
    click(qtbot, widget.page.start_button)
    wait_for_the_end(qtbot, widget)
    assert widget.training.finished is not None


def test_a_layer_may_change_meanwhile(viewer, opened, qtbot):
    """What is trained with is what the layer held at the start."""
    image = rectangles(64)
    widget = opened(image, name="cells", steps=20)
    click(qtbot, widget.page.start_button)
    qtbot.waitUntil(lambda: bool(widget.training.gains), timeout=WAIT)
    viewer.layers["cells"].data = np.zeros((8, 8))
    image[:] = 0
    wait_for_the_end(qtbot, widget)
    first = weights(widget.training.finished.network)
    viewer.layers["cells"].data = rectangles(64)
    widget.update_state()
    click(qtbot, widget.page.start_button)
    wait_for_the_end(qtbot, widget)
    np.testing.assert_array_equal(weights(widget.training.finished.network), first)


def test_a_damaged_training_does_not_keep_the_widget_from_opening(opened, data_folder):
    folder = data_folder / "unfinished" / "cells"
    folder.mkdir(parents=True)
    (folder / "network.safetensors").write_bytes(b"")
    (folder / "recipe.json").write_text("{")
    widget = opened()
    assert widget.page.unfinished_box.isHidden()


def test_what_a_killed_training_left_is_removed_but_not_of_one_at_work(data_folder):
    for name in ("left", "working"):
        folder = data_folder / "unfinished" / name
        folder.mkdir(parents=True)
        (folder / "images.npz").write_bytes(b"")
    with _unfinished.at_work("working"):
        assert _unfinished.list_unfinished() == {}
        assert [path.name for path in (data_folder / "unfinished").iterdir() if path.is_dir()] == ["working"]
    assert _unfinished.list_unfinished() == {}
    assert not any(path.is_dir() for path in (data_folder / "unfinished").iterdir())


def test_import_loads_no_torch():
    code = "import napari_vdsr.fine_tune.widget, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
