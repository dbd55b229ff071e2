"""The script for napari's console that does what is chosen in the Upscale widget. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_vdsr.upscale.task import AUTO

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_vdsr.upscale.task import Task


def python_script(chosen: Sequence[tuple[Image, Task]], *, lazy: bool = False, targets: Sequence[str] = ()) -> str:
    """Lines that call `upscale_layer` for each layer and add what it gives."""
    calls: dict[str, list[str]] = {}
    for number, (layer, task) in enumerate(chosen):
        source = task.source
        whole = tuple(slice(0, n) for n in source.data.shape[: len(source.part)])
        options = {
            "model": task.model,
            "channel_axis": source.channel_axis,
            "part": None if source.part == whole else source.part,
            "in_range": task.in_range,
            "noise": None if task.noise == AUTO else task.noise,
            "compression": None if task.compression == AUTO else task.compression,
            "tile": task.tile,
            "device": task.device,
            "self_ensemble": task.self_ensemble or None,
            "lazy": lazy or None,
            "target": targets[number] if targets else None,
        }
        given = "".join(f", {name}={plain(value)}" for name, value in options.items() if value is not None)
        calls.setdefault(f"{task.scale:.13g}{given}", []).append(layer.name)
    lines = ["from napari.layers import Layer", "from napari_vdsr import upscale_layer", ""]
    for given, names in calls.items():
        lines.append(f"for name in {names!r}:")
        lines.append(f"    result = upscale_layer(viewer.layers[name], {given})")
        lines.append("    viewer.add_layer(Layer.create(*result))")
    return "\n".join([*lines, ""])


def plain(value: Any) -> str:
    """A value as Python source, without NumPy's types."""
    if isinstance(value, slice):
        return f"slice({value.start}, {value.stop})"
    if isinstance(value, tuple | list):
        brackets = "()" if isinstance(value, tuple) else "[]"
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return brackets[0] + ", ".join(plain(item) for item in value) + comma + brackets[1]
    return repr(value.item() if isinstance(value, np.generic) else value)
