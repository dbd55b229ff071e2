"""OME-Zarr groups: what their metadata says, and empty pyramids with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.urls import is_url
from vdsr_core.images.intensity import cast
from vdsr_core.images.tiling import cover

if TYPE_CHECKING:
    import zarr

VERSIONS = ("0.4", "0.5")
KEEPS = {"pixel_size", "channel_names", "z_step", "time_step", "channel_colors", "channel_windows", "origin", "samples"}
_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}
_UNITS = {
    "m": "meter", "cm": "centimeter", "mm": "millimeter", "µm": "micrometer", "nm": "nanometer", "Å": "angstrom",
    "pm": "picometer", "inch": "inch",
}  # fmt: skip
_COLORS = ("FFFFFF",), ("FF0000", "00FF00", "0000FF", "FFFFFF")


def order_axes(axes: str) -> str:
    """The axes of an image in the order of OME-Zarr, as letters of the image itself: colour samples are channels.

    Examples
    --------
    >>> order_axes("ZYXC"), order_axes("YXS")
    ('CZYX', 'SYX')
    """
    if strange := set(axes) - set("TCZYXS") or (set("CS") if {"C", "S"} <= set(axes) else set()):
        msg = f"`axes` must be of T, C or S, Z, Y and X for OME-Zarr, got {axes}, with {', '.join(sorted(strange))}. "
        msg += "Correct them, for instance by --axes, or split the image."
        raise ValueError(msg)
    return "".join(letter for letter in "TCSZYX" if letter in axes)


def level_shapes(shape: Sequence[int], least: int) -> list[tuple[int, ...]]:
    """Shapes of a pyramid (..., rows, columns), each half of the one before, until a plane is no larger than `least`.

    Examples
    --------
    >>> level_shapes((3, 1001, 600), 256)
    [(3, 1001, 600), (3, 501, 300), (3, 251, 150)]
    """
    *leading, rows, columns = shape
    found = [(*leading, rows, columns)]
    while max(rows, columns) > least:
        rows, columns = -(-rows // 2), -(-columns // 2)
        found.append((*leading, rows, columns))
    return found


def halve(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The next level of a pyramid: means of 2 x 2 pixels of (..., rows, columns), of what there is at an odd edge.

    Examples
    --------
    >>> halve(np.array([[1, 2, 9], [3, 6, 10]], np.uint8))
    array([[ 3, 10]], dtype=uint8)
    """
    odd = [(0, 0)] * (values.ndim - 2) + [(0, values.shape[-2] % 2), (0, values.shape[-1] % 2)]
    wide = np.pad(values, odd, mode="edge").astype(np.float64)
    wide = wide[..., ::2, :] + wide[..., 1::2, :]
    mean = (wide[..., ::2] + wide[..., 1::2]) / 4
    return cast(mean, values.dtype)


