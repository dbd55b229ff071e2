"""The Fine-tune widget: teach a network one's own images, watch, and keep it if that helped."""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from napari.layers import Image, Shapes
from napari.utils.notifications import show_error, show_info
from napari.utils.theme import get_theme
from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFileDialog, QInputDialog, QListWidgetItem, QMessageBox

from napari_vdsr import _layers, _models, _training
from napari_vdsr._forms import sentence
from napari_vdsr._job import Job
from napari_vdsr._model_box import FROM_FILE
from napari_vdsr._train_form import ALL, CAMERA, FOLDER, LAYERS, PAIRS, SET_UP, TRAINING, TrainForm
from napari_vdsr._training import LENGTHS, NEW, Begun, Control, Data, Finished, Recipe
from napari_vdsr._work import Cancelled

LOG = logging.getLogger("napari_vdsr")

TOOLTIP = Qt.ItemDataRole.ToolTipRole
GIVEN = "As given under Advanced"
NEW_RATE, RATE = 5e-4, 1e-4  # learning rates for a new network and for one that was trained before
SMALLEST = 32  # pixels of the shorter side: a patch and a held-out patch
BYTES = 4.0  # of a pixel in training, for the sharp image and for each scale


def open_train_widget(viewer: Viewer) -> None:
    """Show the widget with the active layer chosen; nothing is computed."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Fine-tune")
    widget.choose_layer(viewer.layers.selection.active)


class TrainWidget(TrainForm):
    """Fine-tune a network on image layers, or on a folder of images.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer whose layers are learnt from.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.job: Job | None = None
        self.recipe: Recipe | None = None  # of the training at work, or of the last one
        self.finished: Finished | None = None
        self.speed: float | None = None  # seconds for a pixel of a patch
        self._control = Control()
        self._data: Data | None = None
        self._left_out: dict[str, str] = {}
        self._measurer: Job | None = None
        self._trouble = ""
        self._clock = Clock()
        self._of_length = {
            "steps": self.steps,
            "batch_size": self.batch,
            "validate_every": self.every,
            "patience": self.patience,
        }
        self._connect()
        self.length.addItem(GIVEN, GIVEN)
        self.length.setCurrentIndex(1)
        self._length_chosen()
        self._list_layers()
        self.choose_layer(napari_viewer.layers.selection.active)
        self.name.setText(self._free_name())
        self._list_unfinished()
        self._list_models()
        self._show_kind()
        self._paint()
        self._measure()

    def _connect(self) -> None:
        """Say what each control does."""
        self.kind.currentIndexChanged.connect(self._show_kind)
        self.layers.itemChanged.connect(self._layers_ticked)
        for combo in (self.part, self.channels, self.low, self.sharp):
            combo.currentIndexChanged.connect(self.update_state)
        for edit in (self.folder, self.scales, self.name):
            edit.textChanged.connect(self.update_state)
        self.browse_button.clicked.connect(self._browse)
        self.model.activated.connect(self._model_chosen)
        self.device.activated.connect(self._measure)
        self.measure_button.clicked.connect(self.measure_low_side)
        self.length.activated.connect(self._length_chosen)
        self.low_side.currentIndexChanged.connect(self.update_state)
        for box in self._of_length.values():
            box.valueChanged.connect(self._steps_changed)
        for number in (self.blur, self.noise, self.rate, self.theta, self.patch, self.hold_out, self.seed):
            number.valueChanged.connect(self.update_state)
        self.start_button.clicked.connect(self.start)
        self.copy_button.clicked.connect(self.copy_python)
        self.resume_button.clicked.connect(self.resume)
        self.discard_button.clicked.connect(self.discard)
        self.pause_button.clicked.connect(self.pause)
        self.stop_button.clicked.connect(self.stop)
        self.cancel_button.clicked.connect(self.cancel)
        self.use_button.clicked.connect(self._use_result)
        self.save_button.clicked.connect(self.save_anyway)
        self.models.currentItemChanged.connect(self._show_card)
        self.use_own_button.clicked.connect(self._use_own)
        self.rename_button.clicked.connect(self._ask_to_rename)
        self.export_button.clicked.connect(self._ask_to_export)
        self.delete_button.clicked.connect(self._ask_to_delete)
        for event in _layers.list_events(self.viewer.layers):
            event.connect(self._list_layers)
        self.viewer.events.theme.connect(self._paint)
        self.destroyed.connect(partial(_disconnect, self.viewer, self._list_layers, self._paint))

    # ---------------------------------------------------------------------------------- what is chosen

    def _list_layers(self, event: Any = None) -> None:
        """Offer the layers there are, keeping what is ticked and chosen."""
        images = [_layers.bare(layer) for layer in self.viewer.layers if isinstance(layer, Image)]
        shapes = [_layers.bare(layer) for layer in self.viewer.layers if isinstance(layer, Shapes)]
        ticked = self.ticked()
        self.layers.blockSignals(True)
        self.layers.clear()
        for layer in images:
            item = QListWidgetItem(layer.name, self.layers)
            item.setData(Qt.ItemDataRole.UserRole, layer)
            item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Checked if layer in ticked else Qt.CheckState.Unchecked)
        self.layers.blockSignals(False)
        for combo, entries in (
            (self.low, [(layer.name, layer) for layer in images]),
            (self.sharp, [(layer.name, layer) for layer in images]),
            (self.part, [(ALL, None), *((f"Rectangles of “{layer.name}”", layer) for layer in shapes)]),
        ):
            _fill(combo, entries)
        self._layers_ticked()

    def ticked(self) -> list[Image]:
        """The layers to learn from."""
        checked = Qt.CheckState.Checked
        return [item.data(Qt.ItemDataRole.UserRole) for item in _items(self.layers) if item.checkState() == checked]

    def choose_layer(self, layer: Any) -> None:
        """Tick a layer, and no other."""
        chosen = _layers.bare(layer)
        for item in _items(self.layers):
            mine = item.data(Qt.ItemDataRole.UserRole) is chosen
            item.setCheckState(Qt.CheckState.Checked if mine else Qt.CheckState.Unchecked)

    def _layers_ticked(self) -> None:
        """Offer the axes of channels of the layers."""
        deep = [layer for layer in self.ticked() if layer.ndim > 2 and not layer.rgb]
        entries = _layers.choices_of_channels(deep[0]) if deep else [("None: one intensity", None)]
        if entries != [
            (self.channels.itemText(row), self.channels.itemData(row)) for row in range(self.channels.count())
        ]:
            self.channels.blockSignals(True)
            self.channels.clear()  # the likeliest is the first
            self.channels.blockSignals(False)
            _fill(self.channels, entries)
        self.channels.setEnabled(bool(deep))
        self.update_state()

    def _show_kind(self) -> None:
        """Show the controls of what is learnt from."""
        for words, box in ((LAYERS, self.layers_box), (PAIRS, self.pair_box), (FOLDER, self.folder_box)):
            box.setVisible(self.kind.currentData() == words)
        self.low_side.setEnabled(self.kind.currentData() != PAIRS)
        self.update_state()

    def _browse(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "A folder of sharp images")
        if path:
            self.folder.setText(path)

    def _model_chosen(self) -> None:
        """Ask for a file if one is wanted, then measure the speed."""
        if self.model.currentData() == FROM_FILE:
            self.model.ask_for_file()
        if self.rate.value() in (RATE, NEW_RATE):
            self.rate.setValue(NEW_RATE if self.model.currentData() == NEW else RATE)
        self._measure()

    def _length_chosen(self) -> None:
        """Set what a choice of length means."""
        for name, value in LENGTHS.get(self.length.currentData(), {}).items():
            box = self._of_length[name]
            box.blockSignals(True)
            box.setValue(value)
            box.blockSignals(False)
        self.update_state()

    def _steps_changed(self) -> None:
        self.length.setCurrentIndex(self.length.findData(GIVEN))
        self.update_state()

    def given_scales(self) -> tuple[float, ...]:
        """The scales to learn.

        Raises
        ------
        ValueError
            If they are no numbers above 1.
        """
        scales = tuple(sorted({float(word) for word in self.scales.text().replace(";", ",").split(",")}))
        if not all(1 < scale <= 32 for scale in scales):
            raise ValueError
        return scales

    def data(self) -> Data:
        """What is chosen to learn from.

        Raises
        ------
        ValueError
            If it cannot be learnt from: one sentence.
        """
        kind = self.kind.currentData()
        if kind == FOLDER:
            return Data(folder=self._folder())
        if kind == PAIRS:
            low, sharp = (self._whole(combo.currentData()) for combo in (self.low, self.sharp))
            if low.data is sharp.data:
                msg = "Choose two layers: a low one and a sharp one of the same field of view."
                raise ValueError(msg)
            return Data(pairs=((low, sharp),))
        sources = {layer.name: self._whole(layer) for layer in self.ticked()}
        if not sources:
            msg = "Tick at least one layer to learn from."
            if not self.layers.count():
                msg = "Open an image first, such as File > Open Sample > VDSR super-resolution."
            raise ValueError(msg)
        shapes = self.part.currentData()
        if shapes is not None:
            layers = {layer.name: layer for layer in self.ticked()}
            sources = {
                f"{name}, rectangle {number}": part
                for name, source in sources.items()
                for number, part in enumerate(_training.rectangles(layers[name], source, shapes), 1)
            }
        return Data(sources)

    def _whole(self, layer: Image | None) -> _layers.Source:
        """All of a layer.

        Raises
        ------
        ValueError
            If it cannot be learnt from.
        """
        if layer is None:
            msg = "Open an image first, such as File > Open Sample > VDSR super-resolution."
            raise ValueError(msg)
        axis = self.channels.currentData() if layer.ndim > 2 and not layer.rgb else None
        axis = axis if axis is not None and axis < layer.ndim else None
        if reason := _layers.why_not(layer, axis):
            raise ValueError(reason)
        return _layers.whole(layer, axis)

    def _folder(self) -> str:
        path = Path(self.folder.text()).expanduser()
        if not self.folder.text() or not path.is_dir():
            msg = "Choose a folder of images."
            raise ValueError(msg)
        if not _training.image_files(path):
            msg = f"“{path.name}” holds no images: {', '.join(_training.KINDS)} are looked for."
            raise ValueError(msg)
        return str(path)

    def chosen_recipe(self) -> Recipe:
        """How to train, as chosen."""
        camera = self.low_side.currentText() == CAMERA and self.low_side.isEnabled()
        return Recipe(
            self.name.text(),
            self.model.currentData(),
            threads=_training.count_threads(),
            scales=self.given_scales(),
            blur=self.blur.value() if camera else 0.0,
            noise=self.noise.value() / 100 if camera else 0.0,
            steps=self.steps.value(),
            learning_rate=self.rate.value(),
            theta=self.theta.value() or None,
            batch_size=self.batch.value(),
            patch=self.patch.value(),
            hold_out=self.hold_out.value() / 100,
            strips=self.kind.currentData() != FOLDER,
            validate_every=self.every.value(),
            patience=self.patience.value(),
            seed=self.seed.value(),
            device=self.device.currentData(),
        )

    # -------------------------------------------------------------------------------- what it would cost

    def _measure(self) -> None:
        """Time a few steps in a thread."""
        if self._measurer is not None:
            self._measurer.cancel()
        self.speed, self._trouble = None, ""
        if self.job is None:
            self._measurer = Job(partial(_training.examine, self.model.currentData(), self.device.currentData()))
            self._measurer.stepped.connect(self._measured)
            self._measurer.ended.connect(self._measured_badly)
            self.destroyed.connect(self._measurer.cancel)
            self._measurer.start()
        self.update_state()

    def _measured(self, job: Job, found: tuple[float, dict[str, str]]) -> None:
        if job is not self._measurer:
            return
        self.speed, devices = found
        for name, words in devices.items():
            if self.device.findData(name) < 0:
                self.device.addItem(f"{name.upper()}: {words}" if name != "cpu" else "CPU", name)
        self.update_state()

    def _measured_badly(self, job: Job, error: Exception | None) -> None:
        if job is self._measurer and error is not None and not isinstance(error, Cancelled):
            self._trouble = sentence(error)
            LOG.error("model or device", exc_info=error)
            self.update_state()

    def measure_low_side(self) -> None:
        """Measure blur and noise in the first layer, for the smallest scale."""
        try:
            source, scale = next(iter(self.data().sources.values())), min(self.given_scales())
        except (ValueError, StopIteration):
            return
        job = Job(partial(_training.measure_low_side, source, scale))
        job.stepped.connect(self._low_side_measured)
        job.ended.connect(self._low_side_ended)
        self.destroyed.connect(job.cancel)
        self.measure_button.setEnabled(False)
        job.start()

    def _low_side_measured(self, job: Job, found: tuple[float, float]) -> None:
        self.blur.setValue(found[0])
        self.noise.setValue(100 * found[1])

    def _low_side_ended(self, job: Job, error: Exception | None) -> None:
        self.update_state()
        if error is not None:
            LOG.error("blur and noise", exc_info=error)
            show_error(_in_words(sentence(error)))

    def why_not(self) -> str:
        """One sentence on why a training cannot begin; empty if it can."""
        if self.job is not None:
            return "A training is at work: see the next tab."
        try:
            data = self.data()
        except ValueError as error:
            return str(error)
        try:
            scales = self.given_scales()
        except ValueError:
            return "Give the scales as numbers above 1, such as 2, 3, 4."
        if self._trouble:
            return self._trouble
        sharp = [*data.sources.items(), *(("The sharp layer", high) for _, high in data.pairs)]
        least = max(SMALLEST, math.ceil(4 * max(scales)))
        for name, source in sharp:
            rows, columns = (_training.shape_of(source)[axis] for axis in source.plane_axes)
            if min(rows, columns) < least:
                return f"“{name}” has {rows} {_layers.TIMES} {columns} pixels: at least {least} a side are needed."
        needed = sum(math.prod(_training.shape_of(source)) for _, source in sharp) * BYTES * (2 + len(scales))
        free = psutil.virtual_memory().available
        if needed > free:
            return (
                f"The training needs about {_layers.size(needed)}, and {_layers.size(free)} of memory are free. Draw "
                "rectangles in a Shapes layer and learn from them."
            )
        try:
            _models.check_name(self.name.text())
        except (ValueError, FileExistsError) as error:
            return str(error)
        if self.name.text() in _training.list_unfinished():
            return (
                f"There is an unfinished training “{self.name.text()}”: resume it, discard it, or choose another name."
            )
        return ""

    def update_state(self) -> None:
        """Show what a training would cost, or why there can be none."""
        reason = self.why_not()
        running = self.job is not None
        self.start_button.setEnabled(not reason)
        self.start_button.setToolTip(reason or "Trains in the background; the viewer can be used meanwhile.")
        self.copy_button.setEnabled(not reason or running)
        self.reason.setText("" if running else reason)
        self.reason.setVisible(bool(reason) and not running)
        for button in (self.pause_button, self.stop_button, self.cancel_button):
            button.setEnabled(running)
        for button in (self.resume_button, self.discard_button):
            button.setEnabled(not running)
        self.bar.setVisible(running)
        for control in (self.blur, self.noise, self.measure_button):
            control.setEnabled(self.low_side.currentText() == CAMERA and self.low_side.isEnabled())
        done = self.finished
        self.use_button.setVisible(done is not None and done.path is not None)
        self.save_button.setVisible(done is not None and done.path is None and not running)
        self.scores.setVisible(bool(self.scores.text()))
        self.estimate.setText("" if running else self._estimate(reason))

    def _estimate(self, reason: str) -> str:
        """The time of each length, and of what is chosen."""
        try:
            recipe, data = self.chosen_recipe(), self.data()
        except ValueError:
            return ""
        if self.speed is None:
            return "" if self._trouble else "Time: measuring…"
        held_out = _training.held_out_pixels(data, recipe.hold_out)
        for row in range(self.length.count()):
            words = self.length.itemData(row)
            if words in LENGTHS:
                other = _training.with_length(recipe, words)
                seconds = _training.estimate_seconds(other, self.speed, held_out)
                self.length.setItemText(row, f"{words}, {_layers.duration(seconds)}")
                self.length.setItemData(row, f"{other.steps} steps of {other.batch_size} patches", TOOLTIP)
        seconds = _training.estimate_seconds(recipe, self.speed, held_out)
        return f"Time: at most about {_layers.duration(seconds)}; less if nothing better is found."

    # --------------------------------------------------------------------------------------- the training

    def start(self) -> None:
        """Train with what is chosen."""
        if not self.why_not():
            self._begin(self.chosen_recipe(), self.data())

    def resume(self) -> None:
        """Go on with the chosen unfinished training."""
        recipe = _training.list_unfinished().get(self.unfinished.currentData())
        if recipe is not None and self.job is None:
            self._begin(recipe, None)
        self._list_unfinished()

    def discard(self) -> None:
        """Delete the chosen unfinished training."""
        _training.discard(self.unfinished.currentData() or "")
        self._list_unfinished()
        self.update_state()

    def _begin(self, recipe: Recipe, data: Data | None) -> None:
        """Start a training and watch it."""
        if self._measurer is not None:
            self._measurer.cancel()
        self.recipe, self._data, self._left_out = recipe, data, {}
        self._control, self.finished = Control(), None
        self._clock = Clock()
        self.curves.clear()
        self.scores.setText("")
        self._warn("")
        self.job = Job(partial(_training.train, recipe, data, self._control))
        self.job.stepped.connect(self._stepped)
        self.job.ended.connect(self._ended)
        self.destroyed.connect(self.job.cancel)
        self.bar.setRange(0, 0)
        self.bar.setFormat("")
        self.pause_button.setText("Pause")
        self.tabs.setCurrentIndex(TRAINING)
        self._say(f"“{recipe.name}”: reading the images and measuring the start…")
        self._list_unfinished()
        self.update_state()
        self.job.start()

    def _stepped(self, job: Job, step: Any) -> None:
        """Show what is new."""
        if job is not self.job:
            return
        if isinstance(step, Begun):
            self._left_out = step.left_out
            if step.left_out:
                self._warn(f"{len(step.left_out)} files cannot be read and are left out: {', '.join(step.left_out)}.")
        elif isinstance(step, Finished):
            self.finished = step
        else:
            for progress in step:
                self._show(progress)
            self.curves.draw()
            self._show_time(step[-1])

    def _show(self, progress: Any) -> None:
        """Show a step."""
        self.curves.add(progress)
        if progress.scores is not None:
            self._show_scores(progress.scores)
        if progress.preview is not None:
            self.tiles.show_preview(progress.preview)
        if progress.warning:
            self._warn(_in_words(progress.warning))

    def _show_time(self, progress: Any) -> None:
        """Show how far the training is."""
        left = self._clock.left(progress.share)
        self.bar.setRange(0, 1000)
        self.bar.setValue(round(1000 * progress.share))
        self.bar.setFormat("%p %" + (f"   at most {_layers.duration(left)} left" if left is not None else ""))
        if self.recipe is not None and not self._control.paused.is_set() and not self._control.stopped.is_set():
            self._say(f"“{self.recipe.name}”: step {progress.step} of {self.recipe.steps}.")

    def _show_scores(self, scores: dict[str, dict[str, float]]) -> None:
        """Bicubic, before and after in dB, per scale."""
        rows: list[tuple[str, ...]] = [("Scale", "Bicubic", "Before", "After", "Gain")]
        for scale, found in scores.items():
            name = scale if scale == "pairs" else f"{_layers.TIMES}{scale}"
            figures = [f"{found[key]:.2f}" for key in ("bicubic", "before", "after")]
            rows.append((name, *figures, f"{found['after'] - found['before']:+.2f}"))
        lines = "".join(f"<tr>{''.join(f'<td align=right>{word}</td>' for word in row)}</tr>" for row in rows)
        self.scores.setText(f"PSNR in dB on the held-out part<table cellpadding=3>{lines}</table>")
        self.scores.show()

    def pause(self) -> None:
        """Wait after this step, or go on."""
        if self.job is None:
            return
        if self._control.paused.is_set():
            self._control.paused.clear()
            self._clock.go_on()
            self.pause_button.setText("Pause")
            self._say("Going on.")
        else:
            self._control.paused.set()
            self._clock.pause()
            self.pause_button.setText("Go on")
            self._say("Paused after this step.")

    def stop(self) -> None:
        """End with the best network so far."""
        if self.job is not None:
            self._control.stopped.set()
            self._lock("Stopping…")

    def cancel(self) -> None:
        """End without a network."""
        if self.job is not None:
            self.job.cancel()
            self._lock("Cancelling…")

    def _lock(self, words: str) -> None:
        for button in (self.pause_button, self.stop_button, self.cancel_button):
            button.setEnabled(False)
        self._say(words)

    def _ended(self, job: Job, error: Exception | None) -> None:
        """Say how it went."""
        if job is not self.job or self.recipe is None:
            return
        self.job = None
        name = self.recipe.name
        kept = name in _training.list_unfinished()
        if not kept:
            _training.discard(name)
        where = " It can be resumed under Set up." if kept else ""
        if isinstance(error, Cancelled):
            self._say(f"Cancelled.{where}")
        elif error is not None:
            words = _in_words(sentence(error))
            self._say(f"{words}{where}")
            LOG.error("fine-tuning failed", exc_info=error)
            show_error(words)
            if not kept:
                self.tabs.setCurrentIndex(SET_UP if not self.curves.gains else TRAINING)
        elif self.finished is not None:
            self._show_result(self.finished)
        self._list_unfinished()
        self._list_models()
        self.name.setText(self._free_name())
        if self.speed is None:  # the training came before it was measured
            self._measure()
        self.update_state()
        if error is not None and not isinstance(error, Cancelled):
            self.reason.setText(_in_words(sentence(error)))
            self.reason.show()

    def _show_result(self, finished: Finished) -> None:
        """Say plainly whether it helped."""
        card = finished.network.card
        self._show_scores(card["hold_out"])
        words = [card["summary"]]
        if finished.path is not None:
            words.append(f"Saved as “{finished.path.stem}”, in {finished.path.parent}.")
        elif finished.trouble:
            words.append(f"It could not be saved: {finished.trouble}")
        else:
            words.append("It is not saved, and Upscale keeps the model it has.")
        self._say(" ".join(words))
        self.save_button.setText("Save again" if finished.trouble else "Save anyway")

    def save_anyway(self) -> None:
        """Add the last network to the user's models."""
        if self.finished is None or self.recipe is None:
            return
        try:
            path = _models.save_model(self.finished.network, _models.free_name(self.recipe.name))
        except (OSError, ValueError) as error:
            self._say(f"It could not be saved: {sentence(error)}")
            return
        _training.discard(self.recipe.name)
        self.finished = Finished(self.finished.network, path)
        self._say(f"Saved as “{path.stem}”, in {path.parent}.")
        self._list_models()
        self._list_unfinished()
        self.update_state()

    def _say(self, words: str) -> None:
        self.message.setText(words)

    def _warn(self, words: str) -> None:
        """Show one more warning; none clears them."""
        self.warning.setText(f"{self.warning.text()}\n{words}".strip() if words else "")
        self.warning.setVisible(bool(words))

    # ------------------------------------------------------------------------------------------- models

    def _list_unfinished(self) -> None:
        """Offer the trainings that can be gone on with."""
        working = self.recipe.name if self.job is not None and self.recipe is not None else None
        names = [name for name in _training.list_unfinished() if name != working]
        _fill(self.unfinished, [(name, name) for name in names])
        self.unfinished_box.setVisible(bool(names))

    def _list_models(self) -> None:
        """Show the user's networks."""
        chosen = self.chosen_model()
        self.models.clear()
        self.models.addItems(list(_models.list_models()))
        if chosen is not None:
            self.choose_model(chosen)
        self.model.list_again()
        self._show_card()

    def chosen_model(self) -> str | None:
        """The name of the network that is chosen in the list."""
        item = self.models.currentItem()
        return item.text() if item else None

    def choose_model(self, name: str) -> None:
        """Choose one of the user's networks."""
        for item in self.models.findItems(name, Qt.MatchFlag.MatchExactly):
            self.models.setCurrentItem(item)

    def _show_card(self) -> None:
        """What is known of the chosen network."""
        name = self.chosen_model()
        for button in (self.use_own_button, self.rename_button, self.export_button, self.delete_button):
            button.setEnabled(name is not None)
        if name is None:
            self.card.setText("" if self.models.count() else "Networks that you fine-tune are listed here.")
            return
        try:
            self.card.setText(_models.describe_model(name))
        except (OSError, ValueError) as error:
            self.card.setText(sentence(error))

    def rename(self, new: str) -> None:
        """Give the chosen network another name."""
        name = self.chosen_model()
        if name is not None and self._managed(partial(_models.rename_model, name, new)):
            self.choose_model(new)

    def export(self, target: str) -> None:
        """Copy the file of the chosen network."""
        name = self.chosen_model()
        if name is not None and self._managed(partial(_models.export_model, name, target)):
            show_info(f"“{name}” is now also in {target}.")

    def delete(self) -> None:
        """Delete the chosen network."""
        name = self.chosen_model()
        if name is not None:
            self._managed(partial(_models.delete_model, name))

    def _managed(self, action: Any) -> bool:
        """Do something with a file; whether it went well."""
        try:
            action()
        except (OSError, ValueError) as error:
            show_error(sentence(error))
            return False
        finally:
            self._list_models()
            self.update_state()
        return True

    def _ask_to_rename(self) -> None:
        new, agreed = QInputDialog.getText(self, "Rename", "New name", text=self.chosen_model() or "")
        if agreed:
            self.rename(new)

    def _ask_to_export(self) -> None:
        target, _ = QFileDialog.getSaveFileName(
            self, "Export", f"{self.chosen_model()}{_models.SUFFIX}", f"Networks (*{_models.SUFFIX})"
        )
        if target:
            self.export(target)

    def _ask_to_delete(self) -> None:
        buttons = QMessageBox.StandardButton
        words = f"Delete the model “{self.chosen_model()}”? It cannot be brought back."
        if QMessageBox.question(self, "Delete", words, buttons.Yes | buttons.No) == buttons.Yes:
            self.delete()

    def _use_result(self) -> None:
        if self.finished is not None and self.finished.path is not None:
            self.use(self.finished.path)

    def _use_own(self) -> None:
        name = self.chosen_model()
        if name is not None:
            self._managed(lambda: self.use(_models.find_model(name)))

    def use(self, path: Path) -> None:
        """Open the Upscale widget with a network chosen."""
        _, widget = self.viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale", tabify=True)
        widget.choose_model_file(str(path))

    # ------------------------------------------------------------------------------------------- the rest

    def copy_python(self) -> str:
        """Copy the script that gives the same network, and return it."""
        recipe, data = self.recipe, self._data
        if self.job is None or recipe is None or data is None:
            recipe, data = self.chosen_recipe(), self.data()
        text = _training.python_script(recipe, data, self._left_out)
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(text)
        show_info("The script is on the clipboard.")
        return text

    def _free_name(self) -> str:
        """A name for the next network."""
        chosen = self.ticked()
        name = f"{chosen[0].name} fine-tuned" if chosen else "fine-tuned"
        clean = "".join("-" if letter in _models.FORBIDDEN else letter for letter in name).strip(" .") or "fine-tuned"
        clean = clean[: _models.LONGEST - 8].strip()
        taken, found, number = _training.list_unfinished(), clean, 1
        while found in taken or _models.free_name(found) != found:
            number += 1
            found = f"{clean} {number}"
        return found

    def _paint(self, event: Any = None) -> None:
        """Take the colours of the viewer's theme."""
        theme = get_theme(self.viewer.theme)
        self.curves.paint_as(theme.text.as_hex(), theme.background.as_hex())


