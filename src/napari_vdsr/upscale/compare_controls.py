"""The controls of the comparison on the canvas, and what they do."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import CheckBox, Container
from napari.layers import Image
from psygnal import Signal

from napari_vdsr.canvas import find_canvas
from napari_vdsr.following import Follower
from napari_vdsr.forms import choice
from napari_vdsr.layers import image_layers, regions
from napari_vdsr.upscale.choices import Choices
from napari_vdsr.upscale.compare import BICUBIC, SOURCE, CanvasLine, Compare
from napari_vdsr.upscale.preferences import preference, remember
from napari_vdsr.upscale.queue import Batch, Queue


class CompareControls(Follower):
    """The controls of the comparison, and what they do."""

    said = Signal(str)  # why there is nothing to compare

    def __init__(self, choices: Choices, queue: Queue) -> None:
        super().__init__()
        self._choices, self._queue = choices, queue
        self.comparison: Compare | None = None
        self._showing = False
        self.on = CheckBox(name="on", label="", text="Compare: drag the line on the canvas", value=False)
        self.on.tooltip = "Shows one picture to the left of a line and another one to the right of it. (Shift+C)"
        self.left = choice("Left", "What is shown to the left of the line.", self._offer)
        self.right = choice("Right", "What is shown to the right of the line.", self._offer)
        self.container: Container[Any] = Container(widgets=[self.on, self.left, self.right])
        self.left.value = preference("left")
        self.on.changed.connect(self._switched)
        for side in (self.left, self.right):
            side.changed.connect(lambda *_: self.show())
        self.left.changed.connect(lambda side: remember(left=side) if isinstance(side, str) else None)
        self.follow((queue.ended, self._finished))
        self._switched(on=False)

    def _offer(self, box: Any) -> list[tuple[str, Any]]:
        """The sides: the newest result first on the right, the source first on the left."""
        done = [(batch.title, batch) for batch in reversed(self._queue.batches) if batch.over and batch.results]
        plain: list[tuple[str, Any]] = [("Source (nearest)", SOURCE), ("Bicubic", BICUBIC)]
        return done + plain if box.label == "Right" else plain + done

    def _finished(self, batch: Batch) -> None:
        """Offer a new result, and compare it if a comparison is on."""
        if self.comparison is not None:
            for run in batch.results:
                made = image_layers.results_of(run.layer, self._choices.viewer.layers)
                self.comparison.leave_hidden([run.layer, *(one for one in made if one is not run.result)])
        self.offer_again()
        if batch.results:
            self.right.value = batch  # which shows it

    def offer_again(self) -> None:
        """Offer the results that are still there."""
        for side in (self.left, self.right):
            side.reset_choices()
        self.show()

    def _switched(self, on: bool) -> None:
        for side in (self.left, self.right):
            side.visible = on
        self.show()

    def pairs(self) -> list[tuple[Image, Any, Any]]:
        """For each source what is on the left and on the right of the line."""
        sides = self.left.value, self.right.value
        results: list[dict[Image, Image]] = []
        for side in sides:
            runs = side.results if isinstance(side, Batch) else []
            results.append({run.layer: run.result for run in runs if run.result is not None})
        sources = next((list(found) for found in reversed(results) if found), self._choices.layers)
        here = [layer for layer in sources if layer in self._choices.viewer.layers]
        return [
            (
                layer,
                *(
                    found.get(layer, SOURCE) if isinstance(side, Batch) else side
                    for side, found in zip(sides, results, strict=True)
                ),
            )
            for layer in here
        ]

    def show(self) -> None:
        """Compare what is in view, if that is wanted."""
        if self._showing:  # layers that come and go tell of it
            return
        self._showing = True
        try:
            self._show()
        except regions.NoRegion as error:
            self.said.emit(str(error))
        finally:
            self._showing = False

    def _show(self) -> None:
        if not self.on.value:
            if self.comparison is not None:
                self.comparison.close()
            return
        if self.comparison is None:
            canvas = find_canvas(self.container.native)
            self.comparison = Compare(self._choices.viewer, CanvasLine(canvas) if canvas is not None else None)
        self.comparison.show(self.pairs(), self._choices.axis, self._scale())

    def _scale(self) -> float:
        """The scale of bicubic interpolation: that of the result beside it, if there is one."""
        for side in (self.right.value, self.left.value):
            if isinstance(side, Batch) and side.results:
                return side.results[0].task.scale
        return float(self._choices.form.scale.value)

    def belongs(self, layer: Any) -> bool:
        """Whether a layer is part of the comparison, or a source of it."""
        shown = self.comparison.shown if self.comparison is not None else []
        return layer in shown
