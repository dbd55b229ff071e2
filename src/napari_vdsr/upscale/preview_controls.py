"""The previews of the ticked layers, and the button that turns them on and off."""

from __future__ import annotations

import logging
from typing import Any

from napari.viewer import Viewer
from psygnal import Signal
from qtpy.QtWidgets import QPushButton

from napari_vdsr.layers import regions
from napari_vdsr.upscale import feasibility
from napari_vdsr.upscale.choices import Choices
from napari_vdsr.upscale.facts_finder import FactsFinder
from napari_vdsr.upscale.preview import Preview

LOG = logging.getLogger("napari_vdsr")


class Previews:
    """A preview of each ticked layer, as long as its button is pressed."""

    toggled = Signal(bool)  # they are wanted now, or no longer
    stepped = Signal(str)  # there is more to see; or why there is nothing
    failed = Signal(object)  # an exception of one of them

    def __init__(self, viewer: Viewer, choices: Choices, facts_finder: FactsFinder, button: QPushButton) -> None:
        self._viewer, self._choices, self._facts_finder, self._button = viewer, choices, facts_finder, button
        self.shown: list[Preview] = []
        button.toggled.connect(self._toggled)

    def _toggled(self, on: bool) -> None:
        """Begin, or take them away."""
        self.toggled.emit(on)
        if on:
            self.show()
        else:
            self.close()
            self.stepped.emit("")

    def show(self) -> None:
        """Show what the network makes of the view, if that is wanted and possible."""
        facts = self._facts_finder.facts
        if not self._button.isChecked() or facts is None or feasibility.why_nothing(self._choices):
            return
        layers = self._choices.layers
        if [preview.source_layer for preview in self.shown] != layers:
            self.close()
        try:
            sources = [regions.in_view(self._viewer, layer, self._choices.plane(layer)) for layer in layers]
        except regions.NoRegion as error:
            self.end()
            self.stepped.emit(f"There is no preview. {error}")
            return
        for number, (layer, source) in enumerate(zip(layers, sources, strict=True)):
            if number == len(self.shown):
                preview = Preview(self._viewer, layer, facts)
                preview.stepped.connect(lambda _: self.stepped.emit(""))
                preview.ended.connect(self._failed)
                self.shown.append(preview)
            self.shown[number].show(self._choices.task(layer, source))

    def _failed(self, preview: Preview, error: Exception) -> None:
        self.end()
        LOG.error("preview failed", exc_info=error)
        self.failed.emit(error)

    def stop(self) -> None:
        """Compute nothing more."""
        for preview in self.shown:
            preview.stop()

    def close(self) -> None:
        """Take the layers away; they come back with the next look if they are still wanted."""
        shown, self.shown = self.shown, []
        for preview in shown:
            preview.close()

    def end(self) -> None:
        """Show none any more."""
        self._button.setChecked(False)

    def belongs(self, layer: Any) -> bool:
        """Whether a layer is a preview, or the source of one."""
        return any(layer in (preview.layer, preview.source_layer) for preview in self.shown)

    @property
    def complete(self) -> bool:
        """Whether all tiles in view are there."""
        return bool(self.shown) and all(preview.complete for preview in self.shown)

    def words(self) -> str:
        """How far they are."""
        total, done = (sum(getattr(one, name) for one in self.shown) for name in ("total", "done"))
        if not total:
            return ""
        if self.complete:
            return "The preview of this view is complete."
        return f"Preview: {done} of {total} tiles; the rest is the interpolated image."
