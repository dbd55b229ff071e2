"""What is chosen in the Fine-tune widget, and what it would cost."""

from __future__ import annotations

import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

from napari.layers import Image, Shapes
from napari.utils.notifications import show_error
from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFileDialog,
    QListWidgetItem,
)

from napari_vdsr.background.job import Job
from napari_vdsr.background.pytorch import Cancelled
from napari_vdsr.fine_tune.data import KINDS, Data, image_files, measure_low_side, rectangles, shape_of
from napari_vdsr.fine_tune.form import ALL, CAMERA, FOLDER, LAYERS, PAIRS, TrainForm
from napari_vdsr.fine_tune.recipe import (
    LENGTHS,
    NEW,
    Recipe,
    count_threads,
    estimate_seconds,
    held_out_pixels,
    with_length,
)
from napari_vdsr.fine_tune.unfinished import is_at_work, list_unfinished
from napari_vdsr.fine_tune.work import examine
from napari_vdsr.forms import fill, sentence
from napari_vdsr.layers import source as _layers
from napari_vdsr.models import library as _models
from napari_vdsr.models.box import FROM_FILE
from vdsr_core import free_memory

LOG = logging.getLogger("napari_vdsr")

COMMAND = "Copies a command for a terminal, here or on another machine, that gives the same network."
NO_COMMAND = "A command reads files: learn from a folder of images. For layers there is Copy as Python."
TOOLTIP = Qt.ItemDataRole.ToolTipRole
GIVEN = "As given under Advanced"
NEW_RATE, RATE = 5e-4, 1e-4  # learning rates for a new network and for one that was trained before
SMALLEST = 32  # pixels of the shorter side: a patch and a held-out patch
BYTES = 4.0  # of a pixel in training, for the sharp image and for each scale


