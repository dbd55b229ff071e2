"""How long the Fine-tune widget keeps a user of napari waiting.

    python benchmarks/viewer_fine_tuning.py [--side 2048]

Opens a viewer (under ``xvfb-run`` where there is no screen) and trains on the sample, or on a layer of so many pixels
a side. "block" is the longest time in which Qt handled no event, as a timer of 10 ms sees it; "own work" the most that
the viewer's thread computed between two looks of the timer: the rest it waited for a processor that other jobs had, or
for Python's lock. With ``--explain 0.2`` longer blocks are explained by what the other threads were doing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import napari
import numpy as np
from qtpy.QtCore import QTimer
from viewer import settle, wait

from napari_vdsr.models import library as _models

INTERVAL = 10  # milliseconds between two looks of the timer


class Blocks:
    """The longest times without an event, and of own work, since it was last asked."""

    def __init__(self, explain: float) -> None:
        self._explain = explain
        self._at = self._begin()
        self._longest = self._most = 0.0
        self._timer = QTimer()
        self._timer.setInterval(INTERVAL)
        self._timer.timeout.connect(self._tick)
        self._timer.start()
        threading.Thread(target=self._watch, args=(threading.get_ident(),), daemon=True).start()

    @staticmethod
    def _begin() -> tuple[float, float]:
        return time.perf_counter(), time.thread_time()

    def _tick(self) -> None:
        now = self._begin()
        self._longest = max(self._longest, now[0] - self._at[0])
        self._most = max(self._most, now[1] - self._at[1])
        self._at = now

    def _watch(self, main: int) -> None:
        """Say what threads do while the viewer is blocked."""
        told = 0.0
        while True:
            time.sleep(INTERVAL / 1000)
            if time.perf_counter() - self._at[0] > self._explain and told != self._at[0]:
                told = self._at[0]
                for thread, frame in sys._current_frames().items():
                    if thread != threading.get_ident():
                        stack = [f"{line.name}:{line.lineno}" for line in traceback.extract_stack(frame)[-5:]]
                        print("  viewer:" if thread == main else "  thread:", " > ".join(stack), file=sys.stderr)
                print(file=sys.stderr)

    def show(self, what: str) -> None:
        """Print a row of the table; the next one is about what follows."""
        print(f"| {what} | {self._longest:.2f} s | {self._most:.2f} s |", flush=True)
        self._longest = self._most = 0.0


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, help="pixels a side of a layer of noise, instead of the sample")
    parser.add_argument("--explain", type=float, default=np.inf, help="seconds: say what longer blocks are made of")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    _models.data_folder = lambda: folder
    viewer = napari.Viewer()
    viewer.window.resize(1280, 800)
    if options.side:
        noise = np.random.default_rng(0).integers(100, 4000, (options.side,) * 2).astype(np.uint16)
        viewer.add_image(noise, name="large")
    else:
        viewer.open_sample("napari-vdsr", "u2os")
    settle()
    blocks = Blocks(options.explain)
    settle(3)
    print("| | block | own work |\n|---|---|---|")
    blocks.show("the viewer alone")
    viewer.layers.selection.active = viewer.layers[0]
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Fine-tune")
    wait(lambda: widget.choices.speed is not None)
    blocks.show("opening the widget: PyTorch is loaded, a step is timed")
    widget.form.scales.value = "2"
    widget.form.batch.value = 4
    widget.form.every.value = 5
    widget.start()
    wait(lambda: bool(widget.training.gains))
    blocks.show("start: images are read, the start is measured")
    wait(lambda: len(widget.training.gains) > 3)
    blocks.show("training: 15 steps, 3 measurements, plots and preview")
    cancelled = []
    for pause in (0.1, 0.7, 1.6):
        settle(pause)
        widget.training.pause()
        settle(0.5)
        widget.training.pause()
        settle(pause)
        begun = time.perf_counter()
        widget.training.cancel()
        wait(lambda: widget.training.job is None)
        cancelled.append(time.perf_counter() - begun)
        widget.resume()
        wait(lambda: bool(widget.training.losses))
    blocks.show("pause, cancel and resume, three times")
    print(f"from Cancel to the end, the longest of 3: {max(cancelled):.2f} s")
    widget.training.stop()
    wait(lambda: widget.training.job is None)
    blocks.show("stop, keep best: the network is saved")
    viewer.close()


if __name__ == "__main__":
    main()
