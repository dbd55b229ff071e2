"""Make the pictures of the tutorial on fine-tuning, as `screenshots.py` does those of the guide.

    python docs/screenshots_fine_tuning.py [steps]

With few steps the pictures are made quickly, and the network learns little.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import napari
from qtpy.QtCore import QTimer
from screenshots import SIZE, take, wait

from napari_vdsr.models import library as _models

STEPS = 100


def main(steps: int) -> None:
    """Set up for the sample, train, pause, stop, and take a picture of each."""
    folder = Path(tempfile.mkdtemp())
    _models.data_folder = lambda: folder  # the pictures show no one's own networks
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    viewer.open_sample("napari-vdsr", "u2os")
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Fine-tune")
    wait(lambda: widget.choices.speed is not None)
    widget.form.scales.value = "2"
    widget.form.length.value = "Quick look"
    take(viewer, "fine_tune_set_up")
    widget.form.steps.value = steps
    widget.form.every.value = max(1, steps // 4)
    widget.start()
    blocks = Blocks()
    wait(lambda: len(widget.training.gains) >= 3, 3000)
    sys.stdout.write(f"The viewer could do nothing for {blocks.longest:.3f} s at most.\n")
    take(viewer, "fine_tune_running")
    viewer.theme = "light"
    wait(lambda: widget.training.job is None, 3000)
    take(viewer, "fine_tune_result_light")
    if widget.training.finished.path is None:
        widget.training.save()
    widget.tabs.setCurrentIndex(2)
    widget.own.models.setCurrentRow(widget.own.models.count() - 1)
    viewer.theme = "dark"
    take(viewer, "fine_tune_models")
    viewer.close()


class Blocks:
    """The longest time in which the viewer could do nothing."""

    def __init__(self) -> None:
        self.longest, self._last = 0.0, time.monotonic()
        self._timer = QTimer()
        self._timer.setInterval(10)
        self._timer.timeout.connect(self._beat)
        self._timer.start()

    def _beat(self) -> None:
        now = time.monotonic()
        self.longest, self._last = max(self.longest, now - self._last), now


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else STEPS)