class TrainChoices(TrainForm):
    """The first tab at work.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer whose layers are learnt from.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.job: Job | None = None  # the training at work
        self.speed: float | None = None  # seconds for a pixel of a patch
        self._measurer: Job | None = None
        self._trouble = ""
        self._of_length = {
            "steps": self.steps,
            "batch_size": self.batch,
            "validate_every": self.every,
            "patience": self.patience,
        }
        self._connect_choices()

    def _connect_choices(self) -> None:
        """Say what each control does."""
        self.kind.currentIndexChanged.connect(self._show_kind)
        self.layers.itemChanged.connect(self._layers_ticked)
        self.pairs.changed.connect(self.update_state)
        for combo in (self.part, self.channels):
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
        for event in _layers.list_events(self.viewer.layers):
            event.connect(self._list_layers)

    def _offer(self) -> None:
        """Offer what there is, with the active layer chosen."""
        self.length.addItem(GIVEN, GIVEN)
        self.length.setCurrentIndex(1)
        self._length_chosen()
        self._list_layers()
        self.choose_layer(self.viewer.layers.selection.active)
        self._show_kind()

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
        self.pairs.offer(images)
        fill(self.part, [(ALL, None), *((f"Rectangles of “{layer.name}”", layer) for layer in shapes)])
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
            fill(self.channels, entries)
        self.channels.setEnabled(bool(deep))
        self.update_state()

    def _show_kind(self) -> None:
        """Show the controls of what is learnt from."""
        for words, box in ((LAYERS, self.layers_box), (PAIRS, self.pairs), (FOLDER, self.folder_box)):
            box.setVisible(self.kind.currentData() == words)
        for control in (self.low_side, self.scales):  # a pair says it itself
            control.setEnabled(self.kind.currentData() != PAIRS)
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
            If they are no numbers from 1.1 to 32.
        """
        scales = tuple(sorted({float(word) for word in self.scales.text().replace(";", ",").split(",")}))
        if not all(1.1 <= scale <= 32 for scale in scales):
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
            return Data(pairs=self._pairs())
        sources = {layer.name: self._whole(layer) for layer in self.ticked()}
        if not sources:
            msg = "Tick at least one layer to learn from."
            if not self.layers.count():
                msg = "Open an image first, such as File > Open Sample > U2OS cells."
            raise ValueError(msg)
        shapes = self.part.currentData()
        if shapes is not None:
            layers = {layer.name: layer for layer in self.ticked()}
            sources = {
                f"{name}, rectangle {number}": part
                for name, source in sources.items()
                for number, part in enumerate(rectangles(layers[name], source, shapes), 1)
            }
        return Data(sources)

    def _pairs(self) -> dict[str, tuple[_layers.Source, _layers.Source]]:
        """The chosen pairs, by the names of their layers."""
        pairs = {}
        sharp_ones = []
        for low, sharp in self.pairs.chosen():
            both = (self._whole(low), self._whole(sharp))
            if low is sharp:
                msg = "Choose two layers: a low one and a sharp one of the same field of view."
                raise ValueError(msg)
            if sharp in sharp_ones:
                msg = f"“{sharp.name}” is the sharp layer of two pairs: leave one of them out."
                raise ValueError(msg)
            sharp_ones.append(sharp)
            pairs[f"“{low.name}” and “{sharp.name}”"] = both
        return pairs

    def _whole(self, layer: Image | None) -> _layers.Source:
        """All of a layer.

        Raises
        ------
        ValueError
            If it cannot be learnt from.
        """
        if layer is None:
            msg = "Open an image first, such as File > Open Sample > U2OS cells."
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
        if not image_files(path):
            msg = f"“{path.name}” holds no images: {', '.join(KINDS)} are looked for."
            raise ValueError(msg)
        return str(path)

    def chosen_recipe(self) -> Recipe:
        """How to train, as chosen."""
        camera = self.low_side.currentText() == CAMERA and self.low_side.isEnabled()
        return Recipe(
            self.name.text(),
            self.model.currentData(),
            threads=count_threads(),
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

    def _measure(self) -> None:
        """Time a few steps in a thread."""
        if self._measurer is not None:
            self._measurer.cancel()
        self.speed, self._trouble = None, ""
        if self.job is None:
            self._measurer = Job(partial(examine, self.model.currentData(), self.device.currentData()))
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
        job = Job(partial(measure_low_side, source, scale))
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
            show_error(in_words(sentence(error)))

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
            return "Give the scales as numbers from 1.1 to 32, such as 2, 3, 4."
        if self._trouble:
            return self._trouble
        sharp = [*data.sources.items(), *((high.name, high) for _, high in data.pairs.values())]
        least = max(SMALLEST, math.ceil(4 * max(scales)))
        for name, source in sharp:
            rows, columns = (shape_of(source)[axis] for axis in source.plane_axes)
            if min(rows, columns) < least:
                return f"“{name}” has {rows} {_layers.TIMES} {columns} pixels: at least {least} a side are needed."
        needed = sum(math.prod(shape_of(source)) for _, source in sharp) * BYTES * (2 + len(scales))
        free = free_memory()
        if needed > free:
            return (
                f"The training needs about {_layers.size(needed)}, and {_layers.size(free)} of memory are free. Draw "
                "rectangles in a Shapes layer and learn from them."
            )
        try:
            _models.check_name(self.name.text())
        except (ValueError, FileExistsError) as error:
            return str(error)
        if is_at_work(self.name.text()):
            return f"Another napari is training “{self.name.text()}”: wait for it, or choose another name."
        if self.name.text() in list_unfinished():
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
        folder = self.kind.currentData() == FOLDER
        self.command_button.setEnabled(folder and not reason)
        self.command_button.setToolTip(COMMAND if folder else NO_COMMAND)
        self.reason.setText("" if running else reason)
        self.reason.setVisible(bool(reason) and not running)
        for control in (self.blur, self.noise, self.measure_button):
            control.setEnabled(self.low_side.currentText() == CAMERA and self.low_side.isEnabled())
        self.estimate.setText("" if running else self._estimate())

    def _estimate(self) -> str:
        """The time of each length, and of what is chosen."""
        try:
            recipe, data = self.chosen_recipe(), self.data()
        except ValueError:
            return ""
        if self.speed is None:
            return "" if self._trouble else "Time: measuring…"
        held_out = held_out_pixels(data, recipe.hold_out)
        for row in range(self.length.count()):
            words = self.length.itemData(row)
            if words in LENGTHS:
                other = with_length(recipe, words)
                seconds = estimate_seconds(other, self.speed, held_out)
                self.length.setItemText(row, f"{words}, {_layers.duration(seconds)}")
                self.length.setItemData(row, f"{other.steps} steps of {other.batch_size} patches", TOOLTIP)
        seconds = estimate_seconds(recipe, self.speed, held_out)
        return f"Time: at most about {_layers.duration(seconds)}; less if nothing better is found."


def _items(rows: Any) -> list[Any]:
    """All entries of a list."""
    return [rows.item(row) for row in range(rows.count())]


def in_words(words: str) -> str:
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
