"""Read and write TIFF, OME-TIFF and ImageJ files."""

from __future__ import annotations

import json
import math
import struct
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from vdsr_core.formats.image_file import (
    METRES,
    SECONDS,
    ImageFile,
    check_memory,
    count_channels,
    fitting_profile,
    gray_alpha_to_rgba,
    in_memory,
    native,
    refuse,
    unify_unit,
    upright,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tifffile import TiffFile, TiffPage, TiffPageSeries

NAMESPACE = "vdsr_core"  # of the note in OME-XML that says how an image was made
_OME_DTYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")
CLASSIC_BYTES = 2**32 - 2**25  # offsets of a classic TIFF have 32 bits; the rest is for its tags
_USED_TAGS = {270, 274, 282, 283, 320, 34675, 50838, 50839}  # description, orientation, sizes, colours, ImageJ's
_TILED_PIXELS = 2**22  # a plane larger than this is written in tiles


def read_tiff(path: Path, *, lazy: bool = False, name: str | None = None) -> ImageFile:
    """Read an image of a TIFF file, the only one without `name`; with `lazy` its pixels stay there, if they can."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        series = _find_series(tif, name)
        _check_complete(tif, series)
        orientation = 1 if tif.is_ome or tif.is_imagej else series.keyframe.tags.valueof(274, default=1)
        lazy = lazy and orientation == 1 and _is_plain(series)
        if not lazy:
            check_memory(series.nbytes)
        pixels = _open_pixels(path, series, tif.series.index(series)) if lazy else series.asarray()
        data, axes, color = _colors(series.keyframe, pixels, series.axes)
        known = _metadata(tif, series)
        profile = series.keyframe.tags.valueof(34675)
    if color is not None:
        known["extra"] = {"channel_colors": (color,)} | known.get("extra", {})
    if len(known.get("channel_names", ())) != count_channels(data.shape, axes):
        known.pop("channel_names", None)
    image = ImageFile(data, axes, icc_profile=fitting_profile(profile, axes), **known)
    return upright(image, orientation)


def _is_plain(series: TiffPageSeries) -> bool:
    """Whether the pixels can be taken as they are."""
    page, samples = series.keyframe, series.sizes.get("sample", 1)
    gray = page.photometric == 1 and samples == 1
    color = page.photometric == 2 or _is_jpeg(page)
    return series.dtype.kind in "iuf" and (gray or (color and samples in (3, 4)))


def _is_jpeg(page: TiffPage) -> bool:
    """Whether the colours in the file are YCbCr, as slide scanners write them, and RGB when they are decoded."""
    return page.photometric == 6 and page.compression in (6, 7)


def coarser_levels(path: Path) -> list[Any]:
    """All levels of the only image of a TIFF but the finest, lazily; none where the pixels have to be changed."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        series = _find_series(tif, None)
        levels = range(1, len(series.levels) if _is_plain(series) else 1)
        return [_open_pixels(path, series, tif.series.index(series), level) for level in levels]


def _open_pixels(path: Path, series: TiffPageSeries, number: int, level: int = 0) -> Any:
    """Return the pixels as a memory map, or as a zarr array whose chunks are the tiles or strips of the file."""
    import tifffile

    if series.dataoffset is not None and not level:
        return np.memmap(path, series.dtype, "r", series.dataoffset, series.shape)
    import zarr

    opened = tifffile.TiffFile(path)
    array = zarr.open_array(opened.series[number].aszarr(level=level), mode="r")
    weakref.finalize(array, opened.close)  # stays open as long as the array is used
    return array


def tiff_names(path: Path) -> list[str]:
    """The names of the images of a TIFF file."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        return _names(_images(tif))


def _images(tif: TiffFile) -> list[TiffPageSeries]:
    """Return the images of a TIFF, thumbnails and masks aside."""
    return [series for series in tif.series if not (series.keyframe.is_reduced or series.keyframe.is_mask)]


def _names(images: Sequence[TiffPageSeries]) -> list[str]:
    """Return what the file calls its images, where that tells one from another, else their numbers."""
    names = [series.name.strip() for series in images]
    return names if all(names) and len(set(names)) == len(names) else [str(number) for number in range(len(names))]


def _find_series(tif: TiffFile, name: str | None) -> TiffPageSeries:
    """Return the image of that name, or the only one of a TIFF."""
    every = _images(tif)
    if not every:
        refuse("it holds no image. Copy or export it again.")
    names = _names(every)
    if name is None and len(every) > 1:
        refuse(f"it holds {len(every)} images: {', '.join(names[:4])} ... Give the `name` of one.")
    if name is not None and name not in names:
        refuse(f"it holds no image {name}, but {', '.join(names[:4])} ... Give one of these names.")
    return every[0 if name is None else names.index(name)]


def _check_complete(tif: TiffFile, series: TiffPageSeries) -> None:
    """Refuse a TIFF that lacks a page, strip or tile: tifffile logs that, and reads fewer pages or zeros."""
    way_out = "Copy or export it again."
    tif.filehandle.seek(tif.pages.next_page_offset or 0)
    link = tif.filehandle.read(tif.tiff.offsetsize)
    if len(link) < tif.tiff.offsetsize or any(link):
        refuse(f"its list of pages breaks off after {len(tif.pages)}. {way_out}")
    if _lost_tags(tif.pages.first) & _USED_TAGS:
        refuse(f"it ends before its tags do. {way_out}")
    if series.kind in ("generic", "uniform") and (tif.is_ome or tif.is_imagej or tif.is_shaped):
        refuse(f"its pages are not those that its description promises. {way_out}")
    offset, nbytes = series.dataoffset, series.nbytes
    if offset is not None and offset + nbytes > tif.filehandle.size:
        refuse(f"it ends before its {nbytes} bytes of pixels do. {way_out}")
    for index, page in enumerate([] if offset is not None else series.pages):
        if page is None or not _page_complete(page):
            refuse(f"page {index} of {len(series.pages)} is missing or incomplete. {way_out}")


def _lost_tags(page: TiffPage) -> set[int]:
    """Return the tags that the page lists and tifffile dropped, because they point beyond the file."""
    tiff, handle = page.parent.tiff, page.parent.filehandle
    handle.seek(page.offset)
    (count,) = struct.unpack(tiff.tagnoformat, handle.read(tiff.tagnosize))
    entries = handle.read(count * tiff.tagsize)
    codes = [entries[i : i + 2] for i in range(0, len(entries), tiff.tagsize)]
    return {struct.unpack(tiff.byteorder + "H", code)[0] for code in codes} - set(page.tags.keys())


def _page_complete(page: Any) -> bool:
    """Whether every strip or tile of a TiffPage or TiffFrame lies inside the file."""
    size = page.parent.filehandle.size
    if page.is_contiguous and page.dataoffsets:
        return bool(page.dataoffsets[0] + page.nbytes <= size)
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    return len(segments) >= math.prod(page.chunked) and all(
        offset > 0 and count > 0 and offset + count <= size for offset, count in segments
    )


def _colors(page: TiffPage, data: NDArray[Any], axes: str) -> tuple[NDArray[Any], str, tuple[int, ...] | None]:
    """Return gray, RGB or RGBA pixels with black at zero, their axes, and the colour of a LUT over gray."""
    photometric, color = int(page.photometric), None
    if photometric > 3 and not _is_jpeg(page):
        name = getattr(page.photometric, "name", photometric)
        refuse(f"its colours are {name}. Convert it to gray or RGB first.")
    if photometric == 0:
        if data.dtype.kind not in "bu":
            refuse(f"white is zero in its {data.dtype} pixels. Invert it in another program first.")
        data = ~data if data.dtype == bool else (2**page.bitspersample - 1) - data
    if data.dtype == bool:
        data = data.astype(np.uint8) * np.uint8(255)
    if data.dtype.kind not in "iuf":
        refuse(f"its pixels are {data.dtype}. Save real numbers.")
    if photometric == 3 and page.colormap is not None:
        colors = _palette(page.colormap)
        if _is_ramp(colors):
            color = tuple(int(n) for n in colors[-1] // (1 if colors.dtype == np.uint8 else 257))
        else:
            data, axes = colors[data], axes + "S"
    if "S" in axes:
        gray, samples = photometric < 2, data.shape[axes.index("S")]
        if gray and samples == 2 and page.extrasamples and int(page.extrasamples[0]) in (1, 2):  # alpha
            data = gray_alpha_to_rgba(np.moveaxis(data, axes.index("S"), -1))
            axes = axes.replace("S", "") + "S"
        elif gray or samples not in (3, 4):  # channels, not colours
            axes = axes.replace("S", "Q" if "C" in axes else "C")
    return native(data) if isinstance(data, np.ndarray) and not isinstance(data, np.memmap) else data, axes, color


def _palette(colormap: NDArray[np.uint16]) -> NDArray[Any]:
    """Return a TIFF colour map (3, n) as colours (n, 3), of 8 bits if they have no more."""
    colors = colormap.T
    if colors.max() < 256:  # some writers forget that the map has 16 bits
        return colors.astype(np.uint8)
    high, low = colors >> 8, colors & 255
    return high.astype(np.uint8) if ((low == 0) | (low == high)).all() else colors


def _is_ramp(colors: NDArray[Any]) -> bool:
    """Whether colours (n, 3) rise evenly from black to the last one, so that indices are intensities."""
    ramp = np.linspace(0, 1, len(colors))[:, None] * colors[-1]
    return bool(colors[-1].any() and np.abs(ramp - colors).max() <= colors.max() / 255)


def _metadata(tif: TiffFile, series: TiffPageSeries) -> dict[str, Any]:
    """Return what a TIFF says of one of its images, as fields of `ImageFile`."""
    if tif.is_ome:
        return _ome_metadata(tif.ome_metadata or "", tif.series.index(series), len(tif.series))
    if tif.is_imagej:
        return _imagej_metadata(tif.imagej_metadata or {}, series.keyframe)
    return _pixel_size(series.keyframe)


def _pixel_size(page: TiffPage) -> dict[str, Any]:
    """Return pixel size and unit of a TIFF's resolution tags; 1 without a unit says nothing."""
    columns, rows = page.tags.valueof(282), page.tags.valueof(283)
    if not (isinstance(columns, tuple) and isinstance(rows, tuple) and all(columns) and all(rows)):
        return {}
    size = (rows[1] / rows[0], columns[1] / columns[0])
    unit = {2: "inch", 3: "cm"}.get(page.tags.valueof(296, default=2))
    return {} if unit is None and size == (1, 1) else {"pixel_size": size, "unit": unit}


def _imagej_metadata(metadata: Mapping[str, Any], page: TiffPage) -> dict[str, Any]:
    """Return what ImageJ says of an image, as fields of `ImageFile`."""
    known = _pixel_size(page)
    if "unit" in metadata:
        unit = unify_unit(str(metadata["unit"]))
        known = {"pixel_size": known.get("pixel_size", (1.0, 1.0)), "unit": unit} if unit else {}
    kept = ("mode", "min", "max", "cf", "c0", "c1", "c2", "c3", "c4", "vunit", "LUTs", "Ranges", "Labels")
    display = {key: metadata[key] for key in kept if key in metadata}
    channels, labels = metadata.get("channels", 1), metadata.get("Labels")
    if channels > 1 and isinstance(labels, list):
        period = labels[:channels] * (len(labels) // channels)
        if labels == period and all(labels):
            known["channel_names"] = tuple(labels[:channels])
            del display["Labels"]
    steps = {"z_step": metadata.get("spacing"), "time_step": metadata.get("finterval")}
    known["extra"] = {key: float(value) for key, value in steps.items() if value}
    if display:
        known["extra"]["imagej"] = display
    return known


def _ome_metadata(xml: str, number: int, count: int) -> dict[str, Any]:
    """Return what OME-XML says of one of so many images, as fields of `ImageFile`."""
    root = ElementTree.fromstring(xml)
    found = root.findall("{*}Image/{*}Pixels")
    if len(found) != count and number:
        return {}  # it speaks of other files, too
    pixels = next(iter(found[number:]), None)
    if pixels is None:
        return {}
    says = pixels.attrib
    unit = unify_unit(says.get("PhysicalSizeXUnit", "µm"))
    known: dict[str, Any] = {"extra": {}}

    def size(axis: str) -> float | None:
        value = float(says.get(f"PhysicalSize{axis}", 0))
        own = unify_unit(says.get(f"PhysicalSize{axis}Unit", "µm"))
        if own != unit and unit in METRES and own in METRES:
            value *= METRES[own] / METRES[unit]
        return value if 0 < value < math.inf else None

    rows, columns, z_step = size("Y"), size("X"), size("Z")
    if rows and columns:
        known["pixel_size"] = (rows, columns)
    if z_step:
        known["extra"]["z_step"] = z_step
    if z_step or (rows and columns):
        known["unit"] = unit
    if "TimeIncrement" in says and (seconds := SECONDS.get(says.get("TimeIncrementUnit", "s"))):
        known["extra"]["time_step"] = float(says["TimeIncrement"]) * seconds
    channels = [channel.attrib for channel in pixels.findall("{*}Channel")]
    if any(channel.get("Name") for channel in channels):
        known["channel_names"] = tuple(channel.get("Name", "") for channel in channels)
    if channels and all("Color" in channel for channel in channels):
        colors = [(int(channel["Color"]) & 0xFFFFFFFF).to_bytes(4, "big") for channel in channels]
        known["extra"]["channel_colors"] = tuple(tuple(color[:3]) for color in colors)  # without alpha
    plane = next(iter(pixels.findall("{*}Plane")), None)
    if plane is not None and {"PositionX", "PositionY"} <= set(plane.keys()) and "pixel_size" in known:
        known["extra"]["origin"] = (float(plane.get("PositionY", 0)), float(plane.get("PositionX", 0)))
    if ours := find_provenance(root):
        known["extra"]["provenance"] = ours
    return known


def find_provenance(root: ElementTree.Element) -> dict[str, Any]:
    """What this package said in OME-XML of how it made the image; {} if that is not there."""
    for note in root.iterfind("{*}StructuredAnnotations/{*}MapAnnotation"):
        if note.get("Namespace") == NAMESPACE:
            return dict(json.loads(note.findtext("{*}Value/{*}M[@K='plan']") or "{}"))
    return {}


def write_tiff(path: Path, image: ImageFile, *, ome: bool) -> None:
    """Write an OME-TIFF, or else the first flavour of TIFF that keeps everything."""
    import tifffile

    data, axes = _planes_last(image)
    flavor = "ome" if ome else _flavor(image, data, axes)
    rows, columns = data.shape[axes.index("Y")], data.shape[axes.index("X")]
    options: dict[str, Any] = {"photometric": "minisblack"}
    if "S" in axes:
        options = {"photometric": "rgb", "planarconfig": "contig" if axes.endswith("S") else "separate"}
        if data.shape[axes.index("S")] == 4:
            options["extrasamples"] = ("unassalpha",)
    if flavor == "imagej":
        metadata = _to_imagej(image, axes, data.shape)
        options["compression"] = "adobe_deflate" if set(axes) <= set("YXS") else None
        if image.pixel_size:
            options["resolution"] = (1 / image.pixel_size[1], 1 / image.pixel_size[0])
    else:
        planes = math.prod(n for letter, n in zip(axes, data.shape, strict=True) if letter not in "YXS")
        metadata = to_ome(image, planes) if flavor == "ome" else {}
        options |= resolution_tags(image) | {
            "compression": "adobe_deflate",
            "predictor": data.dtype.kind in "iu" and data.dtype.itemsize <= 4,
            "tile": (256, 256) if rows * columns > _TILED_PIXELS else None,
        }
    tifffile.imwrite(
        path,
        data,
        bigtiff=data.nbytes > CLASSIC_BYTES,
        ome=flavor == "ome",
        imagej=flavor == "imagej",
        iccprofile=image.icc_profile,
        metadata={"axes": axes} | metadata,
        **options,
    )


def _planes_last(image: ImageFile) -> tuple[NDArray[Any], str]:
    """Return pixels and axes in the order of TIFF pages: rows and columns last, or before colour samples."""
    last = "YXS" if image.axes.endswith("S") else "SYX" if "S" in image.axes else "YX"
    order = [i for i, letter in enumerate(image.axes) if letter not in last]
    order += [image.axes.index(letter) for letter in last]
    return in_memory(image, order), "".join(image.axes[i] for i in order)


def _flavor(image: ImageFile, data: NDArray[Any], axes: str) -> str:
    """Return the first of "plain", "imagej" and "ome" that keeps everything, else "plain"."""
    bare = set(axes) <= set("YXS") and image.unit in (None, "inch", "cm")
    if bare and not image.channel_names and not image.extra.keys() & {"imagej", "channel_colors"}:
        return "plain"
    samples = data.dtype == np.uint8 and axes.endswith("S") and data.shape[-1] == 3
    in_order = "".join(letter for letter in "TZCYXS" if letter in axes) == axes
    pixels = samples or ("S" not in axes and data.dtype in (np.uint8, np.uint16, np.float32))
    if in_order and pixels and data.nbytes <= CLASSIC_BYTES:
        return "imagej"
    return "ome" if fits_ome(data.dtype, axes) else "plain"


def fits_ome(dtype: np.dtype[Any], axes: str) -> bool:
    """Whether an OME-TIFF can hold such pixels."""
    return dtype.name in _OME_DTYPES and set(axes) <= set("TZCYXS")


def resolution_tags(image: ImageFile) -> dict[str, Any]:
    """Return the resolution tags: per inch, per centimetre, or without unit."""
    if image.pixel_size is None:
        return {}
    (rows, columns), unit, factor = image.pixel_size, "none", 1.0
    if image.unit == "inch":
        unit = "inch"
    elif image.unit in METRES:
        unit, factor = "centimeter", METRES[image.unit] / METRES["cm"]
    return {"resolution": (1 / (columns * factor), 1 / (rows * factor)), "resolutionunit": unit}


def _to_imagej(image: ImageFile, axes: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the metadata of an ImageJ hyperstack."""
    extra, names = image.extra, image.channel_names
    metadata: dict[str, Any] = {}
    if colors := extra.get("channel_colors"):
        ramp = np.arange(256)[None] / 255
        metadata["LUTs"] = [(np.array(color)[:, None] * ramp).round().astype(np.uint8) for color in colors]
        metadata["mode"] = "composite" if len(colors) > 1 else "color"
    if names:
        planes = math.prod(n for letter, n in zip(axes, shape, strict=True) if letter not in "YXS")
        metadata["Labels"] = [names[plane % len(names)] for plane in range(planes)]  # channels run fastest
    if image.pixel_size and image.unit:
        metadata["unit"] = "".join(c if c.isascii() else f"\\u{ord(c):04X}" for c in image.unit)
    if "z_step" in extra:
        metadata["spacing"] = extra["z_step"]
    if "time_step" in extra:
        metadata["finterval"] = extra["time_step"]
    return metadata | dict(extra.get("imagej", {}))


def to_ome(image: ImageFile, planes: int) -> dict[str, Any]:
    """Return the metadata of an OME-TIFF of so many planes."""
    extra, unit = image.extra, "in" if image.unit == "inch" else image.unit
    if unit != "in" and unit not in METRES:
        unit = "reference frame"  # OME knows no others
    metadata: dict[str, Any] = {}
    sizes = (*(image.pixel_size or (None, None)), extra.get("z_step"))
    for axis, size in zip("YXZ", sizes, strict=True):
        if size is not None:
            metadata |= {f"PhysicalSize{axis}": float(size), f"PhysicalSize{axis}Unit": unit}
    if "time_step" in extra:
        metadata |= {"TimeIncrement": float(extra["time_step"]), "TimeIncrementUnit": "s"}
    if "origin" in extra and image.pixel_size:
        metadata["Plane"] = {f"Position{axis}Unit": [unit] * planes for axis in "XY"}
        for axis, place in zip("YX", extra["origin"], strict=True):
            metadata["Plane"][f"Position{axis}"] = [float(place)] * planes
    channel: dict[str, Any] = {}
    if image.channel_names:
        channel["Name"] = list(image.channel_names)
    if colors := extra.get("channel_colors"):
        channel["Color"] = [int.from_bytes(bytes((*color, 255)), "big", signed=True) for color in colors]
    return metadata | ({"Channel": channel} if channel else {})
