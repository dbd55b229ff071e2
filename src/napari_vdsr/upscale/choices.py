"""What is chosen in the Upscale widget: a layer, its channels, planes and region, a scale, a range."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Shapes
from napari.viewer import Viewer
from qtpy.QtCore import QTimer, Signal  # type: ignore[attr-defined]

from napari_vdsr.layers import regions as _regions
from napari_vdsr.layers import source as _layers
from napari_vdsr.upscale import work as _upscaling
from napari_vdsr.upscale.form import UpscaleForm

SETTLED = 300  # milliseconds without a move after which a view is looked at
WHOLE, VIEW = "whole", "view"


class UpscaleChoices(UpscaleForm):
    """The choices, following the layers of a viewer.

    Parameters
    ----------
    viewer : Viewer
        Whose layers are offered.

    Attributes
    ----------
    changed : Signal
        Another choice, or the chosen layer looks different now.
    outdated : Signal
        What was made of the chosen layer is no longer true.
    settling : QTimer
        Runs out when the view, or a shape, stands still.
    """

    changed = Signal()
    outdated = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self._ranges: dict[tuple[Any, ...], _upscaling.Found] = {}  # found once for each layer
        self._watched: Image | None = None  # the chosen layer
        self._shapes: Shapes | None = None  # the chosen region
        self.settling = QTimer(self)
        self.settling.setInterval(SETTLED)
        self.settling.setSingleShot(True)
        self.layer.currentIndexChanged.connect(self._layer_changed)
        self.range.currentIndexChanged.connect(self._range_changed)
        self.scale.valueChanged.connect(self._show_pixel_size)
        self.scale.valueChanged.connect(self.trial.hide)  # it was for another scale
        self.pixel_size.valueChanged.connect(self._pixel_size_given)
        self.region.currentIndexChanged.connect(self._region_chosen)
        for control in (self.scale, self.tile):
            control.valueChanged.connect(self.changed)
        for combo in (self.channels, self.planes, self.result):
            combo.currentIndexChanged.connect(self.changed)
        for edit in (self.low, self.high):
            edit.textChanged.connect(self.changed)
        dims, camera = viewer.dims.events, _regions.camera(viewer).events
        connections: list[tuple[Any, Any]] = [
            (event, self._list_layers) for event in _layers.list_events(viewer.layers)
        ]
        view = (camera.center, camera.zoom, dims.current_step, dims.order, dims.ndisplay)
        connections += [(event, self._view_moved) for event in view]
        self._connect_to_viewer(connections)

    def _connect_to_viewer(self, connections: list[tuple[Any, Any]]) -> None:
        """Follow events of the viewer, which outlives the widget."""
        for event, callback in connections:
            event.connect(callback)
        self.destroyed.connect(partial(_disconnect, connections))

    def passing_layers(self) -> list[Image | None]:
        """Layers of the widget's own that are not offered."""
        return []

    def _list_layers(self, event: Any = None) -> None:
        """Offer the image layers there are, keeping the choice."""
        chosen = self.layer.currentData()
        self._list_regions()
        images = [_layers.bare(layer) for layer in self.viewer.layers if isinstance(layer, Image)]
        passing = self.passing_layers()
        images = [layer for layer in images if layer not in passing]
        self.layer.blockSignals(True)
        self.layer.clear()
        for layer in images:
            self.layer.addItem(layer.name, layer)
        if chosen in images:
            self.layer.setCurrentIndex(images.index(chosen))
        self.layer.blockSignals(False)
        if self.layer.currentData() is not chosen or chosen is None:
            self._layer_changed()
        else:
            self.changed.emit()

    def _list_regions(self) -> None:
        """Offer the view and the Shapes layers there are, keeping the choice."""
        chosen = self.region.currentData()
        shapes = [_layers.bare(layer) for layer in self.viewer.layers if isinstance(layer, Shapes)]
        choices: list[tuple[str, Any]] = [("Whole layer", WHOLE), ("Current view", VIEW)]
        choices += [(f"Shape in “{layer.name}”", layer) for layer in shapes]
        self.region.blockSignals(True)
        self.region.clear()
        for words, data in choices:
            self.region.addItem(words, data)
        found = [i for i, (_, data) in enumerate(choices) if data == chosen]
        self.region.setCurrentIndex(found[0] if found else 0)
        self.region.blockSignals(False)
        if self.region.currentData() != chosen:
            self._region_chosen()

    def _region_chosen(self) -> None:
        """Follow the shapes of a chosen layer."""
        if self._shapes is not None:
            self._shapes.events.data.disconnect(self._view_moved)
            self._shapes.events.highlight.disconnect(self._view_moved)
        region = self.region.currentData()
        self._shapes = region if isinstance(region, Shapes) else None
        if self._shapes is not None:
            self._shapes.events.data.connect(self._view_moved)
            self._shapes.events.highlight.connect(self._view_moved)
        self.changed.emit()

    def _view_moved(self, event: Any = None) -> None:
        """Wait until the view, or a shape, stands still."""
        self.settling.start()

    def choose_layer(self, layer: Any) -> None:
        """Choose a layer if it is one that can be upscaled; a result is not chosen by itself."""
        for index in range(self.layer.count()):
            if self.layer.itemData(index) is _layers.bare(layer):
                self.layer.setCurrentIndex(index)
        if isinstance(layer, Labels):
            self.say(f"“{layer.name}” is a Labels layer: its numbers name objects and cannot be interpolated.")

    def _layer_changed(self) -> None:
        """Offer what the layer has: channels and planes."""
        layer = self.layer.currentData()
        if self._watched is not None:
            self._watched.events.data.disconnect(self._data_changed)
            self._watched.events.scale.disconnect(self._placement_changed)
        if layer is not None:
            layer.events.data.connect(self._data_changed)
            layer.events.scale.connect(self._placement_changed)
        self._watched = layer
        for combo in (self.channels, self.planes):
            combo.blockSignals(True)
            combo.clear()
        choices = _layers.choices_of_channels(layer) if layer is not None else []
        for words, axis in choices:
            self.channels.addItem(words, axis)
        self.channels.setEnabled(len(choices) > 1)
        self.channels.setToolTip(
            "Each channel gets a range of its own."
            if len(choices) > 1
            else "Read from the layer: it has no axis that could hold channels."
        )
        stack = layer is not None and layer.ndim > 2
        self.planes.addItem("All planes" if stack else "One plane", "all")
        if stack:
            self.planes.addItem("The current plane", "current")
        self.planes.setEnabled(stack)
        self.planes.setToolTip(
            "Planes and times are upscaled one by one, along rows and columns only."
            if stack
            else "The layer has rows and columns only."
        )
        for combo in (self.channels, self.planes):
            combo.blockSignals(False)
        self._show_pixel_size()
        self.trial.hide()
        self.changed.emit()

    def _placement_changed(self, event: Any = None) -> None:
        """The layer lies elsewhere now."""
        self.outdated.emit()
        self._show_pixel_size()
        self.changed.emit()

    def _pixel(self) -> tuple[float, float, str]:
        """Height, width and unit of a pixel of the layer; nothing if it says none."""
        layer = self.layer.currentData()
        if layer is None or layer.ndim < (2 if self.channels.currentData() is None else 3):
            return 0, 0, ""
        height, width, unit = _layers.pixel_size(layer, _layers.plane_axes(layer.ndim, self.channels.currentData()))
        return (height, width, unit) if unit or (height, width) != (1, 1) else (0, 0, "")

    def _show_pixel_size(self) -> None:
        """Show what size the scale gives the pixels."""
        height, width, unit = self._pixel()
        self.pixel_size.blockSignals(True)
        self.pixel_size.setEnabled(width > 0)
        self.pixel_size.setSuffix(f" {unit}" if unit else "")
        self.pixel_size.setSpecialValueText("" if width else "\u2013")
        if width:
            self.pixel_size.setRange(width / self.scale.maximum(), width / self.scale.minimum())
            self.pixel_size.setSingleStep(width / 20)
            self.pixel_size.setValue(width / self.scale.value())
            tip = f"The pixel size of the result; it sets the scale. The layer has {width:.6g} {unit}".rstrip() + "."
            if height != width:
                tip += f"\nThis is the width; {height:.6g} in height become {height / self.scale.value():.6g}."
        else:
            self.pixel_size.setRange(0, 0)
            tip = "The layer says no pixel size: neither its scale nor its units are set."
        self.pixel_size.setToolTip(tip)
        self.pixel_size.blockSignals(False)

    def _pixel_size_given(self, value: float) -> None:
        """Set the scale that gives the pixels this size."""
        self.scale.setValue(self._pixel()[1] / value)

    def _data_changed(self, event: Any = None) -> None:
        """Forget what was found in the old pixels; napari tells of new values in the same array here, too."""
        if self._watched is not None:
            self.forget_ranges(self._watched)
            self.outdated.emit()
            self._layer_changed()

    def forget_ranges(self, layer: Image) -> None:
        """Forget the ranges that were found in a layer."""
        for key in [key for key in self._ranges if key[0] == layer.unique_id]:
            del self._ranges[key]

    def _range_changed(self) -> None:
        given = self.range.currentIndex() == 1
        self.low.setEnabled(given)
        self.high.setEnabled(given)
        self.changed.emit()

    def given_range(self) -> tuple[float, float] | None:
        """The range that the user gave; None if it is to be found.

        Raises
        ------
        ValueError
            If it is no range.
        """
        if self.range.currentIndex() == 0:
            return None
        low, high = float(self.low.text()), float(self.high.text())
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError
        return low, high

    def bad_range(self) -> bool:
        """Whether the given range cannot be used."""
        try:
            self.given_range()
        except ValueError:
            return True
        return False

    def source(self) -> _layers.Source:
        """What is chosen to be upscaled; there must be a layer.

        Raises
        ------
        NoRegion
            If the chosen region is not on the layer.
        """
        layer = self.layer.currentData()
        axis = self.channels.currentData()
        if self.planes.currentData() == "current":
            source = _layers.current_plane(layer, self.viewer.dims.point, axis)
        else:
            source = _layers.whole(layer, axis)
        return self.in_region(source)

    def source_or_none(self) -> _layers.Source | None:
        """What is chosen, if it can be upscaled."""
        layer = self.layer.currentData()
        if layer is None or _layers.why_not(layer, self.channels.currentData()):
            return None
        try:
            return self.source()
        except _regions.NoRegion:
            return None

    def in_region(self, source: _layers.Source) -> _layers.Source:
        """The chosen region of a source."""
        layer, region = self.layer.currentData(), self.region.currentData()
        if region == WHOLE:
            return source
        if region == VIEW:
            return _regions.in_view(self.viewer, layer, source)
        return _regions.in_shapes(self.viewer, layer, source, region)

    def task(self, source: _layers.Source) -> _upscaling.Task:
        """The work that is chosen."""
        layer = self.layer.currentData()
        return _upscaling.Task(
            source,
            self.scale.value(),
            model=self.model.currentData(),
            device=self.device.currentData(),
            tile=self.tile.value() or None,
            in_range=self.given_range() or self.known_range(layer, source),
            looked_at=_layers.coarsest(layer),
            near=_regions.centre_of_view(self.viewer, layer, source, self.scale.value()),
        )

    def bytes_needed(self, source: _layers.Source) -> int:
        """The memory of the result."""
        return math.prod(source.result_shape(self.scale.value())) * int(np.dtype(source.data.dtype).itemsize)

    def keep_range(self, layer: Image, found: _upscaling.Found | None) -> None:
        """Use a range that was found for all that is made of the layer."""
        if found is not None and layer in self.viewer.layers:
            self._ranges[layer.unique_id, found.source.channel_axis] = found

    def known_range(self, layer: Image, source: _layers.Source) -> _upscaling.Ranges | None:
        """The range that was found in the pixels that the layer has now."""
        found = self._ranges.get((layer.unique_id, source.channel_axis))
        return found.in_range if found is not None and found.source.data is source.data else None


def _disconnect(connections: list[tuple[Any, Any]]) -> None:
    """Leave a viewer that outlives the widget."""
    for event, callback in connections:
        event.disconnect(callback)
