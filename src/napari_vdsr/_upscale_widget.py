"""The Upscale widget: choose, see what it will cost, run, cancel."""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from napari.layers import Image, Labels
from napari.utils import cancelable_progress
from napari.utils.notifications import show_error, show_info
from napari.viewer import Viewer
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_vdsr import _layers, _work
from napari_vdsr._forms import make_box, make_combo, make_form, make_row, make_text, sentence
from napari_vdsr._job import Job

LOG = logging.getLogger("napari_vdsr")

FROM_FILE = "From a file…"
HONEST = "The network predicts detail from what it saw in other images; it does not measure it."
REFRESH = 250  # milliseconds between two looks at a running job
MAX_SCALE = 1000


def open_upscale_widget(viewer: Viewer) -> None:
    """Show the widget with the active layer chosen; nothing is computed."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
    widget.choose_layer(viewer.layers.selection.active)


class UpscaleWidget(QWidget):
    """Upscale an image layer with a network.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer whose layers are upscaled.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.facts: _work.Facts | None = None
        self.run: Run | Try | None = None
        self._ranges: dict[tuple[Any, ...], _work.Ranges] = {}  # found once for each layer
        self._examiner: Job | None = None
        self._watched: Image | None = None  # the chosen layer
        self._trouble = ""
        self._build()
        self._connect()
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH)
        self._timer.timeout.connect(self._look)
        self._list_layers()
        self.choose_layer(napari_viewer.layers.selection.active)
        self._examine()

    # ------------------------------------------------------------------------------------------ the face

    def _build(self) -> None:
        """Make and place all controls."""
        self.layer = make_combo("The image to upscale. It stays as it is; the result is a new layer.")
        self.scale = QDoubleSpinBox()
        self.scale.setRange(1.01, MAX_SCALE)
        self.scale.setDecimals(2)
        self.scale.setSingleStep(0.5)
        self.scale.setValue(2)
        self.scale.setToolTip("Output pixels per input pixel along rows and columns. It need not be a whole number.")
        self.model = make_combo("")
        self.model.addItem("Default", None)
        names = _work.embedded_models()
        for name in names if len(names) > 1 else []:
            self.model.addItem(name, name)
        self.model.addItem(FROM_FILE, FROM_FILE)
        self.channels = make_combo("")
        self.planes = make_combo("")
        self.device = make_combo("Looking for devices…")
        self.device.addItem("Automatic", None)
        form = make_form()
        for label, control in (
            ("Layer", self.layer),
            ("Scale", self.scale),
            ("Model", self.model),
            ("Channels", self.channels),
            ("Planes", self.planes),
            ("Device", self.device),
        ):
            form.addRow(label, control)

        self.estimate = make_text()
        self.message = make_text()
        self.run_button = QPushButton("Run")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setEnabled(False)
        self.cancel_button.setToolTip("Ends the run within a second.")
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.bar.hide()
        self.try_button = QPushButton("Try on this image")
        self.try_button.setToolTip(
            "Makes the middle of the current plane smaller by the scale, upscales it back, and compares\n"
            "bicubic interpolation and the network with the original. No layer is added."
        )
        self.copy_button = QPushButton("Copy as Python")
        self.copy_button.setToolTip("Copies a script for napari's console that gives the same layer.")
        self.trial = make_text()
        self.trial.hide()
        honest = make_text(HONEST)
        honest.setObjectName("honest")

        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(6, 6, 6, 6)
        column.addLayout(form)
        column.addWidget(self._build_advanced())
        column.addWidget(self.estimate)
        column.addLayout(make_row(self.run_button, self.cancel_button))
        column.addWidget(self.bar)
        column.addWidget(self.message)
        column.addLayout(make_row(self.try_button, self.copy_button))
        column.addWidget(self.trial)
        column.addWidget(honest)
        column.addStretch()
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inner)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)
        self.setMinimumWidth(300)

    def _build_advanced(self) -> QCollapsible:
        """What hardly anybody has to change, closed."""
        self.tile = QSpinBox()
        self.tile.setRange(0, 4096)
        self.tile.setSingleStep(32)
        self.tile.setSpecialValueText("Automatic")
        self.range = make_combo(
            "The intensities that become 0 and 1 for the network: the extremes that two neighbouring pixels\n"
            "of the layer share, so that a hot pixel does not count. Values outside are not clipped."
        )
        self.range.addItems(["Found in the layer", "Given"])
        self.low, self.high = QLineEdit("0"), QLineEdit("255")
        for edit, word in ((self.low, "0"), (self.high, "1")):
            edit.setToolTip(f"The intensity that becomes {word}. Choose “Given” to set it.")
            edit.setEnabled(False)
        self.keep = QCheckBox("Keep finished tiles when cancelled")
        self.keep.setChecked(True)
        self.keep.setToolTip("If not, the layer of a cancelled run is removed.")
        form = make_form()
        form.addRow("Tile size", self.tile)
        form.addRow("Range", self.range)
        form.addRow("", make_box(make_row(self.low, self.high)))
        form.addRow(self.keep)
        box = QWidget()
        box.setLayout(form)
        self.advanced = QCollapsible("Advanced")
        self.advanced.setDuration(0)
        self.advanced.setCollapsedIcon("\u25b6")
        self.advanced.setExpandedIcon("\u25bc")
        self.advanced.addWidget(box)
        self.advanced.collapse(animate=False)
        return self.advanced

    def _connect(self) -> None:
        """Say what each control does."""
        self.layer.currentIndexChanged.connect(self._layer_changed)
        self.model.activated.connect(self._model_chosen)
        self.device.activated.connect(self._examine)
        self.range.currentIndexChanged.connect(self._range_changed)
        self.scale.valueChanged.connect(self.update_state)
        self.scale.valueChanged.connect(self.trial.hide)  # it was for another scale
        self.tile.valueChanged.connect(self.update_state)
        self.channels.currentIndexChanged.connect(self.update_state)
        self.planes.currentIndexChanged.connect(self.update_state)
        for edit in (self.low, self.high):
            edit.textChanged.connect(self.update_state)
        self.run_button.clicked.connect(self.start)
        self.cancel_button.clicked.connect(self.cancel)
        self.try_button.clicked.connect(self.start_trial)
        self.copy_button.clicked.connect(self.copy_python)
        layers = self.viewer.layers.events
        for event in (layers.inserted, layers.removed, layers.renamed):
            event.connect(self._list_layers)
        layers.removed.connect(self._layer_removed)
        self.destroyed.connect(partial(_disconnect, self.viewer, self._list_layers, self._layer_removed))

    # ---------------------------------------------------------------------------------- what is chosen

    def _list_layers(self, event: Any = None) -> None:
        """Offer the image layers there are, keeping the choice."""
        chosen = self.layer.currentData()
        images = [_layers.bare(layer) for layer in self.viewer.layers if isinstance(layer, Image)]
        self.layer.blockSignals(True)
        self.layer.clear()
        for layer in images:
            self.layer.addItem(layer.name, layer)
        if chosen in images:
            self.layer.setCurrentIndex(images.index(chosen))
        self.layer.blockSignals(False)
        if self.layer.currentData() is not chosen or chosen is None:
            self._layer_changed()
        else:
            self.update_state()

    def choose_layer(self, layer: Any) -> None:
        """Choose a layer if it is one that can be upscaled; a result is not chosen by itself."""
        for index in range(self.layer.count()):
            if self.layer.itemData(index) is _layers.bare(layer):
                self.layer.setCurrentIndex(index)
        if isinstance(layer, Labels):
            self._say(f"“{layer.name}” is a Labels layer: its numbers name objects and cannot be interpolated.")

    def _layer_changed(self) -> None:
        """Offer what the layer has: channels and planes."""
        layer = self.layer.currentData()
        if self._watched is not None:
            self._watched.events.data.disconnect(self._data_changed)
        if layer is not None:
            layer.events.data.connect(self._data_changed)
        self._watched = layer
        for combo in (self.channels, self.planes):
            combo.blockSignals(True)
            combo.clear()
        choices = _layers.choices_of_channels(layer) if layer is not None else []
        for words, axis in choices:
            self.channels.addItem(words, axis)
        self.channels.setEnabled(len(choices) > 1)
        self.channels.setToolTip(
            "Each channel gets a range of its own."
            if len(choices) > 1
            else "Read from the layer: it has no axis that could hold channels."
        )
        stack = layer is not None and layer.ndim > 2
        self.planes.addItem("All planes" if stack else "One plane", "all")
        if stack:
            self.planes.addItem("The current plane", "current")
        self.planes.setEnabled(stack)
        self.planes.setToolTip(
            "Planes and times are upscaled one by one, along rows and columns only."
            if stack
            else "The layer has rows and columns only."
        )
        for combo in (self.channels, self.planes):
            combo.blockSignals(False)
        self.trial.hide()
        self.update_state()

    def _data_changed(self, event: Any = None) -> None:
        """Forget what was found in the old pixels."""
        if self._watched is not None:
            self._forget(self._watched)
            self._layer_changed()

    def _forget(self, layer: Image) -> None:
        for key in [key for key in self._ranges if key[0] == layer.unique_id]:
            del self._ranges[key]

    def _model_chosen(self) -> None:
        """Ask for a file if one is wanted, then look at the model."""
        if self.model.currentData() == FROM_FILE:
            path, _ = QFileDialog.getOpenFileName(self, "A network", "", "Networks (*.safetensors *.npz)")
            self.choose_model_file(path)
        else:
            self._examine()

    def choose_model_file(self, path: str) -> None:
        """Offer and choose a network from a file; an empty path goes back to the default."""
        if path:
            index = self.model.findData(path)
            if index < 0:
                index = self.model.count() - 1
                self.model.insertItem(index, Path(path).name, path)
            self.model.setCurrentIndex(index)
        else:
            self.model.setCurrentIndex(0)
        self._examine()

    def _range_changed(self) -> None:
        given = self.range.currentIndex() == 1
        self.low.setEnabled(given)
        self.high.setEnabled(given)
        self.update_state()

    def given_range(self) -> tuple[float, float] | None:
        """The range that the user gave; None if it is to be found.

        Raises
        ------
        ValueError
            If it is no range.
        """
        if self.range.currentIndex() == 0:
            return None
        low, high = float(self.low.text()), float(self.high.text())
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError
        return low, high

    def source(self) -> _layers.Source:
        """What is chosen to be upscaled; there must be a layer."""
        layer = self.layer.currentData()
        axis = self.channels.currentData()
        if self.planes.currentData() == "current":
            return _layers.current_plane(layer, self.viewer.dims.point, axis)
        return _layers.whole(layer, axis)

    def task(self, source: _layers.Source) -> _work.Task:
        """The work that is chosen."""
        layer = self.layer.currentData()
        return _work.Task(
            source,
            self.scale.value(),
            model=self.model.currentData(),
            device=self.device.currentData(),
            tile=self.tile.value() or None,
            in_range=self.given_range() or self._ranges.get(_range_key(layer, source)),
            looked_at=_layers.coarsest(layer),
        )

    # ------------------------------------------------------------------------------- what it would cost

    def _examine(self) -> None:
        """Load the model in a thread, find the devices and measure the speed."""
        wanted = (self.model.currentData(), self.device.currentData())
        if self._examiner is not None:
            self._examiner.cancel()
        self.facts, self._trouble = None, ""
        self.trial.hide()
        self._examiner = Job(partial(_work.examine, *wanted))
        self._examiner.stepped.connect(self._examined)
        self._examiner.ended.connect(self._examined_badly)
        self.destroyed.connect(self._examiner.cancel)
        self._examiner.start()
        self.update_state()

    def _examined(self, job: Job, facts: _work.Facts) -> None:
        """Show what is known of model and device."""
        if job is not self._examiner:
            return
        self.facts = facts
        for name, words in facts.devices.items():
            if self.device.findData(name) < 0:
                self.device.addItem(f"{name.upper()}: {words}" if name != "cpu" else "CPU", name)
        self.device.setToolTip(facts.chosen)
        self.model.setToolTip(facts.summary)
        self.tile.setToolTip(
            f"Side of a tile in output pixels, {facts.halo} more are computed around it. The result does not depend\n"
            f"on it; memory and the time to cancel do. Automatic is {facts.tile} here."
        )
        self.update_state()

    def _examined_badly(self, job: Job, error: Exception | None) -> None:
        """Show why a model or device cannot be used."""
        if job is self._examiner and error is not None and not isinstance(error, _work.Cancelled):
            self._trouble = sentence(error)
            LOG.error("model or device", exc_info=error)
            self.update_state()

    def why_not(self) -> str:
        """One sentence on why Run is disabled; empty if it is not."""
        layer, source = self.layer.currentData(), self.source_or_none()
        if self.run is not None:
            return "Running."
        if layer is None:
            if any(isinstance(other, Labels) for other in self.viewer.layers):
                return "There is no image layer: a Labels layer names objects and cannot be interpolated."
            return "Open an image first, such as File > Open Sample > VDSR super-resolution."
        if reason := _layers.why_not(layer, self.channels.currentData()):
            return reason
        if self._trouble:
            return self._trouble
        try:
            self.given_range()
        except ValueError:
            return "Give the range as two numbers, the lower one first, or let it be found."
        needed, free = self.bytes_needed(source), psutil.virtual_memory().available
        if needed > free:
            way = "the current plane or a smaller scale" if self.planes.isEnabled() else "a smaller scale"
            return (
                f"The result needs {_layers.size(needed)}, and {_layers.size(free)} of memory are free. Choose {way}, "
                "or write to disk with vdsr_core.super_resolve_tiles."
            )
        return ""

    def source_or_none(self) -> _layers.Source | None:
        """What is chosen, if it can be upscaled."""
        layer = self.layer.currentData()
        if layer is None or _layers.why_not(layer, self.channels.currentData()):
            return None
        return self.source()

    def bytes_needed(self, source: _layers.Source | None) -> int:
        """The memory of the result."""
        if source is None:
            return 0
        return math.prod(source.result_shape(self.scale.value())) * int(np.dtype(source.data.dtype).itemsize)

    def update_state(self) -> None:
        """Show what the run would give and cost, or why there can be none."""
        reason = self.why_not()
        running = self.run is not None
        self.run_button.setEnabled(not reason)
        self.try_button.setEnabled(not reason)
        self.copy_button.setEnabled(self.source_or_none() is not None and not self._bad_range())
        self.cancel_button.setEnabled(running)
        self.run_button.setToolTip(reason or "Adds the result as a new layer, exactly on top of its source.")
        self.estimate.setText(self._estimate())
        if not running:
            self._say(reason)

    def _bad_range(self) -> bool:
        try:
            self.given_range()
        except ValueError:
            return True
        return False

    def _estimate(self) -> str:
        """Shape, dtype, memory and time of the result."""
        source = self.source_or_none()
        if source is None:
            return ""
        scale = self.scale.value()
        shape = f" {_layers.TIMES} ".join(f"{n:,}" for n in source.result_shape(scale))
        words = f"Result: {shape}, {np.dtype(source.data.dtype).name}, {_layers.size(self.bytes_needed(source))}"
        if self.facts is None:
            return words if self._trouble else f"{words}\nTime: measuring…"
        seconds = self.facts.seconds(source, scale, self.tile.value() or self.facts.tile)
        return f"{words}\nTime: about {_layers.duration(seconds)}"

    def _say(self, words: str) -> None:
        """Show one sentence below the buttons."""
        self.message.setText(words)
        self.message.setVisible(bool(words))

    # ------------------------------------------------------------------------------------------ the run

    def start(self) -> None:
        """Upscale what is chosen."""
        if self.why_not():
            return
        layer, source = self.layer.currentData(), self.source()
        self.run = Run(self.viewer, layer, source, self.task(source))
        self._begin(self.run)

    def start_trial(self) -> None:
        """Compare network and bicubic interpolation on the current plane."""
        if self.why_not():
            return
        layer = self.layer.currentData()
        source = _layers.current_plane(layer, self.viewer.dims.point, self.channels.currentData())
        self.trial.hide()
        self.run = Try(layer, source, self.task(source))
        self._begin(self.run)

    def _begin(self, run: Run | Try) -> None:
        """Start a run and watch it."""
        run.job.stepped.connect(self._stepped)
        run.job.ended.connect(self._ended)
        self.destroyed.connect(run.job.cancel)
        self.bar.setRange(0, 0)
        self.bar.setFormat("")
        self.bar.show()
        self._say("Running.")
        self.update_state()
        run.job.start()
        self._timer.start()

    def _stepped(self, job: Job, step: Any) -> None:
        """Hand a step to the run it belongs to."""
        if self.run is not None and job is self.run.job:
            self.run.step(step)

    def _look(self) -> None:
        """Show how far the run is."""
        run = self.run
        if run is not None and run.look():  # a look lets Qt handle events: the run may end meanwhile
            self.bar.setRange(0, 1000)
            self.bar.setValue(round(1000 * run.fraction()))
            self.bar.setFormat(f"%p %   {run.left()}")

    def cancel(self) -> None:
        """End the run soon."""
        if self.run is not None:
            self.run.job.cancel()
            self.cancel_button.setEnabled(False)
            self._say("Cancelling…")

    def _ended(self, job: Job, error: Exception | None) -> None:
        """Leave the widget as after a run."""
        run = self.run
        if run is None or job is not run.job:
            return
        self.run = None
        self._timer.stop()
        self.bar.hide()
        words = run.end(error, keep=self.keep.isChecked())
        if run.in_range is not None and self.range.currentIndex() == 0:
            self._ranges[_range_key(run.layer, run.source)] = run.in_range
        self.update_state()
        if error is not None and not isinstance(error, _work.Cancelled):
            LOG.error("upscaling failed", exc_info=error)
            show_error(words)
        if isinstance(run, Try) and error is None:
            self.trial.setText(words)
            self.trial.show()
        elif not self.why_not():
            self._say(words)

    def _layer_removed(self, event: Any) -> None:
        """Stop a run whose result was removed; forget the ranges of the layer."""
        layer = _layers.bare(event.value)
        self._forget(layer)
        if isinstance(self.run, Run) and self.run.result is layer:
            self.run.result = None
            self.cancel()

    # --------------------------------------------------------------------------------------- the script

    def copy_python(self) -> str:
        """Copy the script that gives the same result, and return it."""
        layer, source = self.layer.currentData(), self.source()
        task = self.task(source)
        names = ("scale", "model", "in_range", "tile", "device")
        text = _layers.python_line(layer, source, **{name: getattr(task, name) for name in names})
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(text)
        show_info("The script is on the clipboard.")
        return text