def make_attributes(
    image: ImageFile,
    scale: tuple[float, float],
    levels: int,
    ranges: Sequence[tuple[float, float]],
    version: str,
    name: str,
) -> dict[str, Any]:
    """The attributes of an OME-Zarr group that holds an upscaled image with its pyramid.

    `image` is the image before, `scale` the output pixels per input pixel of rows and columns, `levels` their number,
    and `ranges` the intensities (low, high) to show for each channel, if the image itself says nothing of them.
    """
    letters = order_axes(image.axes)
    before = dict(zip("YX", image.pixel_size or (1.0, 1.0), strict=True))
    origin = dict(zip("YX", image.extra.get("origin", (0.0, 0.0)), strict=True))
    steps = {"Z": image.extra.get("z_step", 1.0), "T": image.extra.get("time_step", 1.0)}
    datasets = []
    for level in range(levels):
        size, place = dict(steps), {}
        for letter, factor in zip("YX", scale, strict=True):
            size[letter] = before[letter] / factor * 2**level
            # Pixel areas begin where those of the image before do; positions are those of pixel centres.
            place[letter] = origin[letter] + (size[letter] - before[letter]) / 2
        transformations = [
            {"type": "scale", "scale": [float(size.get(letter, 1.0)) for letter in letters]},
            {"type": "translation", "translation": [float(place.get(letter, 0.0)) for letter in letters]},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    axes = []
    for letter in letters.replace("S", "C"):
        unit = _UNITS.get(image.unit or "") if letter in "ZYX" else "second" if "time_step" in image.extra else None
        known = {"unit": unit} if unit and letter != "C" else {}
        axes.append({"name": letter.lower(), "type": _TYPES[letter], **known})
    multiscale = {"name": name, "axes": axes, "datasets": datasets, "type": "mean"}
    says: dict[str, Any] = {"multiscales": [multiscale]}
    if set(letters) & set("CS"):
        says["omero"] = {"channels": list(_channels(image, ranges))}
    if version == "0.4":
        multiscale["version"] = version
        return says
    return {"ome": {"version": version, **says}}


def _channels(image: ImageFile, ranges: Sequence[tuple[float, float]]) -> Any:
    """What omero says of each channel."""
    axis = image.axes.index("S" if image.rgb else "C")
    count = image.data.shape[axis]
    names = image.channel_names or (("red", "green", "blue", "alpha")[:count] if image.rgb else ())
    colors = ["{:02X}{:02X}{:02X}".format(*color) for color in image.extra.get("channel_colors", ())]
    if len(colors) != count:
        colors = [_COLORS[image.rgb][i % len(_COLORS[image.rgb])] for i in range(count)]
    limits: Any = (0.0, 1.0)
    if image.data.dtype.kind in "ui":
        limits = np.iinfo(image.data.dtype)
        limits = (float(limits.min), float(limits.max))
    windows = image.extra.get("channel_windows")
    for i in range(count):
        low, high = ranges[i if len(ranges) == count else 0]
        window = {"start": float(max(low, limits[0]) if image.data.dtype.kind in "ui" else low), "end": float(high)}
        window |= {"min": min(limits[0], window["start"]), "max": max(limits[1], window["end"])}
        label = names[i] if i < len(names) else f"channel {i}"
        yield {"label": label, "color": colors[i], "active": True, "window": windows[i] if windows else window}


def create(
    path: Path,
    attributes: Mapping[str, Any],
    shapes: Sequence[tuple[int, ...]],
    dtype: np.dtype[Any],
    chunk: tuple[int, ...],
    shard: tuple[int, ...],
    version: str,
) -> None:
    """Make an empty pyramid; version 0.4 has chunks only, because it has no shards."""
    import zarr

    letters = [axis["name"] for axis in multiscale_of(attributes)["axes"]]
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3, attributes=dict(attributes))
    for level, shape in enumerate(shapes):
        options: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        chunks = tuple(min(c, n) for c, n in zip(chunk, shape, strict=True))
        if version != "0.4":
            whole = tuple(min(s, math.ceil(n / c) * c) for s, n, c in zip(shard, shape, chunks, strict=True))
            options = {"shards": whole if whole != chunks else None, "dimension_names": letters}
        group.create_array(str(level), shape=shape, chunks=chunks, dtype=dtype, **options)


def multiscale_of(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first image of a group's attributes; {} without one."""
    found: Sequence[Mapping[str, Any]] = attributes.get("ome", attributes).get("multiscales", ())
    return found[0] if found else {}


def bind(path: Path, names: Sequence[str], source: Path) -> None:
    """Make one plate, or one collection, of the images that were written at the paths `names` inside `path`.

    If `source`, which they were made from, is a plate, its layout is kept.
    """
    import zarr

    says = group_attributes(source) if is_url(source) or source.is_dir() else {}  # of a TIFF, none
    if "plate" not in says:
        _write(path, {"bioformats2raw.layout": 3})
        _write(path / "OME", {"series": list(names)})
        return
    _write(path, {"plate": says["plate"]})
    for well in {name.rsplit("/", 1)[0] for name in names}:
        zarr.open_group(path / well.split("/")[0], mode="a", zarr_format=3)
        _write(path / well, {"well": group_attributes(source / well)["well"]})


def group_attributes(path: Path) -> dict[str, Any]:
    """The OME attributes of a group."""
    import zarr

    attributes: Any = zarr.open_group(str(path), mode="r").attrs.asdict()
    return dict(attributes.get("ome", attributes))


def _write(path: Path, says: Mapping[str, Any]) -> None:
    """Write the OME attributes of a group, which is created if needed."""
    import zarr

    dated = {key: {**value, "version": "0.5"} if key in ("plate", "well") else value for key, value in says.items()}
    zarr.open_group(path, mode="a", zarr_format=3).attrs["ome"] = {"version": "0.5", **dated}


def open_level(path: Path, level: int, mode: str = "r") -> zarr.Array[Any]:
    """One level of a pyramid."""
    import zarr

    return zarr.open_array(path / str(level), mode=mode)


def coarsen(finer: Any, window: tuple[slice, ...]) -> NDArray[Any]:
    """A window of a level of the pyramid, from the finer one, piece by piece."""
    out = np.empty([part.stop - part.start for part in window], finer.dtype)
    for piece in cover(out.shape[-2:], max(1, finer.chunks[-1] // 2), 0):
        rows, columns = piece.write
        parts = zip((rows, columns), window[-2:], strict=True)
        source = [slice(2 * (here.start + part.start), 2 * (here.stop + part.start)) for here, part in parts]
        out[..., rows, columns] = halve(np.asarray(finer[(*window[:-2], *source)]))
    return out
