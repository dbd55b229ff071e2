"""The Upscale widget: choose, see what it will cost, run, cancel."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from napari.settings import get_settings
from napari.utils.notifications import show_error, show_info
from napari.viewer import Viewer
from qtpy.QtCore import QTimer
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFileDialog

from napari_vdsr.background import pytorch as _work
from napari_vdsr.background.job import Job
from napari_vdsr.forms import sentence
from napari_vdsr.layers import regions as _regions
from napari_vdsr.layers import source as _layers
from napari_vdsr.layers import writer as _writer
from napari_vdsr.models.box import FROM_FILE
from napari_vdsr.upscale import checks as _checks
from napari_vdsr.upscale import disk as _saving
from napari_vdsr.upscale import script as _script
from napari_vdsr.upscale import work as _upscaling
from napari_vdsr.upscale.choices import WHOLE, UpscaleChoices
from napari_vdsr.upscale.compare import Compare
from napari_vdsr.upscale.form import DISK, LAZY, MEMORY
from napari_vdsr.upscale.preview import Preview
from napari_vdsr.upscale.runs import Check, Lazy, Run, Save, Try
from vdsr_core import free_memory

LOG = logging.getLogger("napari_vdsr")

REFRESH = 250  # milliseconds between two looks at a running job
IN_VIEW = "Of a result that is lazy or on disk, the part in view is taken."
ADDED_TIP = f"Adds a layer of what the network changed: the result minus bicubic interpolation.\n{IN_VIEW}"
CONSISTENCY_TIP = (
    "Adds a layer of the result made small again minus the source: where it is not zero, the result contradicts what\n"
    f"was measured. Zero does not prove that the detail is true. A region loses its outermost pixels.\n{IN_VIEW}"
)
PREVIEW_TIP = (
    "Shows what the network makes of the part in view as you move and zoom, from the middle outwards, as a layer of\n"
    "its own. It is what Run would give there."
)


def open_upscale_widget(viewer: Viewer) -> None:
    """Show the widget with the active layer chosen; nothing is computed."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
    widget.choose_layer(viewer.layers.selection.active)


