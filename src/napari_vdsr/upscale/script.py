"""The script for napari's console that does what is chosen in the Upscale widget. No Qt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_vdsr.layers.source import GRAY_LOOKS, Source, coarsest, core_channels, placement

if TYPE_CHECKING:
    from napari.layers import Image

    from vdsr_core import ImageFile


def python_line(layer: Image, source: Source, *, lazy: bool = False, **options: Any) -> str:
    """A script for napari's console that does the same.

    Parameters
    ----------
    layer : Image
        The source.
    source : Source
        The part of it.
    lazy : bool, optional
        Whether the result is to be computed where one looks.
    **options
        `scale`, `model`, `in_range`, `tile` and `device`, as `super_resolve` takes them.
    """
    scale = options.pop("scale")
    arguments = {"window": source.window(scale), "channel_axis": core_channels(source), "rgb": source.rgb or None}
    given = _given(arguments | options)
    part = ", ".join(f"{p.start}:{p.stop}" for p in source.planes)
    place = placement(layer, source.factors(scale), source.start(scale))
    affine = np.asarray(place["affine"])
    level = "layer.data[0]" if layer.multiscale else "layer.data"
    names = "super_resolve"
    lines = [f"layer = viewer.layers[{layer.name!r}]"]
    if options.get("in_range") is None:  # of all planes, as the widget finds it
        names = "find_range, super_resolve"
        lines += _find_range(layer, source)
        given += ", in_range=in_range"
    if lazy:
        lines.insert(0, "import dask.array as da")
        lines.append(f"image = da.asarray({level})[{part}]")
        coarse = f"*(data[{part}] for data in layer.data)" if layer.multiscale else "image"
        lines.append(f"result = [super_resolve(image, {scale:.13g}{given}), {coarse}]")
    else:
        lines.append(f"image = {level}[{part}]")
        lines.append(f"result = super_resolve(image, {scale:.13g}{given})")
    lines = [
        *lines[:lazy],
        f"from vdsr_core import {names}",
        "",
        *lines[lazy:],
        "viewer.add_image(",
        "    result,",
        f"    name=layer.name + ' [VDSR x{scale:g}]',",
        f"    scale={_plain(place['scale'])},",
        f"    translate={_plain(place['translate'])},",
        "    rotate=layer.rotate,",
        "    shear=layer.shear,",
        "    affine=layer.affine,",
        "    units=layer.units,",
        "    axis_labels=layer.axis_labels,",
        f"    rgb={source.rgb},",
        f"    multiscale={lazy},",
    ]
    if np.array_equal(affine, np.eye(len(affine))):
        lines.remove("    affine=layer.affine,")
    if not source.rgb:
        lines += [f"    {name}=layer.{name}," for name in GRAY_LOOKS]
    return "\n".join([*lines, ")", ""])


def disk_script(layer: Image, source: Source, image: ImageFile, target: str, **options: Any) -> str:
    """The same for a result on disk.

    Parameters
    ----------
    layer, source, **options
        As in `python_line`.
    image : ImageFile
        What is said of the source; its pixels are not used.
    target : str
        The name of the OME-Zarr.
    """
    scale, in_range, device = options.pop("scale"), options.pop("in_range"), options.pop("device")
    part = ", ".join(f"{p.start}:{p.stop}" for p in source.planes)
    says = [_plain(image.axes)] + [_plain(value) for value in (image.pixel_size, image.unit) if value is not None]
    says += [f"extra={image.extra!r}"] if image.extra else []
    model = {"model": options["model"]}
    lines = [
        f"from vdsr_core import ImageFile{', find_range' if in_range is None else ''}, plan, stream",
        "",
        f"layer = viewer.layers[{layer.name!r}]",
        *(_find_range(layer, source) if in_range is None else [f"in_range = {_plain(in_range)}"]),
        f"image = ImageFile({'layer.data[0]' if layer.multiscale else 'layer.data'}[{part}], {', '.join(says)})",
        f"job = plan(image, {scale:.13g}, {target!r}, in_range=in_range{_given(options)})",
        f"for shard in stream(job, image=image{_given(model | {'device': device})}):",
        "    print(f'level {shard.level}, shard {shard.index}')",
    ]
    return "\n".join([*lines, ""])


def _find_range(layer: Image, source: Source) -> list[str]:
    """The lines that find the range of all planes, as the widget does."""
    looked_at = "layer.data[-1]" if layer.multiscale else "layer.data"
    channels = core_channels(replace(source, data=coarsest(layer)))
    said = _given({"channel_axis": channels, "rgb": source.rgb or None})
    lines = [f"in_range = find_range({looked_at}{said})"]
    if channels != source.channel_axis:
        lines.append("in_range = min(low for low, _ in in_range), max(high for _, high in in_range)")
    return lines


def _given(arguments: Mapping[str, Any]) -> str:
    """Arguments of a call, after others, without those that are None."""
    return "".join(f", {name}={_plain(value)}" for name, value in arguments.items() if value is not None)


def _plain(value: Any) -> str:
    """A value as Python source, without NumPy's types."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, slice):
        return f"slice({value.start}, {value.stop})"
    if isinstance(value, tuple | list):
        brackets = "()" if isinstance(value, tuple) else "[]"
        return brackets[0] + ", ".join(_plain(item) for item in value) + brackets[1]
    return repr(value.item() if isinstance(value, np.generic) else value)