class Run:
    """An upscaling at work: its layer and its bar in the Activity dock."""

    def __init__(self, viewer: Viewer, layer: Image, source: _layers.Source, task: _work.Task) -> None:
        self.viewer, self.layer, self.source, self.task = viewer, layer, source, task
        self.job = Job(partial(_work.upscale, task))
        self.result: Image | None = None
        self.in_range: _work.Ranges | None = None
        self.total = self.done = 0
        self._started: _work.Started | None = None
        self._data = layer.data
        self._metadata: dict[str, Any] = {}
        self._shown = 0
        self._began = 0.0
        self._pause = 0.0  # before the next refresh: large layers take long to draw
        self._refreshed = 0.0
        self._activity = cancelable_progress(total=0, desc=f"VDSR: {layer.name}")

    def step(self, step: _work.Started | _work.Written) -> None:
        """Take a step of the job: the first one adds the layer, each other one is a tile."""
        if isinstance(step, _work.Written):
            self.done = step.done
            return
        self._started = step
        self.in_range, self.total, self._began = step.in_range, step.count, time.perf_counter()
        self._activity.reset(total=step.count)
        self._metadata = _layers.describe(
            self.layer,
            self.source,
            model=self.task.model,
            scale=self.task.scale,
            in_range=step.in_range,
            tile=step.tile,
            device=self.task.device,
        ) | {"tiles": step.count, "tiles_done": 0}
        names = [other.name for other in self.viewer.layers]
        keywords = _layers.layer_keywords(self.layer, self.source, self.task.scale, names)
        result = Image(step.out, metadata={"vdsr": self._metadata}, **keywords)
        _layers.widen_range(result, self.layer)
        self.viewer.add_layer(result)
        self.result = result

    def look(self) -> bool:
        """Show the tiles that are new; whether there is progress to show."""
        if self._activity.is_canceled:
            self.job.cancel()
        now = time.perf_counter()
        if self.done > self._shown and now > self._refreshed + self._pause:
            self._activity.update(self.done - self._shown)
            self._shown = self.done
            if self.result is not None and self.result.visible:
                self.result.refresh(extent=False, thumbnail=False, highlight=False)
                self._pause = 5 * (time.perf_counter() - now)
                self._refreshed = now
        return self.total > 0

    def fraction(self) -> float:
        """How much of the work is done, by the layers of the network and the tiles."""
        if self._started is None:
            return 0
        layers = self._started.pulse.layers / self._started.depth
        return min(max(self.done, layers), self.done + 1) / self.total

    def left(self) -> str:
        """The time that is left, in words."""
        fraction = min(self.fraction(), 1)
        if fraction == 0:
            return ""
        return f"{_layers.duration((time.perf_counter() - self._began) * (1 / fraction - 1))} left"

    def end(self, error: Exception | None, *, keep: bool) -> str:
        """Close the bar, finish or drop the layer, and say how it went."""
        self._activity.close()
        seconds = time.perf_counter() - self._began
        if self.result is not None:
            self._metadata["tiles_done"] = self.done
            if error is not None and not (keep and self.done):
                self.viewer.layers.remove(self.result)
            else:
                self.result.refresh()
        if error is None:
            changed = " The source was changed meanwhile." if self.layer.data is not self._data else ""
            return f"Done in {_layers.duration(seconds)}.{changed}"
        kept = f"{self.done} of {self.total} tiles are kept." if keep and self.done else "Nothing is kept."
        if isinstance(error, _work.Cancelled):
            return f"Cancelled. {kept}"
        return sentence(error)


