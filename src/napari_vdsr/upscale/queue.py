"""What a viewer's Upscale widgets have been asked for: one piece of work after the other, also without a widget."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from napari.utils import cancelable_progress
from napari.utils.notifications import show_error
from napari.viewer import Viewer
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QWidget

from napari_vdsr.background.job import Job
from napari_vdsr.background.pytorch import Cancelled
from napari_vdsr.canvas import find_canvas, free_safely
from napari_vdsr.layers import image_layers
from napari_vdsr.upscale.runs import Run, Single
from napari_vdsr.words import duration

LOG = logging.getLogger("napari_vdsr")
REFRESH = 250  # milliseconds between two looks at a running job
REMEMBERED = 20  # pieces of work in the list
PARTS = 1000  # of the bar


class Batch:
    """What one click asks for: work on one layer after the other, as one entry of the list.

    The layers of the results are in the order of `runs`. `settings` are what was chosen, to be chosen again; `keep`
    tells whether finished tiles are kept when it is cancelled.
    """

    def __init__(
        self, title: str, runs: Sequence[Single], settings: dict[str, Any] | None = None, *, keep: bool = True
    ) -> None:
        self.title, self.runs, self.settings, self.keep = title, list(runs), settings, keep
        self.at = 0  # the run at work
        self.words = "waiting"
        self.over = False
        self.error: Exception | None = None
        self.began = self.seconds = 0.0

    @property
    def results(self) -> list[Run]:
        """The runs whose result is there."""
        return [run for run in self.runs if isinstance(run, Run) and run.result is not None]

    def fraction(self) -> float:
        """How much is done."""
        if self.over:
            return 1
        return (self.at + self.runs[self.at].fraction()) / len(self.runs)

    def left(self) -> str:
        """The time that is left, in words."""
        fraction = self.fraction()
        before = sum(getattr(run, "before", 0) for run in self.runs)
        if not 0.02 < fraction < 1 or before:
            return ""
        return f"{duration((time.perf_counter() - self.began) * (1 - fraction) / fraction)} left"


class Queue(QObject):
    """The work of one viewer, in order."""

    changed = Signal()  # there is more, or less, to show
    ended = Signal(object)  # the batch that is over

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.batches: list[Batch] = []
        self.batch: Batch | None = None  # the one at work
        self._activity: Any = None
        self._lives = False
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH)
        self._timer.timeout.connect(self.look)
        viewer.layers.events.removed.connect(self._layer_removed)

    @property
    def run(self) -> Single | None:
        """The work on one layer that is under way."""
        return self.batch.runs[self.batch.at] if self.batch is not None else None

    def add(self, batch: Batch) -> None:
        """Do this after what is waiting already."""
        over = [one for one in self.batches if one.over]
        for old in over[: max(0, len(self.batches) - REMEMBERED)]:
            self.batches.remove(old)
        batch.title = image_layers.free_name(batch.title, [one.title for one in self.batches])
        self.batches.append(batch)
        self._next()

    def cancel(self, batch: Batch | None = None) -> None:
        """End a batch soon, by default the one at work; one that waits is forgotten."""
        batch = batch or self.batch
        if batch is self.batch and batch is not None:
            batch.words = "cancelling…"
            batch.runs[batch.at].job.cancel()
        elif batch in self.batches:
            self.batches.remove(batch)
        self.changed.emit()

    def cancel_all(self) -> None:
        """End all work, as when the viewer is closed."""
        self.batches = [batch for batch in self.batches if batch is self.batch]
        if self.run is not None:
            self.run.job.cancel()

    def live_in(self, window: QWidget, layers: Any) -> None:
        """End all work when a window is closed, whether it has a widget then or not; remove layers from it safely."""
        if not self._lives:
            self._lives = True
            window.destroyed.connect(self.cancel_all)
            if (canvas := find_canvas(window)) is not None:
                free_safely(layers, canvas)

    def look(self) -> None:
        """Show how far the work is."""
        batch, run = self.batch, self.run
        if batch is None or run is None:
            return
        if self._activity.is_canceled:
            self.cancel()
        run.look()  # a look lets Qt handle events: the run may end meanwhile
        if self.batch is batch:
            self._activity.update(int(PARTS * batch.fraction()) - self._activity.n)
            self.changed.emit()

    def _next(self) -> None:
        """Begin with what waits."""
        waiting = [batch for batch in self.batches if not batch.over]
        if self.batch is None and waiting:
            self.batch = waiting[0]
            self.batch.words, self.batch.began = "", time.perf_counter()
            self._activity = cancelable_progress(total=PARTS, desc=f"VDSR: {self.batch.title}")
            self._timer.start()
            self._begin()
        self.changed.emit()

    def _begin(self) -> None:
        run = self.run
        assert run is not None
        run.began = time.perf_counter()
        run.job.stepped.connect(self._stepped)
        run.job.ended.connect(self._ended)
        run.job.start()

    def _stepped(self, job: Job, step: Any) -> None:
        """Hand a step to the run it belongs to."""
        if self.run is not None and job is self.run.job:
            self.run.step(step)

    def _ended(self, job: Job, error: Exception | None) -> None:
        """Go to the next layer, or to the next batch."""
        batch, run = self.batch, self.run
        if batch is None or run is None or job is not run.job:
            return
        words = run.end(error, keep=batch.keep)
        if error is not None:
            batch.error, batch.words = error, words
            if not isinstance(error, Cancelled):
                LOG.error("upscaling failed", exc_info=error)
                show_error(words)
        if batch.at + 1 < len(batch.runs) and not isinstance(error, Cancelled):
            batch.at += 1
            self._begin()
            return
        batch.seconds = time.perf_counter() - batch.began
        if batch.error is None:
            several = len(batch.runs) > 1
            batch.words = f"Done in {duration(batch.seconds)}." if several else words
        batch.over, self.batch = True, None
        self._timer.stop()
        self._activity.close()
        self.ended.emit(batch)
        self._next()

    def _layer_removed(self, event: Any) -> None:
        """Stop a run whose result was removed; keep nothing of layers that are gone."""
        layer = image_layers.bare(event.value)
        for batch in self.batches:
            for run in batch.results:
                if run.result is layer:
                    run.removed()
            if batch.over:
                batch.runs = [run for run in batch.runs if layer not in (run.result, run.layer)]
        if self.run is not None and self.run.result is layer:
            self.run.result = None
            if not self.run.job.cancelled.is_set():
                self.cancel()


_queues: WeakKeyDictionary[Any, Queue] = WeakKeyDictionary()


def queue_of(viewer: Viewer) -> Queue:
    """The queue of a viewer, which outlives the widgets that show it."""
    viewer = image_layers.bare(viewer)
    if viewer not in _queues:
        _queues[viewer] = Queue(viewer)
    return _queues[viewer]
