"""Save an image layer, with what the layer says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_vdsr.layers.reader import prefer_own_reader

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_vdsr.layers.image_layers import Source
    from vdsr_core import ImageFile

NAMES = {"t": "T", "time": "T", "z": "Z", "plane": "Z", "c": "C", "ch": "C", "channel": "C", "channels": "C"}
KEPT = (  # of a layer, beside colours and units
    "name", "rgb", "scale", "translate", "rotate", "shear", "affine", "axis_labels", "contrast_limits", "gamma",
    "blending", "opacity", "interpolation2d", "interpolation3d", "rendering", "visible",
)  # fmt: skip
UNKNOWN = "ZTC"  # what leading axes without a name are taken for, the last one first


def write_ome_tiff(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write the finest level of an image layer, in tiles, with axes, pixel size, unit, origin and plane distance.

    Smaller levels follow where the layer has several, or is large. A file that is there is replaced. `data` are pixels,
    or a list of levels; `meta` is what napari says of the layer.
    """
    from vdsr_core import write_image, write_pyramid

    prefer_own_reader()
    image = with_layer(to_image_file(data[0] if meta.get("multiscale") else data, meta), meta)
    if set(image.axes) <= set("TCZYXS"):
        write_pyramid(path, image, overwrite=True)
    else:
        write_image(path, replace(image, data=np.asarray(image.data)), overwrite=True)
    return [path]


def write_ome_zarr(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write the finest level of an image layer and smaller ones, as `write_ome_tiff` does, into an OME-Zarr folder."""
    from vdsr_core import write_pyramid

    prefer_own_reader()
    image = to_image_file(data[0] if meta.get("multiscale") else data, meta)
    write_pyramid(path, with_layer(image, meta), overwrite=True)
    return [path]


def with_layer(image: ImageFile, meta: Mapping[str, Any]) -> ImageFile:
    """An image that also says, for `reader`, what layer it was and how that was made."""
    says = {name: meta[name] for name in KEPT if name in meta} | {"axes": image.axes}
    if "units" in meta:
        says["units"] = [f"{unit:~}" for unit in meta["units"]]
    if not meta.get("rgb") and "colormap" in meta:
        says["colormap"] = {"colors": meta["colormap"]["colors"], "name": meta["colormap"]["name"]}
    known = {"vdsr": meta.get("metadata", {}).get("vdsr", {}), "napari": says}
    plain = json.loads(json.dumps(known, default=lambda value: np.asarray(value).tolist()))
    return replace(image, extra={**image.extra, "provenance": plain})


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
