"""The Fine-tune widget: teach a network one's own images, watch, and keep it if that helped."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error, show_info
from napari.utils.theme import get_theme
from napari.viewer import Viewer
from qtpy.QtGui import QGuiApplication

from napari_vdsr.background.job import Job
from napari_vdsr.background.pytorch import Cancelled
from napari_vdsr.fine_tune.choices import TrainChoices, in_words
from napari_vdsr.fine_tune.clock import Clock
from napari_vdsr.fine_tune.data import Data
from napari_vdsr.fine_tune.form import SET_UP, TRAINING
from napari_vdsr.fine_tune.recipe import Recipe
from napari_vdsr.fine_tune.script import command_line, python_script
from napari_vdsr.fine_tune.unfinished import discard, is_at_work, list_unfinished
from napari_vdsr.fine_tune.work import Begun, Control, Finished, train
from napari_vdsr.forms import fill, sentence
from napari_vdsr.layers import source as _layers
from napari_vdsr.models import library as _models
from napari_vdsr.models.box import NEWS

LOG = logging.getLogger("napari_vdsr")

SCRIPT = "Copies a script for napari's console that gives the same network."
NO_SCRIPT = "A training that was resumed has copies of its images: where they came from is not known."


def open_train_widget(viewer: Viewer) -> None:
    """Show the widget with the active layer chosen; nothing is computed."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Fine-tune")
    widget.choose_layer(viewer.layers.selection.active)


class TrainWidget(TrainChoices):
    """Fine-tune a network on image layers, or on a folder of images.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer whose layers are learnt from.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.recipe: Recipe | None = None  # of the training at work, or of the last one
        self.finished: Finished | None = None
        self._control = Control()
        self._data: Data | None = None
        self._left_out: dict[str, str] = {}
        self._clock = Clock()
        self._connect()
        self._offer()
        self.name.setText(self._free_name())
        self._list_unfinished()
        self._list_models()
        self._paint()
        self._measure()

    def _connect(self) -> None:
        """Say what each button does."""
        self.start_button.clicked.connect(self.start)
        self.copy_button.clicked.connect(self.copy_python)
        self.command_button.clicked.connect(self.copy_command)
        self.resume_button.clicked.connect(self.resume)
        self.discard_button.clicked.connect(self.discard)
        self.pause_button.clicked.connect(self.pause)
        self.stop_button.clicked.connect(self.stop)
        self.cancel_button.clicked.connect(self.cancel)
        self.use_button.clicked.connect(self._use_result)
        self.save_button.clicked.connect(self.save_anyway)
        self.own.wanted.connect(self.use)
        NEWS.changed.connect(self.update_state)
        self.viewer.events.theme.connect(self._paint)
        self.destroyed.connect(partial(_disconnect, self.viewer, self._list_layers, self._paint))

    def update_state(self) -> None:
        """Show what a training would cost, or why there can be none."""
        super().update_state()
        running = self.job is not None
        for button in (self.pause_button, self.stop_button, self.cancel_button):
            button.setEnabled(running)
        for button in (self.resume_button, self.discard_button):
            button.setEnabled(not running)
        resumed = running and self._data is None
        self.copy_button.setEnabled(self.copy_button.isEnabled() and not resumed)
        self.copy_button.setToolTip(NO_SCRIPT if resumed else SCRIPT)
        self.bar.setVisible(running)
        done = self.finished
        self.use_button.setVisible(done is not None and done.path is not None)
        self.save_button.setVisible(done is not None and done.path is None and not running)
        self.scores.setVisible(bool(self.scores.text()))

    def start(self) -> None:
        """Train with what is chosen."""
        if not self.why_not():
            self._begin(self.chosen_recipe(), self.data())

    def resume(self) -> None:
        """Go on with the chosen unfinished training."""
        recipe = list_unfinished().get(self.unfinished.currentData())
        if recipe is not None and self.job is None:
            self._begin(recipe, None)
        self._list_unfinished()

    def discard(self) -> None:
        """Delete the chosen unfinished training."""
        discard(self.unfinished.currentData() or "")
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
        self.job = Job(partial(train, recipe, data, self._control))
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
            self._warn(in_words(progress.warning))

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
        kept = name in list_unfinished() and not is_at_work(name)
        if not kept:
            discard(name)
        where = " It can be resumed under Set up." if kept else ""
        if isinstance(error, Cancelled):
            self._say(f"Cancelled.{where}")
        elif error is not None:
            words = in_words(sentence(error))
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
            self.reason.setText(in_words(sentence(error)))
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
        discard(self.recipe.name)
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

    def _list_unfinished(self) -> None:
        """Offer the trainings that can be gone on with."""
        working = self.recipe.name if self.job is not None and self.recipe is not None else None
        names = [name for name in list_unfinished() if name != working and not is_at_work(name)]
        fill(self.unfinished, [(name, name) for name in names])
        self.unfinished_box.setVisible(bool(names))

    def _list_models(self) -> None:
        """Show the networks there are."""
        NEWS.changed.emit("", "")

    def _use_result(self) -> None:
        if self.finished is not None and self.finished.path is not None:
            self.use(self.finished.path)

    def use(self, model: str | Path | None) -> None:
        """Open the Upscale widget with a network chosen."""
        _, widget = self.viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale", tabify=True)
        widget.choose_model_file(str(model or ""))

    def copy_python(self) -> str:
        """Copy the script that gives the same network, and return it."""
        recipe, data = self.recipe, self._data
        if self.job is None or recipe is None or data is None:
            recipe, data = self.chosen_recipe(), self.data()
        return to_clipboard(python_script(recipe, data, self._left_out), "script")

    def copy_command(self) -> str:
        """Copy the command that gives the same network, and return it."""
        return to_clipboard(command_line(self.chosen_recipe(), self.data()), "command")

    def _free_name(self) -> str:
        """A name for the next network."""
        chosen = self.ticked()
        name = f"{chosen[0].name} fine-tuned" if chosen else "fine-tuned"
        clean = _models.clean_name(name)
        taken, found, number = list_unfinished(), clean, 1
        while found in taken or is_at_work(found) or _models.free_name(found) != found:
            number += 1
            found = f"{clean} {number}"
        return found

    def _paint(self, event: Any = None) -> None:
        """Take the colours of the viewer's theme."""
        theme = get_theme(self.viewer.theme)
        self.curves.paint_as(theme.text.as_hex(), theme.background.as_hex())


def to_clipboard(text: str, what: str) -> str:
    """Copy a text, and return it."""
    clipboard = QGuiApplication.clipboard()
    if clipboard is not None:
        clipboard.setText(text)
    show_info(f"The {what} is on the clipboard.")
    return text


def _disconnect(viewer: Viewer, list_layers: Any, paint: Any) -> None:
    """Leave a viewer that outlives the widget."""
    for event in _layers.list_events(viewer.layers):
        event.disconnect(list_layers)
    viewer.events.theme.disconnect(paint)
