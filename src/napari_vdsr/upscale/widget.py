"""The Upscale widget: choose, see what it will cost, run, look at the result."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from napari.settings import get_settings
from napari.viewer import Viewer
from qtpy.QtCore import QSignalBlocker, QTimer
from qtpy.QtWidgets import QMainWindow

from napari_vdsr.background.pytorch import Cancelled, Facts
from napari_vdsr.forms import Panel, copy_text, make_column, open_panel, scrolled, set_tip, show_guide
from napari_vdsr.layers import image_layers, regions
from napari_vdsr.upscale import differences, disk, feasibility, keys
from napari_vdsr.upscale.choices import WHOLE, Choices
from napari_vdsr.upscale.compare_controls import CompareControls
from napari_vdsr.upscale.condition_finder import ConditionFinder
from napari_vdsr.upscale.facts_finder import FactsFinder
from napari_vdsr.upscale.form import DISK, LAZY, Face
from napari_vdsr.upscale.hints import Hints
from napari_vdsr.upscale.preferences import DEFAULTS, remember
from napari_vdsr.upscale.preview_controls import Previews
from napari_vdsr.upscale.queue import Batch, queue_of
from napari_vdsr.upscale.queue_list import QueueList
from napari_vdsr.upscale.result_checks import ResultChecks
from napari_vdsr.upscale.runs import Check, Single, Try
from napari_vdsr.upscale.starter import Starter
from napari_vdsr.words import sentence

if TYPE_CHECKING:
    from napari_vdsr.upscale.side_by_side import SideBySide

SCROLL_BAR = 16  # screen pixels
SETTLED = 300  # milliseconds without a move after which a view is looked at
PREVIEW = (
    "Shows the result for the part in view as you move and zoom, from the middle outwards, as a layer of its own. Run "
    "gives the same pixels."
)


def open_upscale_widget(viewer: Viewer) -> None:
    """Show the widget with the selected layers ticked; nothing is computed."""
    open_panel(viewer, "Upscale")


class UpscaleWidget(Panel):
    """Upscale image layers of a viewer with a network."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.queue = queue_of(napari_viewer)
        self.choices = Choices(napari_viewer)
        self.form = self.choices.form
        self.compare = CompareControls(self.choices, self.queue)
        self.starter = Starter(self, self.choices, self.queue)
        self.starter.wanted.connect(self._add)
        self.queue_list = QueueList(self.queue)
        self.face = Face(self.form, self.compare.container, self.queue_list)
        self.facts_finder, self.condition_finder = FactsFinder(self.form), ConditionFinder(self.choices)
        self.result_checks = ResultChecks(self.choices, self.queue, self.condition_finder)
        self.hints = Hints(self.face, self.choices, self.condition_finder)
        self.previews = Previews(napari_viewer, self.choices, self.facts_finder, self.face.preview_button)
        self.side_by_side: SideBySide | None = None  # made when it is opened
        self._told = ""  # how the last work went
        self._not_finite: Image | None = None
        self._lay_out()
        self._settling = QTimer(self)
        self._settling.setInterval(SETTLED)
        self._settling.setSingleShot(True)
        self._connect()
        self.destroyed.connect(self.choices.leave)
        self.destroyed.connect(self.compare.leave)
        self.destroyed.connect(self.facts_finder.stop)
        self.destroyed.connect(self.condition_finder.stop)
        self.facts_finder.examine()

    def _lay_out(self) -> None:
        make_column(self, scrolled(self.face))
        self.setMinimumWidth(300)

    def _connect(self) -> None:
        """Say what each control does."""
        face, choices = self.face, self.choices
        choices.changed.connect(self.update_state)
        choices.outdated.connect(self._outdated)
        choices.moved.connect(lambda: self._settling.start())
        self._settling.timeout.connect(self._view_settled)
        for control in (self.form.scale, self.form.region):
            control.changed.connect(self.face.hide_trial)
        self.viewer.dims.events.current_step.connect(self.face.hide_trial)
        self.facts_finder.outdated.connect(self._outdated)
        self.facts_finder.changed.connect(self.update_state)
        self.condition_finder.changed.connect(self.update_state)
        self.hints.model_wanted.connect(self._choose_model)
        self.previews.toggled.connect(self._preview_toggled)
        self.previews.stepped.connect(self._tell)
        self.previews.failed.connect(lambda error: self._note_error(error, self.choices.first))
        self.compare.said.connect(face.say)
        self.queue.changed.connect(self._show_progress)
        self.queue.ended.connect(self._ended)
        self.queue_list.wanted.connect(self._use_again)
        self.viewer.layers.events.removed.connect(self._layer_removed)
        for button, action in (
            (face.run_button, self.start),
            (face.cancel_button, self.queue.cancel),
            (face.disk_button, self._save_instead),
            (face.nan_button, self.replace_nan),
            (face.copy_button, self.copy_python),
            (face.folder_button, self.starter.ask_for_folder),
            (face.resume_button, self.resume),
            (face.discard_button, self.discard),
            (face.try_button, self.start_trial),
            (face.side_button, self.show_side_by_side),
            (face.added_button, partial(self.start_check, differences.ADDED)),
            (face.agrees_button, partial(self.start_check, differences.CONSISTENCY)),
            (face.expected_button, partial(self.start_check, differences.EXPECTED)),
            (face.asynchronous, self._allow_drawing),
            (face.defaults_button, self.restore_defaults),
            (face.guide_button, partial(show_guide, self, "Upscale", "upscale")),
        ):
            button.clicked.connect(lambda *_, action=action: action())
        face.original_button.toggled.connect(self.show_original)

    # for scripts that drive the widget, and for other parts of the plugin
    @property
    def run(self) -> Single | None:
        """The work that is under way; None if there is none."""
        return self.queue.run

    @property
    def facts(self) -> Facts | None:
        """What is known of the chosen network and device; None until it is found."""
        return self.facts_finder.facts

    @property
    def preview(self) -> Any:
        """The preview of the first ticked layer, if there is one."""
        return next(iter(self.previews.shown), None)

    def choose_layer(self, layer: Any) -> None:
        """Tick a layer and the others of its file, if they can be upscaled."""
        self.choices.choose_layer(layer)
        if isinstance(layer, Labels):
            self.face.say(f"“{layer.name}” is a Labels layer: its numbers name objects and cannot be interpolated.")

    def choose_model_file(self, path: str) -> None:
        """Offer and choose a network from a file; an empty path goes back to the default."""
        self.form.model.choose(path)
        self.facts_finder.examine()

    # ------------------------------------------------------------------------------ opening and closing the panel

    def showEvent(self, event: Any) -> None:
        """Take the keys, and end the work when the window is closed."""
        super().showEvent(event)
        self.setMinimumWidth(self.face.minimumSizeHint().width() + SCROLL_BAR)
        keys.bind(self.viewer, self)
        window = self.window()
        if isinstance(window, QMainWindow):
            self.queue.live_in(window, self.viewer.layers)

    def leave(self) -> None:
        """Follow the viewer no longer; work that is under way continues, and another panel will show it."""
        self.previews.end()
        self.compare.on.value = False
        if self.side_by_side is not None:
            self.side_by_side.close()
        self.choices.leave()
        self.compare.leave()
        self.queue.changed.disconnect(self._show_progress)
        self.queue.ended.disconnect(self._ended)
        self.viewer.layers.events.removed.disconnect(self._layer_removed)
        self.viewer.dims.events.current_step.disconnect(self.face.hide_trial)

    # -------------------------------------------------------------------------------------- the model, the device

    def _choose_model(self, name: str) -> None:
        """Take a network that was proposed."""
        self.form.model.setCurrentIndex(self.form.model.findData(name))
        self.facts_finder.choose()

    def restore_defaults(self) -> None:
        """Choose as the widget did when it was new."""
        remember(**DEFAULTS)
        self.form.recall()
        self.compare.left.value = DEFAULTS["left"]
        self.form.model.setCurrentIndex(0)
        self.form.tile.value = 0
        for box in (self.form.range, self.form.removal.noise, self.form.removal.compression):
            box.value = box.choices[0]
        self.facts_finder.choose()

    # --------------------------------------------------------------------------------------- what it would cost

    def why_not(self) -> str:
        """One sentence on why Run is disabled; empty if it is not."""
        return feasibility.why_nothing(self.choices) or self.facts_finder.trouble or feasibility.why_not(self.choices)

    def update_state(self) -> None:
        """Show what a run would give and cost, or why there can be none."""
        face, nothing = self.face, feasibility.why_nothing(self.choices) or self.facts_finder.trouble
        reason = self.why_not()
        face.preview_button.setEnabled(not nothing)
        set_tip(face.preview_button, nothing or PREVIEW)
        face.run_button.setEnabled(not reason)
        later = " It begins when the current work is done." if self.run is not None else ""
        set_tip(
            face.run_button,
            reason or f"Adds each result as a new layer, exactly on top of its source.{later} (Ctrl+Enter)",
        )
        face.run_button.setText("Run and save…" if self.form.result.value == DISK else "Run")
        face.copy_button.setEnabled(not nothing and bool(self.choices.sources()))
        face.disk_button.setVisible(feasibility.lacks_memory(self.choices))
        face.nan_button.setVisible(self._not_finite in self.choices.layers)
        face.asynchronous.setVisible(self.form.result.value == LAZY and not get_settings().experimental.async_)
        face.estimate.setText(
            feasibility.estimate(self.choices, self.facts, self.facts_finder.trouble, busy=bool(self.run))
        )
        self.condition_finder.look()
        condition = self.condition_finder.condition
        self.form.removal.show_for(self.facts.maps if self.facts else (), condition)
        caution = feasibility.caution(self.choices, self.facts, self.facts_finder.fast)
        face.caution.setText(f"{'' if condition.fitting else condition.misfit} {caution}".strip())
        face.caution.setVisible(bool(face.caution.text()))
        if self.facts is not None and feasibility.count_seconds(self.choices, self.facts) > feasibility.LONG:
            self.facts_finder.compare_with_fast()
        self.result_checks.show_state(face, reason, ready=not nothing and self.facts is not None)
        face.unfinished.choices = self.starter.list_unfinished()
        face.unfinished_box.setVisible(bool(face.unfinished.choices))
        self.hints.show()
        remember(scale=self.form.scale.value, result=self.form.result.value, keep=self.form.keep.value)
        self._show_progress()
        self._settling.start()

    def _show_progress(self) -> None:
        """Show how far the work is, what went before, or why there can be none."""
        batch = self.queue.batch
        self.face.cancel_button.setEnabled(batch is not None)
        self.face.bar.setVisible(batch is not None)
        if batch is None:
            self.face.say(self.why_not() or self._told or self.previews.words())
            return
        fraction = batch.fraction()
        self.face.bar.setRange(0, 1000 if fraction else 0)
        self.face.bar.setValue(round(1000 * fraction))
        self.face.bar.setFormat(f"%p %   {batch.left()}")
        listed = batch.settings is not None  # the list says how far it is
        words = batch.words if listed else f"{batch.title}: running."
        self.face.say(f"{words} {self.why_not()}".strip())

    def _outdated(self) -> None:
        """Take away what is no longer true of what is chosen."""
        self.previews.close()
        self.face.hide_trial()

    # ------------------------------------------------------------------------------------------------ the preview

    def _view_settled(self) -> None:
        """Show what there is to see now."""
        if self.form.region.value != WHOLE:
            self.update_state()
            self._settling.stop()
        self.previews.show()
        self.compare.show()

    def _preview_toggled(self, on: bool) -> None:
        """A preview and a comparison are not shown at once."""
        self._told = ""
        if on:
            self.compare.on.value = False

    def _tell(self, words: str) -> None:
        """Say this in place of how the last work went."""
        self._told = words
        self._show_progress()

    # ---------------------------------------------------------------------------------------------------- the run

    def start(self) -> None:
        """Upscale what is ticked, after what is under way."""
        for box in (self.form.pixel_size, self.form.scale):
            box.native.interpretText()  # what was typed last
        if self.why_not():
            return
        self.starter.start()

    def resume(self) -> None:
        """Finish the chosen result on disk."""
        if self.face.unfinished.value is not None:
            self._told = self.starter.resume(self.face.unfinished.value)
            self.facts_finder.choose()
            self.update_state()

    def discard(self) -> None:
        """Delete the chosen result on disk that is not finished."""
        if self.face.unfinished.value is not None:
            disk.discard(self.face.unfinished.value)
            self.update_state()

    def _save_instead(self) -> None:
        """Run with the result on disk."""
        self.form.result.value = DISK
        self.start()

    def _allow_drawing(self) -> None:
        """Turn on a setting of napari, as the user asked."""
        get_settings().experimental.async_ = True
        self.update_state()

    def _add(self, batch: Batch) -> None:
        """Do this, and say what was said before no longer."""
        self._told = ""
        if batch.settings is not None:
            self.previews.end()  # the result shows what it would
        self.face.hide_trial()
        self.previews.stop()
        self.queue.add(batch)
        self.update_state()

    def _ended(self, batch: Batch) -> None:
        """Say how it went."""
        self._told = batch.words if batch.settings is not None or batch.error is not None else ""
        if batch.error is None and self._told.startswith("Done in"):
            self._told = self._told.partition(". ")[2]  # the list says how long it took
        if batch.error is not None and not isinstance(batch.error, Cancelled):
            self._note_error(batch.error, next((run.layer for run in batch.runs), None))
        elif batch.error is None and isinstance(batch.runs[-1], Try | Check):
            self.face.show_trial(batch.words, getattr(batch.runs[-1], "errors", None))
        if batch.results:
            with QSignalBlocker(self.face.original_button):
                self.face.original_button.setChecked(False)
        self.update_state()

    def _note_error(self, error: Exception, layer: Image | None) -> None:
        """Say what went wrong, with a way out where there is one."""
        self._told = sentence(error)
        if layer is not None and "finite" in str(error):
            self._not_finite = layer
            found = self._told.partition(". ")[0].replace("The layer", f"“{layer.name}”", 1)
            self._told = f"{found}. “Replace NaN…” adds a copy in which a number stands for them."
        self.update_state()

    def _use_again(self, settings: dict[str, Any]) -> None:
        """Choose as for an earlier run."""
        self.choices.choose(settings)
        self.facts_finder.choose()

    def _layer_removed(self, event: Any) -> None:
        """End what was shown of a layer that is gone."""
        layer = image_layers.bare(event.value)
        if self.previews.belongs(layer):
            self.previews.end()
        if self.compare.belongs(layer):
            self.compare.on.value = False
        if "source" in layer.metadata.get("vdsr", {}):  # what was found of a result
            self.face.hide_trial()
        self.compare.offer_again()
        self.update_state()

    def replace_nan(self) -> None:
        """Add a copy of the layer that holds NaN or infinity, without them."""
        if self._not_finite is not None:
            self.starter.replace_nan(self._not_finite)
            self._told = ""
            self.update_state()

    # --------------------------------------------------------------------------------------- looking at the result

    def show_original(self, on: bool) -> None:
        """Show the sources in place of the last results, or the results again."""
        self.compare.on.value = False
        for run in self.result_checks.last_results():
            run.show_source(on)

    def start_check(self, kind: str) -> None:
        """Compare the last result with its source, in a layer of its own."""
        if self.result_checks.last_results():
            try:
                self._add(self.result_checks.check(kind))
            except regions.NoRegion as error:
                self.face.say(str(error))

    def start_trial(self) -> None:
        """Compare all networks that fit on what is shown."""
        if not (self.why_not() or self.result_checks.why_no_trial()):
            self._add(self.result_checks.trial())

    def show_side_by_side(self) -> None:
        """Show up to four networks beside each other."""
        if self.side_by_side is None:
            from napari_vdsr.upscale.side_by_side import SideBySide  # pyqtgraph takes its time

            self.side_by_side = SideBySide(self, self.choices, self.queue)
            self.side_by_side.wanted.connect(self._add)
        self.side_by_side.open_with()

    # ------------------------------------------------------------------------------------------------- the script

    def copy_python(self) -> str:
        """Copy the script that gives the same results, and return it."""
        return copy_text(self.starter.script(), "script")
