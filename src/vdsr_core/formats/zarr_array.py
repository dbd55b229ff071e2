"""Read and write zarr arrays."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vdsr_core.formats.image_file import SECONDS, ImageFile, inside, refuse, unify_unit
from vdsr_core.formats.losses import warn_of_loss
from vdsr_core.formats.ome_zarr import group_attributes, multiscale_of

if TYPE_CHECKING:
    import zarr

_LETTERS = {
    "time": "T", "channel": "C", "channels": "C", "plane": "Z", "depth": "Z",
    "row": "Y", "rows": "Y", "column": "X", "columns": "X", "sample": "S", "rgb": "S",
}  # fmt: skip

_FIRST_AXES = "tczyx"  # of OME-Zarr 0.1 and 0.2, which do not name them
_DEEPEST = 3  # parts of the path of an array inside its OME-Zarr group


def is_zarr(path: Path) -> bool:
    """Whether there is a zarr array or group at `path`."""
    return any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))


def read_zarr(path: Path) -> ImageFile:
    """Read a zarr array, lazily."""
    import zarr

    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Group) and (datasets := multiscale_of(node.attrs.asdict()).get("datasets")):
        path = inside(path, datasets[0]["path"])
        node = zarr.open_array(str(path), mode="r")
    if isinstance(node, zarr.Array):
        node = open_array(str(path))
    else:
        refuse(_describe_group(path, node))
    if node.dtype.kind not in "iuf":
        refuse(f"its pixels are {node.dtype}. Save real numbers.")
    attributes: Any = dict(node.attrs)
    ours = dict(attributes.get("vdsr_core", {}))
    names = getattr(node.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS")
    known = _ome_zarr_metadata(path, node.shape)
    letters = known.pop("axes", None) or [_letter(name) for name in names or ()]
    axes = "".join(letters) if {"Y", "X"} <= set(letters) else "Q" * (node.ndim - 2) + "YX"
    known["extra"] = {key: ours[key] for key in ("z_step", "time_step") if key in ours} | known.get("extra", {})
    if "channel_colors" in ours:
        known["extra"]["channel_colors"] = tuple(tuple(color) for color in ours["channel_colors"])
    known |= {key: tuple(ours[key]) for key in ("pixel_size", "channel_names") if key in ours}
    if "unit" in ours:
        known["unit"] = ours["unit"]
    return ImageFile(node, axes, **known)


def open_array(store: Any) -> zarr.Array[Any]:
    """Open a zarr array that raises a ValueError for what cannot be read, for any error of its decoder."""
    import zarr

    return _array_type()(zarr.open_array(store, mode="r").async_array)


@cache
def _array_type() -> type[zarr.Array[Any]]:
    import zarr
    from zarr.errors import BoundsCheckError

    class Pixels(zarr.Array[Any]):
        def __getitem__(self, window: Any) -> Any:
            try:
                return super().__getitem__(window)
            except MemoryError:
                raise
            except Exception as error:
                if isinstance(error, BoundsCheckError) or str(error).startswith("too many indices"):
                    raise
                cause = " ".join(str(error).split()).rstrip(".") or type(error).__name__
                msg = f"a part of the image cannot be read: {cause}. Copy or export it again."
                raise ValueError(msg) from error

    return Pixels


def level_paths(path: Path) -> list[Path]:
    """Where the levels of an OME-Zarr image are, the finest first; `path` itself if it is an array."""
    import zarr

    node = zarr.open(str(path), mode="r")
    levels = multiscale_of(node.attrs.asdict()).get("datasets", ()) if isinstance(node, zarr.Group) else ()
    return [inside(path, level["path"]) for level in levels] or [path]


def _describe_group(path: Path, node: zarr.Group) -> str:
    """Why a group is not an image, and what in it may be one."""
    names = zarr_names(path)
    if names != [""]:
        return f"it holds {len(names)} images. Give the path of one, such as {path / names[0]}."
    arrays = sorted(node.array_keys())
    if arrays:
        return f"it is a group without multiscales. Give the path of an array in it, such as {path / arrays[0]}."
    return "it is a group without multiscales and without arrays. Give the path of an image in it, or copy it again."


def zarr_names(path: Path) -> list[str]:
    """The paths of the images inside a plate or a collection of OME-Zarr; that of the group itself otherwise."""
    import zarr

    says: Any = zarr.open(str(path), mode="r").attrs.asdict()
    says = says.get("ome", says)
    if "plate" in says:
        wells = [inside(path, well["path"]) for well in says["plate"]["wells"]]
        images = [
            inside(well, image["path"])
            for well in wells
            for image in group_attributes(well).get("well", {"images": ()})["images"]
        ]
        return [image.relative_to(path).as_posix() for image in images]
    if says.get("bioformats2raw.layout") == 3:
        if is_zarr(path / "OME") and (listed := group_attributes(path / "OME").get("series")):
            return [str(name) for name in listed if inside(path, name)]
        return sorted((name for name in zarr.open_group(str(path), mode="r").group_keys() if name.isdecimal()), key=int)
    return [""]


def _ome_zarr_metadata(path: Path, shape: tuple[int, ...]) -> dict[str, Any]:
    """What the OME-Zarr group around an array says of it, as fields of `ImageFile`; {} without one.

    The path of an array may have several parts, such as ``scale0/image``.
    """
    import zarr

    for group in list(path.parents)[:_DEEPEST]:
        try:
            says: Any = dict(zarr.open_group(str(group), mode="r").attrs)
        except FileNotFoundError:
            continue
        ours, says = says.get("vdsr_core"), says.get("ome", says)
        for multiscale in says.get("multiscales", ()):
            named = multiscale.get("axes") or (_FIRST_AXES if len(shape) == len(_FIRST_AXES) else None)
            for dataset in multiscale.get("datasets", ()):
                if named and dataset.get("path") == path.relative_to(group).as_posix():
                    known = _multiscale_metadata(says, {**multiscale, "axes": named}, dataset, shape)
                    known["extra"] |= {"provenance": ours} if ours else {}
                    return known
    return {}


def _multiscale_metadata(
    says: Mapping[str, Any], multiscale: Mapping[str, Any], dataset: Mapping[str, Any], shape: tuple[int, ...]
) -> dict[str, Any]:
    """Axes, sizes and channel names of one resolution of an OME-Zarr image."""
    named = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in multiscale["axes"]]
    axes = "".join(_letter(axis["name"]) for axis in named)
    steps, origin = np.ones(len(axes)), np.zeros(len(axes))
    for level in (dataset, multiscale):
        for transform in level.get("coordinateTransformations", ()):
            kind = transform.get("type")
            factors = transform.get(kind)
            if not isinstance(factors, list) or len(factors) != len(axes):
                continue  # the identity, or a file that holds them
            if kind == "scale":
                steps, origin = steps * factors, origin * factors
            elif kind == "translation":
                origin = origin + factors
    step = dict(zip(axes, steps.tolist(), strict=True))
    place = dict(zip(axes, origin.tolist(), strict=True))
    unit = {letter: unify_unit(axis.get("unit")) or "" for letter, axis in zip(axes, named, strict=True)}
    known: dict[str, Any] = {"axes": axes, "extra": {}}
    if place["Y"] or place["X"]:
        known["extra"]["origin"] = (place["Y"], place["X"])
    sound = 0 < step["Y"] < math.inf and 0 < step["X"] < math.inf
    if sound and unit["Y"] == unit["X"] and (unit["Y"] or (step["Y"], step["X"]) != (1, 1)):
        known |= {"pixel_size": (step["Y"], step["X"]), "unit": unit["Y"] or None}
    if unit["Y"] and unit["Y"] == unit.get("Z"):
        known["extra"]["z_step"] = step["Z"]
    if unit.get("T") in SECONDS:
        known["extra"]["time_step"] = step["T"] * SECONDS[unit["T"]]
    if lost := _read_display(says, dict(zip(axes, shape, strict=False)), known):
        known["extra"]["not_kept"] = lost
    return known


def _read_display(says: Mapping[str, Any], sizes: Mapping[str, int], known: dict[str, Any]) -> tuple[str, ...]:
    """Add names, colours and display ranges of channels; returns the name of what cannot be understood."""
    omero = says.get("omero")
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    if not channels:
        return ()
    count = sizes.get("C", 1)
    if not isinstance(channels, list) or len(channels) != count or not all(isinstance(c, Mapping) for c in channels):
        return (f"display settings that are not for {count} channels",)
    labels = ["" if channel.get("label") is None else str(channel["label"]) for channel in channels]
    colors = [str(channel.get("color")) for channel in channels]
    windows = [channel.get("window") for channel in channels]
    if all(labels):
        known["channel_names"] = tuple(labels)
    if all(re.fullmatch("[0-9A-Fa-f]{6}", color) for color in colors):
        known["extra"]["channel_colors"] = tuple(tuple(bytes.fromhex(color)) for color in colors)
    if all(isinstance(window, Mapping) and {"start", "end"} <= window.keys() for window in windows):
        ends = [{"min": window["start"], "max": window["end"], **window} for window in windows if window]
        known["extra"]["channel_windows"] = tuple(ends)
    return ()


def _letter(name: str | None) -> str:
    """The axis letter of a dimension's name."""
    name = (name or "q").lower()
    return _LETTERS.get(name, name.upper() if len(name) == 1 else "Q")


