"""How long the Upscale widget keeps a user of napari waiting.

    python benchmarks/viewer.py
    python benchmarks/viewer.py --without-ncnn

Opens a viewer (under ``xvfb-run`` where there is no screen) and drives the widget with its defaults on the sample.
"longest block" is the longest time in which Qt handled no event, as a timer of 10 ms sees it.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

if TYPE_CHECKING:
    from napari_vdsr.upscale.widget import UpscaleWidget

INTERVAL = 0.01  # seconds between two looks of the timer
TIMES = 5  # how often a run is cancelled


class Clock:
    """The longest time without an event since it was last asked.

    Parameters
    ----------
    explain : float
        Seconds after which a block is explained by the stack of the main thread, on standard error.
    """

    def __init__(self, explain: float) -> None:
        self._last = time.perf_counter()
        self._longest = 0.0
        self._timer = QTimer()
        self._timer.setInterval(round(1000 * INTERVAL))
        self._timer.timeout.connect(self._tick)
        self._timer.start()
        self._explain = explain
        threading.Thread(target=self._watch, args=(threading.main_thread().ident,), daemon=True).start()

    def _tick(self) -> None:
        now = time.perf_counter()
        self._longest = max(self._longest, now - self._last)
        self._last = now

    def _watch(self, main: int) -> None:
        told = 0.0
        while True:
            time.sleep(INTERVAL)
            if time.perf_counter() - self._last > self._explain and told != self._last:
                told = self._last
                print("".join(traceback.format_stack(sys._current_frames()[main])[-12:]), file=sys.stderr)

    def longest(self) -> float:
        """Seconds; the next question is about what follows."""
        longest, self._longest = self._longest, 0.0
        return longest


def wait(condition: Callable[[], bool], seconds: float = 600) -> None:
    """Let the viewer work until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        QApplication.processEvents()
        time.sleep(0.001)


def settle(seconds: float = 1.0) -> None:
    """Let the viewer work for a while."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-ncnn", action="store_true", help="compute with PyTorch though ncnn is installed")
    parser.add_argument("--explain", type=float, default=np.inf, help="seconds: say what longer blocks are made of")
    options = parser.parse_args()
    if options.without_ncnn:
        sys.modules["ncnn"] = None  # type: ignore[assignment]
    viewer = napari.Viewer()
    viewer.window.resize(1280, 800)
    clock = Clock(options.explain)
    settle()
    clock.longest()

    def measure(what: str) -> None:
        show(f"longest block: {what}", clock.longest())

    settle()
    measure("idle")
    viewer.open_sample("napari-vdsr", "u2os")
    settle()
    measure("opening the sample (napari's own)")
    layer = viewer.layers[0]
    viewer.add_image(np.kron(layer.data, np.ones((2, 2), layer.data.dtype)))
    settle()
    measure("`add_image` of the result's size (napari's own)")
    viewer.layers.remove(viewer.layers[-1])
    settle()
    measure("removing that layer (napari's own)")
    _, widget = viewer.window.add_plugin_dock_widget("napari-vdsr", "Upscale")
    widget.choose_layer(layer)
    wait(lambda: widget.facts is not None)
    settle()
    measure("opening the widget: PyTorch is loaded, the speed measured")
    run(viewer, widget, clock)
    cancel(viewer, widget, clock)
    viewer.close()


def show(what: str, seconds: float) -> None:
    """Print a row of the table."""
    print(f"| {what} | {seconds:.2f} s |", flush=True)


def run(viewer: napari.Viewer, widget: UpscaleWidget, clock: Clock) -> None:
    """From the click to the result, with defaults."""
    start = time.perf_counter()
    widget.run_button.click()
    wait(lambda: widget.run is None or widget.run.done > 0)
    show("from the click to the first tile", time.perf_counter() - start)
    show("longest block: a run's start", clock.longest())
    wait(lambda: widget.run is None)
    seconds = time.perf_counter() - start
    assert "Done" in widget.message.text(), widget.message.text()
    show("longest block: tiles and end", clock.longest())
    rows, columns = viewer.layers[-1].data.shape
    show(f"from the click to the result, {rows} x {columns}", seconds)


def cancel(viewer: napari.Viewer, widget: UpscaleWidget, clock: Clock) -> None:
    """From the click on Cancel to the end of the worker, at several moments, with the default tile and a large one."""
    image = np.random.default_rng(0).integers(100, 4000, (1500, 1500)).astype(np.uint16)
    widget.choose_layer(viewer.add_image(image, name="large"))
    settle()
    clock.longest()
    for words, tile in ((f"tiles of {widget.facts.tile}, the default", 0), ("tiles of 4096", 4096)):
        widget.tile.setValue(tile)
        seconds = []
        for turn in range(TIMES):
            widget.run_button.click()
            wait(lambda: widget.run.total > 0)
            settle(0.5 + turn * 0.37)
            worker, start = widget.run.job.worker, time.perf_counter()
            widget.cancel_button.click()
            wait(lambda worker=worker: not worker.is_running)
            seconds.append(time.perf_counter() - start)
            wait(lambda: widget.run is None)
        show(f"from Cancel to the worker's end, the longest of {TIMES}: {words}", max(seconds))
        show("longest block meanwhile", clock.longest())


if __name__ == "__main__":
    main()