class Try:
    """A comparison at work."""

    def __init__(self, layer: Image, source: _layers.Source, task: _work.Task) -> None:
        self.layer, self.source, self.task = layer, source, task
        self.job = Job(partial(_work.try_out, task))
        self.trial: _work.Trial | None = None
        self.in_range: _work.Ranges | None = None
        self.total = self.done = 0

    def step(self, trial: _work.Trial) -> None:
        """Take the result."""
        self.trial = trial

    def look(self) -> bool:
        """How far it is cannot be said."""
        return False

    def fraction(self) -> float:
        """Nothing is done until all is."""
        return 0

    def left(self) -> str:
        """The time that is left cannot be said either."""
        return ""

    def end(self, error: Exception | None, *, keep: bool) -> str:
        """Say how it went."""
        if isinstance(error, _work.Cancelled):
            return "Cancelled."
        if error is not None or self.trial is None:
            return sentence(error)
        psnr, ssim = self.trial.psnr, self.trial.ssim
        rows, columns = self.trial.shape
        return (
            f"{rows} {_layers.TIMES} {columns} pixels, made {self.task.scale:g} times smaller and upscaled back:\n"
            f"Bicubic {psnr['bicubic']:.2f} dB, SSIM {ssim['bicubic']:.4f}\n"
            f"Network {psnr['vdsr']:.2f} dB, SSIM {ssim['vdsr']:.4f} ({psnr['vdsr'] - psnr['bicubic']:+.2f} dB)"
        )


def _range_key(layer: Image, source: _layers.Source) -> tuple[Any, ...]:
    """What the range of a layer depends on."""
    return layer.unique_id, source.channel_axis


def _disconnect(viewer: Viewer, *callbacks: Any) -> None:
    """Leave a viewer that outlives the widget."""
    layers = viewer.layers.events
    for event in (layers.inserted, layers.removed, layers.renamed):
        for callback in callbacks:
            event.disconnect(callback)
