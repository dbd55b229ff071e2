"""The list under the widget of what was asked for: progress, cancel, and the settings of each result."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QLabel, QToolButton, QWidget

from napari_vdsr.background.pytorch import Cancelled
from napari_vdsr.forms import make_box, make_column, make_row, make_text
from napari_vdsr.upscale.queue import Batch, Queue
from napari_vdsr.words import duration

SHOWN = 6  # the latest


class QueueList(QWidget):
    """The latest runs of a queue, the newest first."""

    wanted = Signal(object)  # settings of a run that are to be chosen again

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self._queue = queue
        self._column = make_column(self)
        self._column.setSpacing(1)
        self.rows: dict[Batch, tuple[QWidget, QLabel, QToolButton, QToolButton]] = {}
        queue.changed.connect(self.show_again)
        self.show_again()

    def show_again(self) -> None:
        """Show what there is now."""
        batches = [batch for batch in self._queue.batches if batch.settings is not None][-SHOWN:]
        for gone in [batch for batch in self.rows if batch not in batches]:
            self.rows.pop(gone)[0].deleteLater()
        for batch in batches:
            if batch not in self.rows:
                self._add(batch)
            _, words, again, cancel = self.rows[batch]
            state = batch.words
            if batch.over and batch.error is None:
                state = f"done in {duration(batch.seconds)}"
            elif batch is self._queue.batch:
                state = state or f"{100 * batch.fraction():.0f} % {batch.left()}"
            elif batch.over:
                state = "cancelled" if isinstance(batch.error, Cancelled) else "failed"
            state = state.replace(" ", "\u00a0")  # on one line
            words.setText(f"{batch.title}: {state}")
            words.setToolTip(describe_batch(batch))
            again.setVisible(batch.over)
            cancel.setVisible(not batch.over)
        self.setVisible(bool(batches))

    def _add(self, batch: Batch) -> None:
        words = make_text()
        again, cancel = QToolButton(), QToolButton()
        again.setText("Use again")
        again.setToolTip("Takes the settings of this run, but not its layers.")
        again.clicked.connect(lambda: self.wanted.emit(batch.settings))
        cancel.setText("✕")
        cancel.setToolTip("Cancels this run, or takes it out of the queue.")
        cancel.clicked.connect(partial(self._queue.cancel, batch))
        row = make_box(make_row(words, again, cancel))
        self._column.insertWidget(0, row)
        self.rows[batch] = row, words, again, cancel


def describe_batch(batch: Batch) -> str:
    """What a run was made with, and how it went."""
    ranges = [f"{run.layer.name}: {run.result.metadata['vdsr']['in_range']}" for run in batch.results if run.result]
    return "\n".join([batch.title, *(f"Black and white {one}" for one in ranges), batch.words])
