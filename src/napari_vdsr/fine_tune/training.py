"""The training of a viewer: begun, paused, stopped or cancelled, and what it has shown so far."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_vdsr.background.job import Job
from napari_vdsr.background.pytorch import Cancelled
from napari_vdsr.fine_tune.clock import Clock
from napari_vdsr.fine_tune.data import Data, Material
from napari_vdsr.fine_tune.recipe import Recipe
from napari_vdsr.fine_tune.unfinished import discard, is_at_work, list_unfinished
from napari_vdsr.fine_tune.work import Control, Finished, train
from napari_vdsr.layers.image_layers import bare
from napari_vdsr.models import library
from napari_vdsr.models.box import NEWS
from napari_vdsr.words import duration, sentence

if TYPE_CHECKING:
    from vdsr_core import FineTuneProgress, Preview

LOG = logging.getLogger("napari_vdsr")
CORE_WORDS = {
    "`learning_rate`": "the learning rate",
    "`theta`": "the gradient clip",
    "`weight_decay`": "weight decay",
    "`images`": "The images",
    "`pairs`": "The layers",
    "the held-out part": "the part kept for testing",
    "The residual": "What the network adds",
}


class Training(QObject):
    """One training at a time, which outlives the panel that shows it."""

    changed = Signal()  # it was begun, paused or stopped, or is over
    stepped = Signal()  # there is more to show

    def __init__(self) -> None:
        super().__init__()
        self.job: Job | None = None  # at work now
        self.recipe: Recipe | None = None  # of the training at work, or of the last one
        self.data: Data | None = None  # the same; a resumed training has none
        self.message = ""  # how it goes, in a sentence
        self._reset()

    def _reset(self) -> None:
        self.finished: Finished | None = None  # what came out
        self.trouble, self.progress = "", 0.0  # why it failed; the fraction that is done
        self.warnings: list[str] = []
        self.left_out: dict[str, str] = {}  # files that cannot be read, and why
        self.losses: list[tuple[int, float]] = []  # step and loss
        self.gains: list[tuple[int, float]] = []  # step, and gain over the network before in dB
        self.scores: dict[str, dict[str, float]] = {}  # the latest test: PSNR for each scale
        self.preview: Preview | None = None  # and a held-out part
        self._control, self._clock = Control(), Clock()

    @property
    def paused(self) -> bool:
        """Whether it waits."""
        return self.job is not None and self._control.paused.is_set()

    @property
    def ending(self) -> bool:
        """Whether it was stopped or cancelled, and its last step is still under way."""
        return self.job is not None and (self._control.stopped.is_set() or self.job.cancelled.is_set())

    def time_left(self) -> str:
        """How long it will take at most; empty if that is not known yet."""
        left = self._clock.left(self.progress)
        return "" if left is None else f"at most {duration(left)} left"

    def begin(self, recipe: Recipe, data: Data | None) -> Job:
        """Start a training; without `data`, resume the unfinished one of that name."""
        self._reset()
        self.recipe, self.data = recipe, data
        self.job = job = Job(partial(train, recipe, data, self._control), f"training “{recipe.name}”")
        job.stepped.connect(self._stepped)
        job.ended.connect(self._ended)
        self.message = f"“{recipe.name}”: reading the images and testing the network to start from…"
        job.start()
        self.changed.emit()
        return job

    def pause(self) -> None:
        """Wait after this step, or continue."""
        if self.paused:
            self._control.paused.clear()
            self._clock.resume()
            self.message = "Continuing."
        else:
            self._control.paused.set()
            self._clock.pause()
            self.message = "Paused after this step."
        self.changed.emit()

    def stop(self) -> None:
        """End with the best network so far."""
        self._control.stopped.set()
        self.message = "Stopping…"
        self.changed.emit()

    def cancel(self) -> None:
        """End without a network."""
        if self.job is not None:
            self.job.cancel()
            self._control.stopped.set()  # in the middle of a step
            self.message = "Cancelling…"
            self.changed.emit()

    def save(self) -> None:
        """Add the last network to the user's own, although it did not help, or could not be saved before."""
        if self.finished is None or self.recipe is None:
            return
        try:
            path = library.save_model(self.finished.network, library.free_name(self.recipe.name))
        except (OSError, ValueError) as error:
            self.message = f"It could not be saved: {sentence(error)}"
        else:
            discard(self.recipe.name)
            self.finished = Finished(self.finished.network, path)
            self.message = saved_words(path)
            NEWS.changed.emit("", "")
        self.changed.emit()

    def _stepped(self, job: Job, step: Any) -> None:
        """Take what is new."""
        if isinstance(step, Material):
            self.left_out = step.left_out
            if step.left_out:
                names = ", ".join(step.left_out)
                self.warnings.append(f"{len(step.left_out)} files cannot be read and are left out: {names}.")
        elif isinstance(step, Finished):
            self.finished = step
        else:
            for progress in step:
                self._take(progress)
        self.stepped.emit()

    def _take(self, progress: FineTuneProgress) -> None:
        """Take a step."""
        self.progress = progress.share
        if progress.step:
            self.losses.append((progress.step, progress.loss))
        if progress.scores is not None:
            self.scores = progress.scores
            self.gains.append((progress.step, mean_gain(progress.scores)))
        if progress.preview is not None:
            self.preview = progress.preview
        if progress.warning:
            self.warnings.append(in_words(progress.warning))
        if self.recipe is not None and not (self.paused or self.ending):
            self.message = f"“{self.recipe.name}”: step {progress.step} of {self.recipe.config.steps}."

    def _ended(self, job: Job, error: Exception | None) -> None:
        """Say how it went."""
        assert self.recipe is not None
        self.job, name = None, self.recipe.name
        kept = name in list_unfinished() and not is_at_work(name)
        if not kept:
            discard(name)
        where = " It can be resumed under Set up." if kept else ""
        if isinstance(error, Cancelled):
            self.message = f"Cancelled.{where}"
        elif error is not None:
            self.trouble = in_words(sentence(error))
            self.message = f"{self.trouble}{where}"
            LOG.error("fine-tuning failed", exc_info=error)
            show_error(self.trouble)
        elif self.finished is not None:
            self._conclude(self.finished)
        NEWS.changed.emit("", "")
        self.changed.emit()

    def _conclude(self, finished: Finished) -> None:
        """Say plainly whether it helped, and where the network is."""
        card = finished.network.card
        self.scores = card["hold_out"]
        words = in_words(card["summary"])
        if finished.path is not None:
            self.message = f"{words} {saved_words(finished.path)}"
        elif finished.trouble:
            self.message = f"{words} It could not be saved: {finished.trouble}"
        else:
            self.message = f"{words} It is not saved, and Upscale keeps the model it has."


def saved_words(path: Path) -> str:
    """Where a network is."""
    return f"Saved as “{path.stem}”, under My models."


def mean_gain(scores: dict[str, dict[str, float]]) -> float:
    """The mean over the scales of the gain over the network before, in dB."""
    return sum(found["after"] - found["before"] for found in scores.values()) / len(scores)


def in_words(words: str) -> str:
    """A text of the core as a user of the widget reads it."""
    for name, shown in CORE_WORDS.items():
        words = words.replace(name, shown)
    words = words.replace("`", "")
    return words[:1].upper() + words[1:]


_trainings: WeakKeyDictionary[Any, Training] = WeakKeyDictionary()


def training_of(viewer: Any) -> Training:
    """The training of a viewer, which outlives the panels that show it."""
    viewer = bare(viewer)
    if viewer not in _trainings:
        _trainings[viewer] = Training()
    return _trainings[viewer]
