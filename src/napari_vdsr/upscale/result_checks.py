"""How far the last result can be trusted, and which network restores an image best."""

from __future__ import annotations

import math
from dataclasses import replace

from napari.layers import Image

from napari_vdsr.forms import set_tip
from napari_vdsr.layers import image_layers, regions
from napari_vdsr.models.library import list_networks
from napari_vdsr.upscale.choices import Choices
from napari_vdsr.upscale.condition_finder import ConditionFinder
from napari_vdsr.upscale.form import Face
from napari_vdsr.upscale.queue import Batch, Queue
from napari_vdsr.upscale.runs import Check, Run, Try

IN_VIEW = "If the result is on disk, or is computed while you look around, only the part in view is compared."
INVENTED = f"Adds a layer of what the network changed: the result minus bicubic interpolation. {IN_VIEW}"
AGREES = (
    "Adds a layer of the result, reduced to the size of the source, minus the source: where it is not zero, the result "
    "contradicts what was measured. Zero does not prove that the detail is true. A region loses its outermost pixels. "
    f"{IN_VIEW}"
)
TRY = (
    "Reduces parts of the plane and channel that are shown by the scale, lets every model upscale them back in the "
    "chosen quality, and compares each result with the original. No noise is removed here. No layer is added."
)
EXPECTED = (
    "Adds a layer of the error that is expected at each pixel, as measured on sharp images that were reduced: compared "
    f"with such an image, not with the specimen. {IN_VIEW}"
)
NOISY = 0.005  # noise, as a fraction of the range, that tells in a trial
RUN_FIRST = "Run first: this is about the last result, and needs its source."


class ResultChecks:
    """The checks of what is chosen, and of what was made last."""

    def __init__(self, choices: Choices, queue: Queue, condition_finder: ConditionFinder) -> None:
        self._choices, self._queue, self._condition_finder = choices, queue, condition_finder

    def last_results(self) -> list[Run]:
        """The results of the last run that has any, each of whose source is there."""
        return next((batch.results for batch in reversed(self._queue.batches) if batch.over and batch.results), [])

    def show_state(self, face: Face, reason: str, *, ready: bool) -> None:
        """Let the checks be used that can be; `reason` is why nothing can be run, `ready` whether networks can look."""
        checkable, no_trial = bool(self.last_results()), reason or self.why_no_trial()
        tips = (face.added_button, INVENTED), (face.agrees_button, AGREES), (face.expected_button, EXPECTED)
        for button, tip in tips:
            button.setEnabled(checkable)
            set_tip(button, tip if checkable else f"{tip} {RUN_FIRST}")
        face.original_button.setEnabled(checkable)
        face.try_button.setEnabled(not no_trial)
        set_tip(face.try_button, f"{TRY} {no_trial}")
        face.side_button.setEnabled(ready)

    def check(self, kind: str) -> Batch:
        """Compare the last result, or the one that is selected, with its source; there must be one.

        Raises
        ------
        NoRegion
            If the result is too large to be compared as a whole, and out of view.
        """
        results = self.last_results()
        active = self._active()
        last = next((run for run in results if active is not None and active in (run.result, run.layer)), results[-1])
        source = last.source if last.in_memory else self._seen(last)
        return Batch(f"Checking {last.layer.name}", [Check(last, kind, source)])

    def _seen(self, last: Run) -> image_layers.Source:
        """What is in view of a result that is too large to be looked at as a whole, or not computed yet."""
        viewer = self._choices.viewer
        plane = image_layers.current_plane(last.layer, viewer.dims.point, last.source.channel_axis)
        pairs = zip(plane.part, last.source.part, strict=True)
        part = tuple(seen if upscaled.start <= seen.start < upscaled.stop else upscaled for seen, upscaled in pairs)
        return regions.in_view(viewer, last.layer, replace(plane, part=part))

    def why_no_trial(self) -> str:
        """One sentence on why networks cannot be tried; empty if they can."""
        layer, needed = self._tried(), math.ceil(4 * self._choices.form.scale.value)
        if layer is None:
            return ""
        try:
            source, words = self._choices.shown(layer)
        except regions.NoRegion as error:
            return str(error)
        sides = [source.part[axis].stop - source.part[axis].start for axis in source.plane_axes]
        return "" if min(sides) >= needed else f"{words} is too small: at least {needed} pixels a side are needed."

    def trial(self) -> Batch:
        """Compare all networks that fit on what is shown of the selected layer, or of the first one; one is needed."""
        layer = self._tried()
        assert layer is not None
        source, words = self._choices.shown(layer)
        models = {network.name: network.model or network.name for network in list_networks()}
        chosen = self._choices.form.model.currentData()
        if chosen is not None and chosen not in models.values():
            models[image_layers.model_name(chosen)] = chosen
        task = self._choices.task(layer, source)
        noisy = max(self._condition_finder.condition.noise, default=0.0) >= NOISY
        return Batch(f"Trying {len(models)} models", [Try(layer, task, models, words, noisy=noisy)])

    def _tried(self) -> Image | None:
        active = self._active()
        return active if active in self._choices.layers else self._choices.first

    def _active(self) -> Image | None:
        return image_layers.bare(self._choices.viewer.layers.selection.active)
