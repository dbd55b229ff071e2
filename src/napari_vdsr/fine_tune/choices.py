"""What is chosen in the Fine-tune widget, following the layers of a viewer, and what it would cost."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Shapes
from napari.viewer import Viewer
from psygnal import Signal

from napari_vdsr.fine_tune.data import KINDS, Data, image_files, rectangles, shape_of
from napari_vdsr.fine_tune.form import FOLDER, GIVEN, LAYERS, PAIRS, Form
from napari_vdsr.fine_tune.recipe import (
    LENGTHS,
    NEW,
    Recipe,
    count_threads,
    estimate_seconds,
    held_out_pixels,
    with_length,
)
from napari_vdsr.fine_tune.unfinished import is_at_work, list_unfinished
from napari_vdsr.following import Follower
from napari_vdsr.forms import refill
from napari_vdsr.layers import image_layers
from napari_vdsr.models import library
from napari_vdsr.upscale.layer_list import LayerList
from napari_vdsr.words import TIMES, duration, size
from vdsr_core import FineTuneConfig, free_memory

RATE = FineTuneConfig.learning_rate  # for a network that was trained before
NEW_RATE = 1e-3  # for a new one
SMALLEST = 32  # pixels of the shorter side: a patch and a tested patch
BYTES = 4.0  # of a pixel in training, for the sharp image and for each scale
NO_IMAGE = "Open an image first, such as File > Open Sample > U2OS cells."
NO_SCALES = "Give the scales as numbers from 1.1 to 32, such as 2, 3, 4."


class Choices(Follower):
    """The form, and what it means for the layers of a viewer."""

    changed = Signal()  # something else is chosen

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.speed: float | None = None  # seconds of training for each pixel of a patch, once that is known
        self._model_given = False  # by the user, not by what the layers are
        self.layers = LayerList()
        self.form = form = Form(self.layers, self._offer_parts, self._offer_channels, self._offer_lengths)
        form.layers.ticks_changed.connect(self._ticked)
        form.pairs.changed.connect(self._emit)
        form.kind.changed.connect(self._emit)
        form.low_side.changed.connect(self._emit)
        form.length.changed.connect(self._length_chosen)
        for box in form.of_length.values():
            box.changed.connect(self._steps_given)
        controls: list[Any] = [form.part, form.channels, form.folder, form.scales, form.name, form.blur, form.noise]
        for control in [*controls, form.rate, form.theta, form.patch, form.hold_out, form.seed]:
            control.changed.connect(self._emit)
        self.follow(*((event, self._list_layers) for event in image_layers.list_events(viewer.layers)))
        form.length.value = "Good"
        form.set_length("Good")
        self._list_layers()
        self.choose_layer(viewer.layers.selection.active)
        self.propose_name()

    def _emit(self, *_: Any) -> None:
        self.form.show_kind()
        self.changed.emit()

    # ------------------------------------------------------------------------------------ following the viewer

    def _list_layers(self, event: Any = None) -> None:
        """Offer the image layers there are, results of this plugin aside, keeping what is ticked and chosen."""
        images = [image_layers.bare(layer) for layer in self.viewer.layers if isinstance(layer, Image)]
        images = [layer for layer in images if not image_layers.is_ours(layer)]
        self.layers.offer(images)
        self.form.pairs.offer(images)
        refill(self.form.part)
        self._ticked()

    def choose_layer(self, layer: Any) -> None:
        """Tick a layer and the others of its file; without any, the first: results of this plugin are not offered."""
        layer, offered = image_layers.bare(layer), self.layers.layers()
        if layer not in offered and not self.layers.ticked():
            layer = next(iter(offered), None)
        if layer in offered:
            group = image_layers.group_of(layer)
            self.layers.tick([other for other in offered if image_layers.group_of(other) == group])

    def _ticked(self) -> None:
        """Offer the axes of channels of the layers, and the network that is made for such images."""
        channels = self.form.channels
        before = list(channels.choices)
        refill(channels)
        if list(channels.choices) != before:
            channels.value = self._offer_channels(None)[0][1]  # the likeliest is the first
        channels.enabled = len(channels.choices) > 1
        layers = self.layers.ticked()
        if layers and not self._model_given:
            deep = all(not layer.rgb and np.dtype(layer.dtype).itemsize > 1 for layer in layers)
            self.form.model.choose("microscopy" if deep else None)
        self._emit()

    def _offer_parts(self, box: Any) -> list[tuple[str, Any]]:
        shapes = [image_layers.bare(layer) for layer in self.viewer.layers if isinstance(layer, Shapes)]
        return [("The whole layers", None), *((f"Rectangles of “{layer.name}”", layer) for layer in shapes)]

    def _offer_channels(self, box: Any) -> list[tuple[str, Any]]:
        deep = [layer for layer in self.layers.ticked() if layer.ndim > 2 and not layer.rgb]
        return image_layers.choices_of_channels(deep[0]) if deep else [("Gray", None)]

    def _offer_lengths(self, box: Any) -> list[tuple[str, Any]]:
        """The lengths, each with its time once the speed is known."""
        words = {length: length for length in (*LENGTHS, GIVEN)}
        if self.speed is not None:
            try:
                recipe, data = self.recipe(), self.data()
            except ValueError:
                return [(shown, length) for length, shown in words.items()]
            held_out = held_out_pixels(data, recipe.config.hold_out)
            for length in LENGTHS:
                seconds = estimate_seconds(with_length(recipe, length), self.speed, held_out)
                words[length] += f", {duration(seconds)}"
        return [(shown, length) for length, shown in words.items()]

    def _length_chosen(self, length: str | None) -> None:
        self.form.set_length(length or GIVEN)
        self._emit()

    def _steps_given(self, *_: Any) -> None:
        self.form.length.value = GIVEN
        self._emit()

    def model_chosen(self) -> None:
        """The user has chosen where to start: a new network learns faster at first."""
        self._model_given = True
        if self.form.rate.value in (RATE, NEW_RATE):
            self.form.rate.value = NEW_RATE if self.form.model.currentData() == NEW else RATE

    def propose_name(self) -> None:
        """A name for the next network that is not taken."""
        chosen = self.layers.ticked()
        clean = library.clean_name(f"{chosen[0].name} fine-tuned" if chosen else "fine-tuned")
        taken, found, number = list_unfinished(), clean, 1
        while found in taken or is_at_work(found) or library.free_name(found) != found:
            number += 1
            found = f"{clean} {number}"
        self.form.name.value = found

    # --------------------------------------------------------------------------------- what the controls mean

    def data(self) -> Data:
        """What is chosen to learn from; if that cannot be learnt from, a ValueError says why in one sentence."""
        kind = self.form.kind.value
        if kind == FOLDER:
            return Data(folder=self._folder())
        if kind == PAIRS:
            return Data(pairs=self._pairs())
        layers = {layer.name: layer for layer in self.layers.ticked()}
        if not layers:
            raise ValueError("Tick at least one layer to learn from." if self.layers.layers() else NO_IMAGE)
        sources = {name: self._whole(layer) for name, layer in layers.items()}
        shapes = self.form.part.value
        if shapes is not None:
            sources = {
                f"{name}, rectangle {number}": part
                for name, source in sources.items()
                for number, part in enumerate(rectangles(layers[name], source, shapes), 1)
            }
        return Data(sources)

    def _pairs(self) -> dict[str, tuple[image_layers.Source, image_layers.Source]]:
        """The chosen pairs, by the names of their layers."""
        pairs: dict[str, tuple[image_layers.Source, image_layers.Source]] = {}
        for low, sharp in self.form.pairs.chosen():
            both = (self._whole(low), self._whole(sharp))
            if low is sharp:
                msg = "Choose two layers: a blurred one and a sharp one of the same field of view."
                raise ValueError(msg)
            if any(sharp.name == other.name for _, other in pairs.values()):
                msg = f"“{sharp.name}” is the sharp layer of two pairs: leave one of them out."
                raise ValueError(msg)
            pairs[f"“{low.name}” and “{sharp.name}”"] = both
        return pairs

    def _whole(self, layer: Image | None) -> image_layers.Source:
        """All of a layer; a ValueError if it cannot be learnt from."""
        if layer is None:
            raise ValueError(NO_IMAGE)
        axis = self.form.channels.value if layer.ndim > 2 and not layer.rgb else None
        axis = axis if axis is not None and axis < layer.ndim else None
        if reason := image_layers.why_not(layer, axis):
            raise ValueError(reason)
        return image_layers.whole(layer, axis)

    def _folder(self) -> str:
        path = Path(str(self.form.folder.value)).expanduser()
        if self.form.folder.value is None or not path.is_dir():
            msg = "Choose a folder of images."
            raise ValueError(msg)
        if not image_files(path):
            msg = f"“{path.name}” holds no images: {', '.join(KINDS)} are looked for."
            raise ValueError(msg)
        return str(path)

    def recipe(self) -> Recipe:
        """How to train, as chosen; a ValueError if the scales are not numbers from 1.1 to 32."""
        form = self.form
        theta = form.theta.value or None
        config = FineTuneConfig(
            scales=read_scales(form.scales.value),
            blur=form.blur.value if form.camera else 0.0,
            added_noise=form.noise.value / 100 if form.camera else 0.0,
            learning_rate=form.rate.value,
            optimizer=FineTuneConfig.optimizer if theta is None else "adamw",  # clips; Muon's steps have a fixed size
            theta=theta,
            patch=form.patch.value,
            hold_out=form.hold_out.value / 100,
            strips=form.kind.value != FOLDER,
            seed=form.seed.value,
            **{name: box.value for name, box in form.of_length.items()},
        )
        model, device = form.model.currentData(), form.device.value
        return Recipe(form.name.value, config, model, threads=count_threads(), device=device)

    def why_not(self) -> str:
        """One sentence on why a training cannot begin; empty if it can."""
        try:
            data, recipe = self.data(), self.recipe()
        except ValueError as error:
            return str(error)
        sharp = [*data.sources.items(), *((high.name, high) for _, high in data.pairs.values())]
        least = max(SMALLEST, math.ceil(4 * max(recipe.scales)))
        for name, source in sharp:
            rows, columns = (shape_of(source)[axis] for axis in source.plane_axes)
            if min(rows, columns) < least:
                return f"“{name}” has {rows} {TIMES} {columns} pixels: at least {least} a side are needed."
        needed = sum(math.prod(shape_of(source)) for _, source in sharp) * BYTES * (2 + len(recipe.scales))
        free = free_memory()
        if needed > free:
            return (
                f"The training needs about {size(needed)}, and {size(free)} of memory are free. Draw "
                "rectangles in a Shapes layer and learn from them."
            )
        try:
            library.check_name(recipe.name)
        except (ValueError, FileExistsError) as error:
            return str(error)
        if is_at_work(recipe.name):
            return f"Another napari is training “{recipe.name}”: wait for it, or choose another name."
        if recipe.name in list_unfinished():
            return f"There is an unfinished training “{recipe.name}”: resume it, discard it, or choose another name."
        return ""

    def estimate(self) -> str:
        """What will be learnt, and how long that takes."""
        try:
            recipe, data = self.recipe(), self.data()
        except ValueError:
            return ""
        *others, last = (f"{TIMES}{scale:g}" for scale in recipe.scales)
        scales = f"{', '.join(others)} and {last}" if others else last
        words = f"Learns to enlarge by {scales}. " if self.form.kind.value != PAIRS else ""
        if self.speed is None:
            return f"{words}Time: measuring…"
        seconds = estimate_seconds(recipe, self.speed, held_out_pixels(data, recipe.config.hold_out))
        return f"{words}Time: at most about {duration(seconds)}; less if nothing better is found."

    @property
    def measured_layer(self) -> image_layers.Source | None:
        """The first layer, in which blur and noise can be measured."""
        try:
            return next(iter(self.data().sources.values())) if self.form.kind.value == LAYERS else None
        except (ValueError, StopIteration):
            return None


def read_scales(text: str) -> tuple[float, ...]:
    """The scales in a text: separated by spaces, semicolons or commas; a comma before a digit may be a decimal one.

    A ValueError says that they must be numbers from 1.1 to 32.

    Examples
    --------
    >>> read_scales("2, 3, 4"), read_scales("2,3,4"), read_scales("1,5; 2"), read_scales("2,5"), read_scales("1.5 2")
    ((2.0, 3.0, 4.0), (2.0, 3.0, 4.0), (1.5, 2.0), (2.5,), (1.5, 2.0))
    """
    words = re.split(r"[;\s]+|,\s+", text.strip(" ,;"))
    scales: set[float] = set()
    try:
        for word in words:
            parts = word.split(",")
            scales |= {float(word.replace(",", "."))} if len(parts) == 2 else {float(part) for part in parts}
    except ValueError:
        raise ValueError(NO_SCALES) from None
    if not all(1.1 <= scale <= 32 for scale in scales):
        raise ValueError(NO_SCALES)
    return tuple(sorted(scales))