class Clock:
    """The time that a training has taken, pauses not counted, and what is left."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None  # time and share of the first report
        self._idle = 0.0
        self._paused: float | None = None

    def pause(self) -> None:
        """Do not count from here."""
        self._paused = time.monotonic()

    def go_on(self) -> None:
        """Count again."""
        if self._paused is not None:
            self._idle += time.monotonic() - self._paused
            self._paused = None

    def left(self, share: float) -> float | None:
        """Seconds left when `share` is done; None if nothing is known yet."""
        now = time.monotonic() - self._idle
        if self._first is None:
            self._first = (now, share)
        begun, first = self._first
        return (now - begun) / (share - first) * (1 - share) if share > first else None


def _items(rows: Any) -> list[Any]:
    """All entries of a list."""
    return [rows.item(row) for row in range(rows.count())]


def _fill(combo: Any, entries: list[tuple[str, Any]]) -> None:
    """Offer these entries, keeping the choice; it is not told if it stays."""
    chosen = combo.currentData()
    combo.blockSignals(True)
    combo.clear()
    for words, data in entries:
        combo.addItem(words, data)
    kept = [number for number, (_, data) in enumerate(entries) if chosen is not None and data == chosen]
    combo.setCurrentIndex(kept[0] if kept else 0)
    combo.blockSignals(False)


def _in_words(words: str) -> str:
    """A text of the core as a user of the widget reads it."""
    for name, shown in (
        ("`learning_rate`", "the learning rate"),
        ("`theta`", "theta"),
        ("`weight_decay`", "weight decay"),
        ("`images`", "The images"),
        ("`pairs`", "The layers"),
    ):
        words = words.replace(name, shown)
    words = words.replace("`", "")
    return words[:1].upper() + words[1:]


def _disconnect(viewer: Viewer, list_layers: Any, paint: Any) -> None:
    """Leave a viewer that outlives the widget."""
    for event in _layers.list_events(viewer.layers):
        event.disconnect(list_layers)
    viewer.events.theme.disconnect(paint)
