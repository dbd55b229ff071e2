"""The Fine-tune widget: teach a network one's own images, watch, and keep it if that helped."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error
from napari.utils.theme import get_theme
from napari.viewer import Viewer
from qtpy.QtWidgets import QTabWidget, QVBoxLayout

from napari_vdsr.background.job import Latest
from napari_vdsr.fine_tune.choices import Choices
from napari_vdsr.fine_tune.data import Data, measure_low_side
from napari_vdsr.fine_tune.form import FOLDER, SetUpPage
from napari_vdsr.fine_tune.recipe import Recipe
from napari_vdsr.fine_tune.script import command_line, python_script
from napari_vdsr.fine_tune.training import in_words, training_of
from napari_vdsr.fine_tune.unfinished import discard, is_at_work, list_unfinished
from napari_vdsr.fine_tune.watch import Watch
from napari_vdsr.fine_tune.work import examine
from napari_vdsr.forms import Panel, copy_text, ignore_wheel, offer_devices, open_panel, refill, scrolled, show_guide
from napari_vdsr.models.box import FROM_FILE, NEWS
from napari_vdsr.models.page import ModelsPage
from napari_vdsr.words import sentence

LOG = logging.getLogger("napari_vdsr")

SET_UP, TRAINING, MODELS = range(3)  # the tabs
AT_WORK = "A training is under way: see the tab Training."
START = "Trains in the background; the viewer can be used meanwhile."
SCRIPT = "Copies a script for napari's console that gives the same network."
NO_SCRIPT = "A training that was resumed has copies of its images: where they came from is not known."
COMMAND = "Copies a command for a terminal, here or on another machine, that gives the same network."
NO_COMMAND = "A command reads files: learn from a folder of images. For layers there is Copy as Python."


def open_fine_tune_widget(viewer: Viewer) -> None:
    """Show the widget with the active layer chosen; nothing is computed."""
    widget = open_panel(viewer, "Fine-tune")
    widget.choices.choose_layer(viewer.layers.selection.active)


class FineTuneWidget(Panel):
    """Fine-tune a network on image layers of a viewer, or on a folder of images."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.training = training_of(napari_viewer)
        self.choices = Choices(napari_viewer)
        self.form = self.choices.form
        self.page, self.watch, self.own = SetUpPage(self.form), Watch(self.training), ModelsPage()
        self._measurer = Latest(self._measured, self._measured_badly)  # of the speed
        self._low_side = Latest(self._low_side_measured, self._low_side_ended)
        self._measured_for: tuple[Any, Any] | None = None
        self._trouble = ""  # why the speed cannot be measured
        for work in (self._measurer, self._low_side):
            self.destroyed.connect(work.stop)
        self._lay_out()
        self._connect()
        self._list_unfinished()
        self._paint()
        self._measure()

    def _lay_out(self) -> None:
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        for title, page in (("Set up", self.page), ("Training", self.watch), ("My models", self.own)):
            self.tabs.addTab(scrolled(page), title)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.tabs)
        self.setMinimumWidth(340)
        self.tabs.setCurrentIndex(TRAINING if self.training.job is not None else SET_UP)
        ignore_wheel(self)

    def _connect(self) -> None:
        """Say what each control does."""
        page = self.page
        self.choices.changed.connect(self.update_state)
        self.training.changed.connect(self._training_changed)
        self.form.model.activated.connect(self._model_chosen)
        self.form.device.changed.connect(self._measure)
        self.form.measure_button.changed.connect(self.measure_low_side)
        for button, action in (
            (page.start_button, self.start),
            (page.copy_button, self.copy_python),
            (page.command_button, self.copy_command),
            (page.guide_button, partial(show_guide, self, "Fine-tune", "fine_tune")),
            (page.resume_button, self.resume),
            (page.discard_button, self.discard),
            (self.watch.use_button, self._use_result),
        ):
            button.clicked.connect(lambda *_, action=action: action())
        self.own.wanted.connect(self.use)
        NEWS.changed.connect(self.update_state)
        self.viewer.events.theme.connect(self._paint)

    # ------------------------------------------------------------------------------ opening and closing the panel

    def showEvent(self, event: Any) -> None:
        """Offer the networks there are now."""
        super().showEvent(event)
        self.form.model.list_again()

    def leave(self) -> None:
        """Follow the viewer no longer; the training continues."""
        self.choices.leave()
        self.viewer.events.theme.disconnect(self._paint)
        self.training.changed.disconnect(self._training_changed)

    def _paint(self, event: Any = None) -> None:
        """Take the colours of the viewer's theme."""
        theme = get_theme(self.viewer.theme)
        self.watch.curves.paint_as(theme.text.as_hex(), theme.background.as_hex())

    # ------------------------------------------------------------------------------------- what it would cost

    def _model_chosen(self) -> None:
        """Ask for a file if one is wanted, then measure the speed."""
        if self.form.model.currentData() == FROM_FILE:
            self.form.model.ask_for_file()
        self.choices.model_chosen()
        self._measure()

    def _measure(self, *_: Any) -> None:
        """Time a few steps in a thread."""
        wanted = (self.form.model.currentData(), self.form.device.value)
        self._measurer.stop()
        self.choices.speed, self._trouble, self._measured_for = None, "", wanted
        if self.training.job is None:
            self._measurer.start(partial(examine, *wanted))
        self.update_state()

    def _measured(self, found: tuple[float, dict[str, str]]) -> None:
        self.choices.speed, devices = found
        offer_devices(self.form.device, devices)
        self.update_state()

    def _measured_badly(self, error: Exception | None) -> None:
        if error is not None:
            self._trouble = sentence(error)
            LOG.error("model or device", exc_info=error)
            self.update_state()

    def measure_low_side(self, *_: Any) -> None:
        """Measure blur and noise in the first layer, for the smallest scale."""
        source = self.choices.measured_layer
        if source is None or self.page.reason.text():
            return
        self.form.measure_button.enabled = False
        self._low_side.start(partial(measure_low_side, source, min(self.choices.recipe().scales)))

    def _low_side_measured(self, found: tuple[float, float]) -> None:
        self.form.blur.value, self.form.noise.value = found[0], 100 * found[1]

    def _low_side_ended(self, error: Exception | None) -> None:
        self.update_state()
        if error is not None:
            LOG.error("blur and noise", exc_info=error)
            show_error(in_words(sentence(error)))

    def update_state(self, *_: Any) -> None:
        """Show what a training would cost, or why there can be none."""
        if (self.form.model.currentData(), self.form.device.value) != self._measured_for and self._measured_for:
            self._measure()  # another network was proposed for other layers; it comes back here
            return
        page, running = self.page, self.training.job is not None
        reason = AT_WORK if running else self.choices.why_not() or self._trouble
        page.reason.setText(reason or self.training.trouble)
        page.reason.setVisible(bool(page.reason.text()))
        page.start_button.setEnabled(not reason)
        page.start_button.setToolTip(reason or START)
        resumed = running and self.training.data is None
        page.copy_button.setEnabled((running or not reason) and not resumed)
        page.copy_button.setToolTip(NO_SCRIPT if resumed else SCRIPT)
        folder = self.form.kind.value == FOLDER
        page.command_button.setEnabled(folder and not reason)
        page.command_button.setToolTip(COMMAND if folder else NO_COMMAND)
        page.resume_button.setEnabled(not running)
        page.discard_button.setEnabled(not running)
        self.form.measure_button.enabled = not reason and self.choices.measured_layer is not None
        refill(self.form.length)  # with the times that are known now
        page.estimate.setText("" if running or self._trouble else self.choices.estimate())

    # ------------------------------------------------------------------------------------------- the training

    def start(self) -> None:
        """Train with what is chosen."""
        if self.training.job is None and not self.choices.why_not():
            self._begin(self.choices.recipe(), self.choices.data())

    def resume(self) -> None:
        """Resume the chosen unfinished training."""
        recipe = list_unfinished().get(self.page.unfinished.value)
        if recipe is not None and self.training.job is None:
            self._begin(recipe, None)

    def discard(self) -> None:
        """Delete the chosen unfinished training."""
        discard(self.page.unfinished.value or "")
        self._list_unfinished()
        self.update_state()

    def _begin(self, recipe: Recipe, data: Data | None) -> None:
        """Start a training and show it."""
        self._measurer.stop()
        job = self.training.begin(recipe, data)
        window = self.window()
        if window is not None:
            window.destroyed.connect(job.cancel)  # napari ends; a panel that is closed only leaves the window
        self.tabs.setCurrentIndex(TRAINING)

    def _training_changed(self) -> None:
        """Follow a training that has begun, or is over."""
        self._list_unfinished()
        if self.training.job is None:
            self.choices.propose_name()
            if self.training.trouble and not self.training.gains:
                self.tabs.setCurrentIndex(SET_UP)
            if self.choices.speed is None:  # the training came before it was measured
                self._measure()
        self.update_state()

    def _list_unfinished(self) -> None:
        """Offer the trainings that can be resumed."""
        recipe = self.training.recipe
        working = recipe.name if self.training.job is not None and recipe is not None else None
        names = [name for name in list_unfinished() if name != working and not is_at_work(name)]
        self.page.unfinished.choices = names
        self.page.unfinished_box.setVisible(bool(names))

    def _use_result(self) -> None:
        done = self.training.finished
        if done is not None and done.path is not None:
            self.use(done.path)

    def use(self, model: str | Path | None) -> None:
        """Open the Upscale widget with a network chosen."""
        widget = open_panel(self.viewer, "Upscale")
        widget.choose_model_file(str(model or ""))

    def copy_python(self) -> str:
        """Copy the script that gives the same network, and return it."""
        recipe, data = self.training.recipe, self.training.data
        if self.training.job is None or recipe is None or data is None:
            recipe, data = self.choices.recipe(), self.choices.data()
        return copy_text(python_script(recipe, data, self.training.left_out), "script")

    def copy_command(self) -> str:
        """Copy the command that gives the same network, and return it."""
        return copy_text(command_line(self.choices.recipe(), self.choices.data()), "command")