class UpscaleWidget(UpscaleChoices):
    """Upscale an image layer with a network.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer whose layers are upscaled.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.facts: _work.Facts | None = None
        self.run: Run | Lazy | Try | Check | None = None
        self.preview: Preview | None = None
        self.comparison: Compare | None = None
        self._last: Run | Lazy | None = None  # the last one that has a result
        self._examiner: Job | None = None
        self._trouble = ""
        self._connect()
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH)
        self._timer.timeout.connect(self._look)
        self.settling.timeout.connect(self._view_settled)
        self._list_layers()
        self.choose_layer(napari_viewer.layers.selection.active)
        self._examine()

    def _connect(self) -> None:
        """Say what each control does."""
        self.changed.connect(self.update_state)
        self.outdated.connect(self._close_preview)
        self.model.activated.connect(self._model_chosen)
        self.device.activated.connect(self._examine)
        self.asynchronous.clicked.connect(self._render_asynchronously)
        self.disk_button.clicked.connect(self._save_instead)
        self.preview_button.toggled.connect(self._preview_toggled)
        self.run_button.clicked.connect(self.start)
        self.cancel_button.clicked.connect(self.cancel)
        self.try_button.clicked.connect(self.start_trial)
        self.compare.valueChanged.connect(self._compare_moved)
        self.added_button.clicked.connect(partial(self.start_check, _checks.ADDED))
        self.consistency_button.clicked.connect(partial(self.start_check, _checks.CONSISTENCY))
        self.copy_button.clicked.connect(self.copy_python)
        self._connect_to_viewer([(self.viewer.layers.events.removed, self._layer_removed)])

    def passing_layers(self) -> list[Image | None]:
        """Preview and comparison, which are only looked at."""
        return [shown.layer for shown in (self.preview, self.comparison) if shown is not None]

    def _view_settled(self) -> None:
        """Show what there is to upscale now."""
        if self.region.currentData() != WHOLE:
            self.update_state()
            self.settling.stop()
        self._show_preview()
        self._compare_moved()

    def _model_chosen(self) -> None:
        """Ask for a file if one is wanted, then look at the model."""
        if self.model.currentData() == FROM_FILE:
            self.model.ask_for_file()
        self._examine()

    def choose_model_file(self, path: str) -> None:
        """Offer and choose a network from a file; an empty path goes back to the default."""
        self.model.choose(path)
        self._examine()

    # ------------------------------------------------------------------------------- what it would cost

    def _examine(self) -> None:
        """Load the model in a thread, find the devices and measure the speed."""
        wanted = (self.model.currentData(), self.device.currentData())
        if self._examiner is not None:
            self._examiner.cancel()
        self._close_preview()
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
            f"on it; memory and how often there is something new to see do. Automatic is {facts.tile} here,\n"
            f"{_upscaling.LAZY_TILE} for a lazy result, {_saving.TILE} on disk."
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
        if reason := self.why_nothing():
            return reason
        try:
            needed, free = self.bytes_needed(self.source()), free_memory()
        except _regions.NoRegion as error:
            return str(error)
        kind = self.result.currentData()
        if kind != MEMORY and self.region.currentData() != WHOLE:
            words = "lazy result" if kind == LAZY else "result on disk"
            return f"A {words} is of the whole layer: choose that under Region."
        if kind == LAZY:
            if not get_settings().experimental.async_:
                return "A lazy result would freeze the viewer while it computes, unless napari renders asynchronously."
        elif kind == MEMORY and needed > free:
            way = "a region, the current plane" if self.planes.isEnabled() else "a region"
            return (
                f"The result needs {_layers.size(needed)}, and {_layers.size(free)} of memory are free. Save it "
                f"to disk, or choose {way}, a smaller scale, or a lazy result under Advanced."
            )
        return ""

    @property
    def lazy(self) -> bool:
        """Whether the result is to be computed where one looks."""
        return bool(self.result.currentData() == LAZY)

    def _save_instead(self) -> None:
        """Run with the result on disk."""
        self.result.setCurrentIndex(self.result.findData(DISK))
        self.start()

    def _render_asynchronously(self) -> None:
        """Turn on a setting of napari, as the user asked."""
        get_settings().experimental.async_ = True
        self.update_state()

    def why_nothing(self) -> str:
        """One sentence on why no part of the layer can be upscaled now; empty if some can."""
        layer = self.layer.currentData()
        if self.run is not None:
            return "Running."
        if layer is None:
            if any(isinstance(other, Labels) for other in self.viewer.layers):
                return "There is no image layer: a Labels layer names objects and cannot be interpolated."
            return "Open an image first, such as File > Open Sample > U2OS cells."
        if reason := _layers.why_not(layer, self.channels.currentData()):
            return reason
        if self._trouble:
            return self._trouble
        if self.bad_range():
            return "Give the range as two numbers, the lower one first, or let it be found."
        return ""

    def update_state(self) -> None:
        """Show what the run would give and cost, or why there can be none."""
        reason, nothing = self.why_not(), self.why_nothing()
        running = self.run is not None
        self.preview_button.setEnabled(not nothing)
        self.preview_button.setToolTip(nothing or PREVIEW_TIP)
        self.settling.start()
        self.run_button.setEnabled(not reason)
        self.try_button.setEnabled(not reason)
        self.copy_button.setEnabled(self.source_or_none() is not None and not self.bad_range())
        self.cancel_button.setEnabled(running)
        for button, kind, tip in (
            (self.added_button, _checks.ADDED, ADDED_TIP),
            (self.consistency_button, _checks.CONSISTENCY, CONSISTENCY_TIP),
        ):
            not_now = self.why_no_check(kind)
            button.setEnabled(not not_now)
            button.setToolTip(not_now or tip)
        self.run_button.setToolTip(reason or "Adds the result as a new layer, exactly on top of its source.")
        self.run_button.setText("Run and save…" if self.result.currentData() == DISK else "Run")
        self.disk_button.setVisible(self._lacks_memory())
        self.asynchronous.setVisible(self.lazy and not get_settings().experimental.async_)
        self.estimate.setText(self._estimate())
        if not running:
            self.say(reason or self._preview_words())

    def _lacks_memory(self) -> bool:
        """Whether the result on disk is the way out."""
        source = self.source_or_none()
        fits = source is None or self.bytes_needed(source) <= free_memory()
        return (
            not fits
            and self.result.currentData() == MEMORY
            and self.region.currentData() == WHOLE
            and not self.why_nothing()
        )

    def _estimate(self) -> str:
        """Shape, dtype, memory and time of the result."""
        source = self.source_or_none()
        if source is None:
            return ""
        scale = self.scale.value()
        shape = f" {_layers.TIMES} ".join(f"{n:,}" for n in source.result_shape(scale))
        words = f"Result: {shape}, {np.dtype(source.data.dtype).name}, {_layers.size(self.bytes_needed(source))}"
        if self.lazy:
            return f"{words}, computed where you look"
        if self.facts is None:
            return words if self._trouble else f"{words}\nTime: measuring…"
        automatic = _saving.TILE if self.result.currentData() == DISK else self.facts.tile
        seconds = self.facts.seconds(source, scale, self.tile.value() or automatic)
        return f"{words}\nTime: about {_layers.duration(seconds)}"

    # -------------------------------------------------------------------------------------- the preview

    def _preview_toggled(self, on: bool) -> None:
        """Begin a preview, or take it away."""
        if on:
            self._show_preview()
        else:
            self._close_preview()

    def _show_preview(self) -> None:
        """Show what the network makes of the view, if that is wanted."""
        if not self.preview_button.isChecked() or self.facts is None or self.why_nothing():
            return
        layer = self.layer.currentData()
        if self.preview is not None and self.preview.source_layer is not layer:
            self._close_preview()
        plane = _layers.current_plane(layer, self.viewer.dims.point, self.channels.currentData())
        try:
            source = _regions.in_view(self.viewer, layer, plane)
        except _regions.NoRegion as error:
            self.say(str(error))
            return
        if self.preview is None:
            self.preview = Preview(self.viewer, layer, self.facts)
            self.preview.stepped.connect(self._preview_stepped)
            self.preview.ended.connect(self._preview_ended)
            self.destroyed.connect(self.preview.stop)
        self.preview.show(self.task(source))
        self.say(self._preview_words())

    def _preview_stepped(self, preview: Preview) -> None:
        """Keep the range that was found, and say how far the preview is."""
        if preview is self.preview:
            self.keep_range(preview.source_layer, preview.found)
            if not self.why_not():
                self.say(self._preview_words())

    def _preview_ended(self, preview: Preview, error: Exception) -> None:
        """Say why a preview failed."""
        if preview is self.preview:
            self.preview_button.setChecked(False)
            self._failed(error, sentence(error))

    def _preview_words(self) -> str:
        """How far the preview is."""
        preview = self.preview
        if preview is None or not preview.total:
            return ""
        if preview.complete:
            return "The preview of this view is complete."
        return f"Preview: {preview.done} of {preview.total} tiles; the rest shows the source's own pixels."

    def _close_preview(self) -> None:
        """Take the preview away."""
        preview, self.preview = self.preview, None
        if preview is not None:
            preview.close()
            self.say("")

    # ------------------------------------------------------------------------------------------ the run

    def start(self) -> None:
        """Upscale what is chosen."""
        self.pixel_size.interpretText()  # what was typed last
        if self.why_not():
            return
        layer, source = self.layer.currentData(), self.source()
        work = self.viewer, layer, source, self.task(source)
        if self.result.currentData() == DISK:
            if not (target := self.ask_for_target(layer)):
                return
            self.run = Save(*work, target)
        else:
            self.run = (Lazy if self.lazy else Run)(*work)
        self._begin(self.run)

    def ask_for_target(self, layer: Image) -> str:
        """Let the user say where the result goes; empty if not."""
        folder = Path(layer.source.path).parent if layer.source.path else Path.home()
        kinds = "OME-Zarr (*.ome.zarr)"
        path, _ = QFileDialog.getSaveFileName(
            self, "Save the result as", str(folder / self._default_name(layer)), kinds
        )
        return path if not path or path.endswith(".zarr") else f"{path}.ome.zarr"

    def _default_name(self, layer: Image) -> str:
        """A name for the result on disk."""
        return re.sub(r"[^\w .+-]", "_", f"{layer.name} x{self.scale.value():g}") + ".ome.zarr"

    def start_trial(self) -> None:
        """Compare network and bicubic interpolation on the current plane."""
        if self.why_not():
            return
        layer = self.layer.currentData()
        plane = _layers.current_plane(layer, self.viewer.dims.point, self.channels.currentData())
        source = self.in_region(plane)
        self.trial.hide()
        self.run = Try(layer, source, self.task(source))
        self._begin(self.run)

    def start_check(self, kind: str) -> None:
        """Compare the last result with its source, in a layer of its own."""
        if self.why_no_check(kind) or self._last is None:
            return
        self.trial.hide()
        last = self._last
        try:
            source = last.source if last.in_memory else self._seen(last)
        except _regions.NoRegion as error:
            self.say(str(error))
            return
        self.run = Check(last, kind, source)
        self._begin(self.run)

    def why_no_check(self, kind: str) -> str:
        """One sentence on why the last result cannot be checked; empty if it can."""
        last = self._last
        if self.run is not None:
            return "Running."
        if last is None or last.result not in self.viewer.layers or last.layer not in self.viewer.layers:
            return "Run first: this is about the last result, as long as it and its source are there."
        return ""

    def _seen(self, last: Run | Lazy) -> _layers.Source:
        """What is in view of a result that is too large to be looked at as a whole, or not computed yet."""
        axis = last.source.channel_axis
        plane = _layers.current_plane(last.layer, self.viewer.dims.point, axis)
        pairs = zip(plane.part, last.source.part, strict=True)
        part = tuple(seen if upscaled.start <= seen.start < upscaled.stop else upscaled for seen, upscaled in pairs)
        return _regions.in_view(self.viewer, last.layer, replace(plane, part=part))

    def _compare_moved(self, value: int | None = None) -> None:
        """Draw the source up to the slider."""
        fraction, layer = self.compare.value() / 100, self.layer.currentData()
        if self.comparison is not None and (fraction == 0 or self.comparison.source_layer is not layer):
            comparison, self.comparison = self.comparison, None
            comparison.close()
        if fraction == 0 or layer is None or _layers.why_not(layer, self.channels.currentData()):
            return
        if self.comparison is None:
            self.comparison = Compare(self.viewer, layer)
        plane = _layers.current_plane(layer, self.viewer.dims.point, self.channels.currentData())
        try:
            self.comparison.move(plane, fraction)
        except _regions.NoRegion as error:
            self.say(str(error))

    def _begin(self, run: Run | Lazy | Try | Check) -> None:
        """Start a run and watch it."""
        run.job.stepped.connect(self._stepped)
        run.job.ended.connect(self._ended)
        self.destroyed.connect(run.job.cancel)
        if self.preview is not None:
            self.preview.stop()
        if isinstance(run, Run | Lazy):
            self.preview_button.setChecked(False)  # the result shows what it would
        self.bar.setRange(0, 0)
        self.bar.setFormat("")
        self.bar.show()
        self.say("Running.")
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
            self.say("Cancelling…")

    def _ended(self, job: Job, error: Exception | None) -> None:
        """Leave the widget as after a run."""
        run = self.run
        if run is None or job is not run.job:
            return
        self.run = None
        self._timer.stop()
        self.bar.hide()
        words = run.end(error, keep=self.keep.isChecked())
        self.keep_range(run.layer, run.found)
        if isinstance(run, Run | Lazy) and run.result is not None and error is None:
            self._last = run
        self.update_state()
        if isinstance(run, Try | Check) and error is None:
            self.trial.setText(words)
            self.trial.show()
        elif error is None or isinstance(error, _work.Cancelled):
            self.say(self.why_not() or words)
        else:
            self._failed(error, words)

    def _failed(self, error: Exception, words: str) -> None:
        """Say so in the viewer; the traceback is for the log."""
        LOG.error("upscaling failed", exc_info=error)
        show_error(words)
        self.say(self.why_not() or words)

    def _layer_removed(self, event: Any) -> None:
        """Stop a run whose result was removed; forget the ranges of the layer."""
        layer = _layers.bare(event.value)
        self.forget_ranges(layer)
        if self.comparison is not None and layer is self.comparison.layer:
            self.compare.setValue(0)
        if self.preview is not None and layer in (self.preview.layer, self.preview.source_layer):
            self.preview_button.setChecked(False)
        if isinstance(self.run, Run) and self.run.result is layer:
            self.run.result = None
            self.cancel()

    # --------------------------------------------------------------------------------------- the script

    def copy_python(self) -> str:
        """Copy the script that gives the same result, and return it."""
        layer, source = self.layer.currentData(), self.source()
        task = self.task(source)
        options = {name: getattr(task, name) for name in ("scale", "model", "in_range", "tile", "device")}
        if self.result.currentData() == DISK:
            image = _writer.describe_source(layer, source)
            text = _script.disk_script(layer, source, image, self._default_name(layer), **options)
        else:
            text = _script.python_line(layer, source, lazy=self.lazy, **options)
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(text)
        show_info("The script is on the clipboard.")
        return text
