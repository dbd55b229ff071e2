"""What is chosen in the Upscale widget, following a viewer: layers, channels, planes, a region, a scale, a range."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from napari.layers import Image, Shapes
from napari.viewer import Viewer
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_vdsr.following import Follower
from napari_vdsr.layers import image_layers, regions
from napari_vdsr.upscale.form import BY_HAND, Form
from napari_vdsr.upscale.layer_list import LayerList
from napari_vdsr.upscale.task import Task

WHOLE, VIEW = "whole", "view"
ALL, CURRENT = "all", "current"


class Choices(Follower):
    """The form, and what it means for the layers of a viewer."""

    changed = Signal()  # another choice, or a chosen layer looks different now
    outdated = Signal()  # what was made of the chosen layers is no longer true
    moved = Signal()  # the view or a shape

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self._watching = Follower()  # of the ticked layers and of the chosen shapes
        self.layer_list = LayerList()
        self.form = Form(self.layer_list, self._offer_channels, self._offer_planes, self._offer_regions)
        self._looking_soon = False
        form = self.form
        form.recall()
        self.layer_list.ticks_changed.connect(self._ticked)
        form.scale.changed.connect(self._show_pixel_size)
        form.pixel_size.changed.connect(self._pixel_size_given)
        form.range.changed.connect(self._range_changed)
        form.channels.changed.connect(self._channels_chosen)
        controls = form.region, form.planes, form.result, form.tile, form.low, form.high, form.scale, *form.removal.rows
        for control in controls:
            control.changed.connect(lambda *_: self.changed.emit())
        form.region.changed.connect(self._watch)
        dims, camera = viewer.dims.events, regions.camera(viewer).events
        view = (camera.center, camera.zoom, dims.current_step, dims.order, dims.ndisplay)
        self.follow(*((event, self.list_layers) for event in image_layers.list_events(viewer.layers)))
        self.follow(*((event, self._view_moved) for event in view))
        self.follow((viewer.layers.selection.events.changed, self._selected))
        self.list_layers()

    def leave(self) -> None:
        """Follow the viewer no longer."""
        super().leave()
        self._watching.leave()

    # ------------------------------------------------------------------------------------ following the viewer

    def list_layers(self, event: Any = None) -> None:
        """Offer the image layers there are, keeping the ticks; without any, the first group is ticked."""
        images = [image_layers.bare(layer) for layer in self.viewer.layers if isinstance(layer, Image)]
        images = [layer for layer in images if not layer.metadata.get("vdsr", {}).keys() & {"check", "shown"}]
        self.layer_list.offer(sorted(images, key=image_layers.is_ours))  # results, which are rarely wanted, at the end
        if not self.layers:
            self.choose_layer(self.viewer.layers.selection.active)
        if not self.layers:
            self.choose_layer(next((layer for layer in images if not image_layers.is_ours(layer)), None))
        self._offer()

    def _selected(self, event: Any = None) -> None:
        """Look at the selection soon: while a layer is inserted it is another one for a moment."""
        if not self._looking_soon:
            self._looking_soon = True
            QTimer.singleShot(0, self._tick_selected)

    def _tick_selected(self) -> None:
        """Tick what is selected in the list of layers, unless it is among what is ticked."""
        self._looking_soon = False
        if not self.following:
            return
        offered = self.layer_list.layers()
        chosen = [image_layers.bare(layer) for layer in self.viewer.layers.selection]
        chosen = [layer for layer in offered if layer in chosen and not image_layers.is_ours(layer)]
        if len(chosen) == 1:
            if image_layers.group_of(chosen[0]) not in [image_layers.group_of(layer) for layer in self.layers]:
                self.choose_layer(chosen[0])
        elif chosen and chosen != self.layers:
            self.layer_list.tick(chosen)

    def choose_layer(self, layer: Any) -> None:
        """Tick a layer and the others of its file, if it can be upscaled; a result is not ticked by itself."""
        layer, offered = image_layers.bare(layer), self.layer_list.layers()
        if layer in offered and not image_layers.is_ours(layer):
            group = image_layers.group_of(layer)
            fellows = [
                other for other in offered if not image_layers.is_ours(other) and image_layers.group_of(other) == group
            ]
            self.layer_list.tick(fellows)

    @property
    def layers(self) -> list[Image]:
        """The layers that are ticked."""
        return self.layer_list.ticked()

    @property
    def first(self) -> Image | None:
        """The first of them; it says what can be chosen."""
        return next(iter(self.layers), None)

    def _ticked(self, event: Any = None) -> None:
        """Offer what other layers have, or layers with other pixels or in another place."""
        self.outdated.emit()
        self._offer()

    def _offer(self) -> None:
        """Offer what the layers have: channels and planes."""
        form = self.form
        axis = None if self._deep() is None else image_layers.choices_of_channels(self._deep())[0][1]
        before = list(form.channels.choices)
        for box in (form.channels, form.planes, form.region):
            box.reset_choices()
        if list(form.channels.choices) != before:
            form.channels.value = axis  # the likeliest is the first
        form.channels.enabled = len(form.channels.choices) > 1
        form.planes.enabled = len(form.planes.choices) > 1
        form.channels.tooltip = (
            "Each channel gets its own range of intensities."
            if form.channels.enabled
            else (
                "Read from the layer: its colours stay together."
                if self.first is not None and self.first.rgb
                else "Read from the layer: it has no axis that could hold channels."
            )
        )
        form.planes.tooltip = "Planes and times are upscaled one by one, along rows and columns only."
        self._watch()
        self._show_pixel_size()
        self._range_changed()

    def _deep(self) -> Image | None:
        """The first ticked layer that may have channels."""
        return next((layer for layer in self.layers if layer.ndim > 2 and not layer.rgb), None)

    def _offer_channels(self, box: Any) -> list[tuple[str, Any]]:
        layer = self._deep() or self.first
        return image_layers.choices_of_channels(layer) if layer is not None else [("Gray", None)]

    def _offer_planes(self, box: Any) -> list[tuple[str, Any]]:
        deep = any(layer.ndim > 2 for layer in self.layers)
        return [("All planes", ALL), ("The current plane", CURRENT)] if deep else [("One plane", ALL)]

    def _offer_regions(self, box: Any) -> list[tuple[str, Any]]:
        shapes = [image_layers.bare(layer) for layer in self.viewer.layers if isinstance(layer, Shapes)]
        named = [(f"Shape in “{layer.name}”", layer) for layer in shapes]
        return [("Whole layer", WHOLE), ("Current view", VIEW), *named]

    def _watch(self, *_: Any) -> None:
        """Follow the ticked layers, and the shapes of a chosen region."""
        self._watching.leave()
        for events in (layer.events for layer in self.layers):
            self._watching.follow((events.data, self._ticked), (events.scale, self._ticked))
        if isinstance(shapes := self.form.region.value, Shapes):
            events = shapes.events
            self._watching.follow((events.data, self._view_moved), (events.highlight, self._view_moved))

    def _view_moved(self, event: Any = None) -> None:
        self.moved.emit()

    def _channels_chosen(self, axis: int | None) -> None:
        self._show_pixel_size()
        self.outdated.emit()

    # --------------------------------------------------------------------------------- what the controls mean

    def axis(self, layer: Image) -> int | None:
        """The axis of independent channels of a layer."""
        axis = self.form.channels.value
        return axis if axis is not None and not layer.rgb and axis < layer.ndim else None

    def _pixel(self) -> tuple[float, float, str]:
        """Height, width and unit of a pixel of the first layer; nothing if it says none."""
        layer = self.first
        if layer is None or layer.ndim < (2 if self.axis(layer) is None else 3):
            return 0, 0, ""
        height, width, unit = image_layers.pixel_size(layer, image_layers.plane_axes(layer.ndim, self.axis(layer)))
        return (height, width, unit) if unit or (height, width) != (1, 1) else (0, 0, "")

    def _show_pixel_size(self, *_: Any) -> None:
        """Show what size the scale gives the pixels, if the layer says any."""
        height, width, unit = self._pixel()
        box, scale = self.form.pixel_size, self.form.scale
        box.visible = width > 0
        if width:
            with box.changed.blocked():
                box.native.setSuffix(f" {unit}" if unit else "")
                box.native.setRange(width / scale.max, width / scale.min)
                box.step, box.value = width / 20, width / scale.value
            tip = f"The pixel size of the result; it sets the scale. The layer has {width:.6g} {unit}".rstrip() + "."
            if height != width:
                tip += f"\nThis is the width; {height:.6g} in height become {height / scale.value:.6g}."
            box.tooltip = tip

    def _pixel_size_given(self, value: float) -> None:
        """Set the scale that gives the pixels this size."""
        if width := self._pixel()[1]:
            self.form.scale.value = width / value

    def _range_changed(self, *_: Any) -> None:
        """Offer the layer's own range to be changed."""
        form, layer = self.form, self.first
        given = form.range.value == BY_HAND
        if given and not form.low.enabled and layer is not None:
            limits = (0, 255) if layer.rgb and layer.dtype == np.uint8 else layer.contrast_limits_range
            form.low.value, form.high.value = map(float, limits)
        form.low.enabled = form.high.enabled = given
        self.changed.emit()

    def given_range(self) -> tuple[float, float] | None:
        """The range that the user gave; None if it is to be found."""
        return (self.form.low.value, self.form.high.value) if self.form.range.value == BY_HAND else None

    def source(self, layer: Image) -> image_layers.Source:
        """What is chosen of a layer.

        Raises
        ------
        NoRegion
            If the chosen region is not on the layer.
        """
        if self.form.planes.value == CURRENT:
            return self.in_region(layer, self.plane(layer))
        return self.in_region(layer, image_layers.whole(layer, self.axis(layer)))

    def plane(self, layer: Image) -> image_layers.Source:
        """The plane of a layer that is shown, with all of its channels."""
        return image_layers.current_plane(layer, self.viewer.dims.point, self.axis(layer))

    def shown(self, layer: Image) -> tuple[image_layers.Source, str]:
        """What is shown of the chosen region of a layer, one channel of one plane, and its name in words."""
        plane, words = self.shown_plane(layer)
        return self.in_region(layer, plane), words

    def shown_plane(self, layer: Image) -> tuple[image_layers.Source, str]:
        """The channel and plane of a layer that is shown, and its name in words."""
        plane, axis, words = self.plane(layer), self.axis(layer), f"“{layer.name}”"
        if axis is not None:
            point = np.asarray(self.viewer.dims.point)[-layer.ndim :]
            channel = min(max(round(layer.world_to_data(point)[axis]), 0), plane.data.shape[axis] - 1)
            part = list(plane.part)
            part[axis] = slice(channel, channel + 1)
            plane, words = replace(plane, part=tuple(part)), f"channel {channel} of {words}"
        return plane, words

    def in_region(self, layer: Image, source: image_layers.Source) -> image_layers.Source:
        """The chosen region of a source."""
        region = self.form.region.value
        if region == VIEW:
            return regions.in_view(self.viewer, layer, source)
        if isinstance(region, Shapes):
            return regions.in_shapes(self.viewer, layer, source, region)
        return source

    def sources(self) -> list[tuple[Image, image_layers.Source]]:
        """The layers that can be upscaled, with what is chosen of each."""
        found = []
        for layer in self.layers:
            if not image_layers.why_not(layer, self.axis(layer)):
                try:
                    found.append((layer, self.source(layer)))
                except regions.NoRegion:
                    continue
        return found

    def task(self, layer: Image, source: image_layers.Source) -> Task:
        """The work that is chosen for a layer."""
        form = self.form
        return Task(
            source,
            form.scale.value,
            model=form.model.currentData(),
            device=form.device.value,
            tile=int(form.tile.value) or None,
            in_range=self.given_range(),
            looked_at=image_layers.coarsest(layer),
            near=regions.centre_of_view(self.viewer, layer, source, form.scale.value),
            self_ensemble=form.quality.value,
            path=None if image_layers.is_ours(layer) else layer.source.path,
            **form.removal.asked,
        )

    def settings(self) -> dict[str, Any]:
        """What is chosen, layers aside, to be chosen again."""
        form = self.form
        return {"model": form.model.currentData(), **{name: box.value for name, box in self._boxes().items()}}

    def _boxes(self) -> dict[str, Any]:
        """The controls of `settings`, the model aside."""
        form, removal = self.form, self.form.removal
        names = ("scale", "quality", "tile", "range", "low", "high", "result", "keep")
        removed = {"noise": removal.noise, "level": removal.level, "compression": removal.compression}
        return {name: getattr(form, name) for name in names} | removed | {"jpeg": removal.jpeg}

    def choose(self, settings: dict[str, Any]) -> None:
        """Choose this again."""
        self.form.model.choose(settings["model"] or "")
        for name, box in self._boxes().items():
            if name in settings:
                box.value = settings[name]


def bytes_needed(source: image_layers.Source, scale: float) -> int:
    """The memory of a result."""
    return math.prod(source.result_shape(scale)) * int(np.dtype(source.data.dtype).itemsize)