def write_zarr(path: Path, image: ImageFile) -> None:
    """Write a zarr array, chunk by chunk."""
    import zarr

    warn_of_loss(image, {"pixel_size", "channel_names", "z_step", "time_step", "channel_colors"})
    source, shape = image.data, image.data.shape
    side = {"Y": 512, "X": 512, "S": 4}
    chunks = tuple(min(n, side.get(letter, 1)) for letter, n in zip(image.axes, shape, strict=True))
    array = zarr.create_array(
        path,
        shape=shape,
        chunks=chunks,
        dtype=source.dtype,
        dimension_names=[None if letter == "Q" else letter.lower() for letter in image.axes],
        attributes={"vdsr_core": _to_json(image)},
    )
    for corner in itertools.product(*(range(0, n, step) for n, step in zip(shape, chunks, strict=True))):
        window = tuple(slice(start, start + step) for start, step in zip(corner, chunks, strict=True))
        array[window] = source[window]


def _to_json(image: ImageFile) -> dict[str, Any]:
    """The metadata that JSON can hold."""
    known = {"pixel_size": image.pixel_size, "unit": image.unit, "channel_names": image.channel_names}
    extra = {key: image.extra.get(key) for key in ("z_step", "time_step", "channel_colors")}
    return {key: value for key, value in (known | extra).items() if value is not None}
