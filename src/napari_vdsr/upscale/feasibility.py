"""What a run would give and cost, why there can be none, and what is worth knowing before it. No Qt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from napari.layers import Image, Labels
from napari.settings import get_settings

from napari_vdsr.background.pytorch import Facts
from napari_vdsr.layers import image_layers, regions
from napari_vdsr.upscale import disk
from napari_vdsr.upscale.choices import WHOLE, Choices, bytes_needed
from napari_vdsr.upscale.form import DISK, LAZY, MEMORY
from napari_vdsr.words import TIMES, duration, size
from vdsr_core import free_memory

LONG = 600  # seconds


def why_nothing(choices: Choices) -> str:
    """One sentence on why no part of the layers can be upscaled; empty if some can."""
    if not choices.layer_list.layers():
        if any(isinstance(other, Labels) for other in choices.viewer.layers):
            return "There is no image layer: a Labels layer names objects and cannot be interpolated."
        return "Open an image first, such as File > Open Sample > U2OS cells."
    if not choices.layers:
        return "Tick at least one layer."
    for layer in choices.layers:
        if reason := image_layers.why_not(layer, choices.axis(layer)):
            return reason
    given = choices.given_range()
    if given is not None and given[0] >= given[1]:
        return "Black must be below white: change them, or choose Automatic."
    return ""


def why_not(choices: Choices) -> str:
    """One sentence on why Run is disabled; empty if it is not."""
    if reason := why_nothing(choices):
        return reason
    kind = choices.form.result.value
    try:
        needed = sum(bytes_needed(choices.source(layer), choices.form.scale.value) for layer in choices.layers)
    except regions.NoRegion as error:
        return str(error)
    if kind != MEMORY and choices.form.region.value != WHOLE:
        words = "result that is computed while you look around" if kind == LAZY else "result on disk"
        return f"A {words} is always of the whole layer: choose Whole layer under Region."
    if kind == LAZY and not get_settings().experimental.async_:
        return "napari would freeze while it computes what you look at: allow background drawing, below."
    if kind == MEMORY and needed > (free := free_memory()):
        way = "a region, the current plane" if choices.form.planes.enabled else "a region"
        return (
            f"The result needs {size(needed)}, and {size(free)} of memory are free. Save it to disk, "
            f"or choose {way}, a smaller scale, or under Advanced a result that is computed while you look around."
        )
    return ""


def lacks_memory(choices: Choices) -> bool:
    """Whether the result on disk is the way out."""
    form = choices.form
    if form.result.value != MEMORY or form.region.value != WHOLE or why_nothing(choices):
        return False
    needed = sum(bytes_needed(source, form.scale.value) for _, source in choices.sources())
    return needed > free_memory()


def count_seconds(choices: Choices, facts: Facts) -> float:
    """How long the run takes."""
    form = choices.form
    tile = int(form.tile.value) or (disk.TILE if form.result.value == DISK else facts.tile)
    return sum(facts.seconds(source, form.scale.value, tile) for _, source in choices.sources())


def estimate(choices: Choices, facts: Facts | None, trouble: str, *, busy: bool) -> str:
    """Shape, dtype, memory and time of the results; while work is under way, no speed can be measured."""
    chosen = choices.sources()
    if not chosen:
        return ""
    form, source = choices.form, chosen[0][1]
    shape = f" {TIMES} ".join(f"{n:,}" for n in source.result_shape(form.scale.value))
    needed = size(sum(bytes_needed(source, form.scale.value) for _, source in chosen))
    words = f"{shape}, {np.dtype(source.data.dtype).name}"
    if len(chosen) == 1:
        words = f"Result: {words}, {needed}"
    else:
        alike = len({one.result_shape(form.scale.value) for _, one in chosen}) == 1
        words = f"{len(chosen)} results{f' of {words}' if alike else ''}, {needed} in all"
    if form.result.value == LAZY:
        return f"{words}\nComputed where you look"
    if facts is None:
        return words if trouble else f"{words}\nTime: {'known when the current work is done' if busy else 'measuring…'}"
    seconds = count_seconds(choices, facts)
    about = "less than a second" if seconds < 1 else f"about {duration(seconds)}"
    return f"{words}\nTime: {about}"


def caution(choices: Choices, facts: Facts | None, fast: Facts | None) -> str:
    """What is worth knowing before a run: a scale beyond training, a long time; empty if nothing is."""
    if facts is None or not choices.sources():
        return ""
    scale = choices.form.scale.value
    again = [layer.name for layer in choices.layers if image_layers.is_ours(layer)]
    words = [f"“{again[0]}” is a result itself: predicted detail would be upscaled again."] if again else []
    if facts.scales and not min(facts.scales) <= scale <= max(facts.scales):
        words.append(
            f"The model was trained for {TIMES}{min(facts.scales):g} to {TIMES}{max(facts.scales):g}: "
            f"at {TIMES}{scale:g} it is hardly better than interpolation, and may invent structures."
        )
    if choices.form.result.value != LAZY and (seconds := count_seconds(choices, facts)) > LONG:
        other = count_seconds(choices, fast) if fast else seconds
        way = f"; the model “fast” would take {duration(other)}" if other < seconds else ""
        words.append(f"This takes about {duration(seconds)}{way}. Try a region first.")
    return " ".join(words)


def propose(layers: Sequence[Image], model: str | None, names: Sequence[str]) -> str:
    """The network that suits the layers better than the chosen one; empty if none does."""
    deep = [not layer.rgb and np.dtype(layer.dtype).itemsize > 1 for layer in layers]
    return "microscopy" if model is None and "microscopy" in names and deep and all(deep) else ""
