"""Save an image layer, with what the layer says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_vdsr.layers.source import Source
    from vdsr_core import ImageFile

NAMES = {"t": "T", "time": "T", "z": "Z", "plane": "Z", "c": "C", "ch": "C", "channel": "C", "channels": "C"}
LARGE = 4096  # pixels along an axis, of which more are slow to look at without smaller levels
UNKNOWN = "ZTC"  # what leading axes without a name are taken for, the last one first


def write_ome_tiff(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write the finest level of an image layer, in tiles, with axes, pixel size, unit, origin and plane distance.

    Smaller levels follow where the layer has several, or is large.

    Parameters
    ----------
    path : str
        The file; a file that is there is replaced.
    data : array or list of them
        Pixels, or levels.
    meta : dict
        What napari says of the layer.

    Returns
    -------
    list of str
        The path.
    """
    from vdsr_core import write_image, write_pyramid

    pixels = data[0] if meta.get("multiscale") else data
    image = to_image_file(pixels, meta)
    if meta.get("multiscale") or max(pixels.shape) > LARGE:
        write_pyramid(path, image, overwrite=True)
    else:
        write_image(path, replace(image, data=np.asarray(pixels)), overwrite=True)
    return [path]


def write_ome_zarr(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write the finest level of an image layer and smaller ones, as `write_ome_tiff` does, into an OME-Zarr folder."""
    from vdsr_core import write_pyramid

    write_pyramid(path, to_image_file(data[0] if meta.get("multiscale") else data, meta), overwrite=True)
    return [path]


def to_image_file(pixels: Any, meta: Mapping[str, Any]) -> ImageFile:
    """Pixels of a layer, with its axes, pixel size, unit, origin and plane distance."""
    from vdsr_core import ImageFile

    axes = name_axes(pixels.ndim, meta)
    row, column = axes.index("Y"), axes.index("X")
    scale = np.abs(np.asarray(meta.get("scale", np.ones(pixels.ndim)), dtype=float))  # a mirrored axis is negative
    unit = f"{meta['units'][row]:~}" if "units" in meta else ""
    known = unit not in ("", "px", "pixel")
    extra: dict[str, Any] = {}
    if known:
        origin = np.asarray(meta.get("translate", np.zeros(len(scale))), dtype=float)
        extra["origin"] = (float(origin[row]), float(origin[column]))
        if "Z" in axes:
            extra["z_step"] = float(scale[axes.index("Z")])
    size = (float(scale[row]), float(scale[column])) if known else None
    return ImageFile(pixels, axes, size, unit if known else None, extra=extra)


def describe_source(layer: Image, source: Source) -> ImageFile:
    """What is said of a layer that is upscaled."""
    says = {name: getattr(layer, name) for name in ("rgb", "scale", "translate", "units", "axis_labels")}
    return to_image_file(source.data, says | {"metadata": {"vdsr": {"channel_axis": source.channel_axis}}})


def name_axes(ndim: int, meta: Mapping[str, Any]) -> str:
    """The letters of the axes of the pixels: by the layer's names, and by what was upscaled as channels."""
    rgb = bool(meta.get("rgb"))
    count = ndim - rgb
    labels = [str(label).lower() for label in meta.get("axis_labels", ())] or [""] * count
    channel = meta.get("metadata", {}).get("vdsr", {}).get("channel_axis")
    letters = ["C" if axis == channel else NAMES.get(label, "") for axis, label in enumerate(labels[-count:])]
    planes = [axis for axis in range(count) if letters[axis] != "C"][-2:]
    letters[planes[0]], letters[planes[1]] = "Y", "X"
    free = [letter for letter in UNKNOWN if letter not in letters]
    for axis in reversed(range(count)):
        letters[axis] = letters[axis] or (free.pop(0) if free else "Q")
    return "".join(letters) + "S" * rgb
