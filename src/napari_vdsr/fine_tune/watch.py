"""The tab Training: how a training goes, and how it went."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QProgressBar, QPushButton, QWidget

from napari_vdsr.fine_tune.plots import Curves, Tiles
from napari_vdsr.fine_tune.training import Training
from napari_vdsr.forms import make_box, make_column, make_row, make_text
from napari_vdsr.words import TIMES

NOTHING = "Nothing has been trained yet. Choose images under Set up, and press Start."
SCORES = (
    "How well the part that is kept for testing is restored: PSNR in dB, higher is better. The gain is that over the "
    "network before."
)


class Watch(QWidget):
    """How a training goes; parts that have nothing to show are hidden."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training = training
        self.bar = QProgressBar()
        self.pause_button, self.stop_button = QPushButton("Pause"), QPushButton("Stop, keep best")
        self.cancel_button = QPushButton("Cancel")
        self.pause_button.setToolTip("Waits after this step. Upscale has the whole processor meanwhile.")
        self.stop_button.setToolTip("Ends now with the network that was best on the part kept for testing.")
        self.cancel_button.setToolTip("Ends now without a network. It can be resumed under Set up until discarded.")
        self.message, self.warning, self.scores = make_text(), make_text(), make_text()
        self.scores.setTextFormat(Qt.TextFormat.RichText)
        self.scores.setToolTip(f"<qt>{SCORES}</qt>")
        self.use_button, self.save_button = QPushButton("Use in Upscale"), QPushButton("Save anyway")
        self.use_button.setToolTip("Opens the Upscale widget with this network chosen.")
        self.save_button.setToolTip("Adds the network to your models although it did not help.")
        self.curves, self.tiles = Curves(), Tiles()
        self._shown: Any = None  # the preview that is seen
        self.running = make_box(make_row(self.pause_button, self.stop_button, self.cancel_button))
        parts = self.bar, self.running, self.message, self.scores, self.use_button, self.save_button, self.warning
        make_column(self, *parts, self.curves, self.tiles, margin=6).addStretch()
        self.pause_button.clicked.connect(training.pause)
        self.stop_button.clicked.connect(training.stop)
        self.cancel_button.clicked.connect(training.cancel)
        self.save_button.clicked.connect(training.save)
        training.changed.connect(self.show_state)
        training.stepped.connect(self.show_state)
        self.show_state()

    def show_state(self) -> None:
        """Show what there is."""
        training = self.training
        running, done = training.job is not None, training.finished
        self.bar.setVisible(running)
        self.bar.setRange(0, 1000 if training.losses else 0)
        self.bar.setValue(round(1000 * training.progress))
        self.bar.setFormat(f"%p %   {training.time_left()}" if training.losses and not training.paused else "%p %")
        self.running.setVisible(running)
        self.running.setEnabled(not training.ending)
        self.pause_button.setText("Continue" if training.paused else "Pause")
        self.message.setText(training.message or NOTHING)
        self.warning.setText("\n".join(training.warnings))
        self.scores.setText(self._table())
        self.use_button.setVisible(done is not None and done.path is not None)
        self.save_button.setVisible(not running and done is not None and done.path is None)
        self.save_button.setText("Save again" if done is not None and done.trouble else "Save anyway")
        for part, shown in (
            (self.warning, training.warnings),
            (self.scores, training.scores),
            (self.curves, training.gains),
            (self.tiles, training.preview),
        ):
            part.setVisible(bool(shown))
        self.curves.show_points(training.gains, training.losses)
        if training.preview is not None and training.preview is not self._shown:
            self._shown = training.preview
            self.tiles.show_preview(training.preview)

    def _table(self) -> str:
        """Interpolated, before and after in dB, for each scale."""
        rows: list[tuple[str, ...]] = [("", "Interpolated", "Before", "Now" if self.training.job else "After", "Gain")]
        for scale, found in self.training.scores.items():
            figures = [f"{found[key]:.2f}" for key in ("bicubic", "before", "after")]
            name = scale if scale == "pairs" else f"{TIMES}{scale}"
            rows.append((name, *figures, f"{found['after'] - found['before']:+.2f}"))
        lines = "".join(f"<tr>{''.join(f'<td align=right>{word}</td>' for word in row)}</tr>" for row in rows)
        return f"<table cellpadding=3>{lines}</table>" if len(rows) > 1 else ""
