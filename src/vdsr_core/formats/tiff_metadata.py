"""What a TIFF says of its image by its tags and as ImageJ does, and what is said so of an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vdsr_core.formats import geotiff
from vdsr_core.formats.image_file import METRES, ImageFile, unify_unit
from vdsr_core.formats.ome_xml import parse_ome, read_ome
from vdsr_core.formats.png_jpeg import neutral_xmp

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

TEXTS = {
    "Title": 269, "Description": 270, "Make": 271, "Model": 272, "DateTime": 306, "Author": 315, "HostComputer": 316,
    "Copyright": 33432,
}  # fmt: skip
PLAIN_KEEPS = {"pixel_size", "icc_profile", "xmp", "iptc", "geotiff", "samples", "bits"}
IMAGEJ_KEEPS = PLAIN_KEEPS - {"samples", "bits"} | {
    "channel_names", "z_step", "time_step", "channel_colors", "channel_windows", "origin", "imagej"
}  # fmt: skip
_XMP, _IPTC = 700, 33723
_STORAGE = {
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 270, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 292,
    293, 296, 297, 305, 317, 320, 321, 322, 323, 324, 325, 330, 332, 333, 334, 336, 337, 338, 339, 340, 341, 347, 512,
    513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 34675, 50674, 50838, 50839,
}  # fmt: skip
_IMAGEJ = (
    "mode", "min", "max", "cf", "c0", "c1", "c2", "c3", "c4", "vunit", "LUTs", "Ranges", "Labels", "Info", "Properties"
)  # fmt: skip


def read_metadata(tif: TiffFile, series: TiffPageSeries, colors: Mapping[str, Any]) -> dict[str, Any]:
    """What a TIFF says of one of its images, as fields of `ImageFile`, beside what its colours say."""
    page = series.keyframe
    if tif.is_ome:
        sizes = dict(zip(series.axes, series.shape, strict=True))
        known = read_ome(parse_ome(tif), tif.series.index(series), len(tif.series), sizes)
    elif tif.is_imagej:
        known = _read_imagej(tif.imagej_metadata or {}, page)
    else:
        known = _pixel_size(page)
    tags, extra = _read_tags(page, series.kind), known.get("extra", {})
    parts = [part.get("not_kept", ()) for part in (colors, extra, tags)]
    texts = tags.get("text", {}) | extra.get("text", {})
    extra = {**colors, **tags, **extra} | ({"text": texts} if texts else {})
    return known | {"extra": extra | ({"not_kept": sum(parts, ())} if any(parts) else {})}


def _pixel_size(page: TiffPage) -> dict[str, Any]:
    """Pixel size and unit of a TIFF's resolution tags; 1 without a unit says nothing."""
    columns, rows = page.tags.valueof(282), page.tags.valueof(283)
    if not (isinstance(columns, tuple) and isinstance(rows, tuple) and all(columns) and all(rows)):
        return {}
    size = (rows[1] / rows[0], columns[1] / columns[0])
    unit = {2: "inch", 3: "cm"}.get(page.tags.valueof(296, default=2))
    return {} if unit is None and size == (1, 1) else {"pixel_size": size, "unit": unit}


def _read_tags(page: TiffPage, kind: str) -> dict[str, Any]:
    """Texts, XMP, IPTC and GeoTIFF tags, and the names of tags that are not carried."""
    known: dict[str, Any] = {"text": {}, "geotiff": {}, "not_kept": ()}
    words = {code: word for word, code in TEXTS.items() if word != "Description"}
    if kind in ("generic", "uniform", "shaped"):  # others write their own metadata there
        texts = [said for said in (page.description, page.description1) if said and not said.startswith('{"shape')]
        known["text"] |= {"Description": texts[0]} if texts else {}
    for tag in page.tags:
        if tag.code == _XMP and (xmp := tag.value):
            known["xmp"] = neutral_xmp(xmp.encode() if isinstance(xmp, str) else bytes(xmp))
        elif tag.code == _IPTC and isinstance(tag.value, bytes):
            known["iptc"] = tag.value
        elif tag.code in geotiff.TAGS:
            known["geotiff"][tag.code] = (int(tag.dtype), tag.count, tag.value)
        elif tag.code in words and isinstance(tag.value, str):
            known["text"] |= {words[tag.code]: tag.value} if tag.value else {}
        elif tag.code not in _STORAGE:
            name = "EXIF" if tag.code == 34665 else f"tag {tag.name}"
            known["not_kept"] = (*known["not_kept"], name)
    return {key: value for key, value in known.items() if value}


def _read_imagej(metadata: Mapping[str, Any], page: TiffPage) -> dict[str, Any]:
    """What ImageJ says of an image, as fields of `ImageFile`."""
    known = _pixel_size(page)
    if "unit" in metadata:
        unit = unify_unit(str(metadata["unit"]))
        known = {"pixel_size": known.get("pixel_size", (1.0, 1.0)), "unit": unit} if unit else {}
    display = {key: metadata[key] for key in _IMAGEJ if key in metadata}
    channels, labels = metadata.get("channels", 1), metadata.get("Labels")
    if channels > 1 and isinstance(labels, list):
        period = labels[:channels] * (len(labels) // channels)
        if labels == period and all(labels):
            known["channel_names"] = tuple(labels[:channels])
            del display["Labels"]
    steps = {"z_step": metadata.get("spacing"), "time_step": metadata.get("finterval")}
    extra: dict[str, Any] = {key: float(value) for key, value in steps.items() if value}
    if "pixel_size" in known and (metadata.get("xorigin") or metadata.get("yorigin")):  # pixels from the corner
        places = (float(metadata.get(f"{axis}origin", 0)) for axis in "yx")
        extra["origin"] = tuple((0.5 - at) * size for at, size in zip(places, known["pixel_size"], strict=True))
    luts = metadata.get("LUTs", [])
    colors = [_lut_color(lut) for lut in (luts if isinstance(luts, list) else [luts])]
    if len(colors) == channels and None not in colors:
        extra["channel_colors"] = tuple(colors)
    ranges = metadata.get("Ranges", ())
    if len(ranges) == 2 * channels and page.dtype is not None:
        limits = (
            (np.iinfo(page.dtype).min, np.iinfo(page.dtype).max) if page.dtype.kind in "iu" else (math.inf, -math.inf)
        )
        pairs = zip(ranges[::2], ranges[1::2], strict=True)
        extra["channel_windows"] = tuple(
            {"start": low, "end": high, "min": float(min(limits[0], low)), "max": float(max(limits[1], high))}
            for low, high in pairs
        )
    lost = tuple(f"{key} of ImageJ" for key in ("ROI", "Overlays", "Plot") if key in metadata)
    known["extra"] = extra | ({"imagej": display} if display else {}) | ({"not_kept": lost} if lost else {})
    return known


def _lut_color(lut: Any) -> tuple[int, ...] | None:
    """The last colour of a LUT (3, 256) that rises evenly from black, else None."""
    lut = np.asarray(lut)
    if lut.shape != (3, 256):
        return None
    ramp = np.linspace(0, 1, 256) * lut[:, -1:]
    return tuple(lut[:, -1].tolist()) if lut[:, -1].any() and np.abs(ramp - lut).max() <= 1 else None


def to_tags(image: ImageFile, texts: Mapping[str, int]) -> list[tuple[Any, ...]]:
    """The tags of a TIFF that hold texts, XMP, IPTC and the place on the earth, as tifffile takes them."""
    extra = image.extra
    known = [(_XMP, 1, extra.get("xmp")), (_IPTC, 7, extra.get("iptc"))]
    known += [(texts[word], 2, said.encode() + b"\0") for word, said in extra.get("text", {}).items() if word in texts]
    tags: list[tuple[Any, ...]] = [(code, kind, len(value), value, True) for code, kind, value in known if value]
    return tags + [(code, *said, True) for code, said in extra.get("geotiff", {}).items()]


def resolution_tags(image: ImageFile) -> dict[str, Any]:
    """The resolution tags: per inch, per centimetre, or without unit."""
    if image.pixel_size is None:
        return {}
    (rows, columns), unit, factor = image.pixel_size, "none", 1.0
    if image.unit == "inch":
        unit = "inch"
    elif image.unit in METRES:
        unit, factor = "centimeter", METRES[image.unit] / METRES["cm"]
    return {"resolution": (1 / (columns * factor), 1 / (rows * factor)), "resolutionunit": unit}


def to_imagej(image: ImageFile, axes: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """The metadata of an ImageJ hyperstack."""
    extra, names = image.extra, image.channel_names
    metadata: dict[str, Any] = {}
    if colors := extra.get("channel_colors"):
        ramp = np.arange(256)[None] / 255
        metadata["LUTs"] = [(np.array(color)[:, None] * ramp).round().astype(np.uint8) for color in colors]
        metadata["mode"] = "composite" if len(colors) > 1 else "color"
    if windows := extra.get("channel_windows"):
        metadata["Ranges"] = tuple(float(window[end]) for window in windows for end in ("start", "end"))
    if names:
        planes = math.prod(n for letter, n in zip(axes, shape, strict=True) if letter not in "YXS")
        metadata["Labels"] = [names[plane % len(names)] for plane in range(planes)]  # channels run fastest
    if image.pixel_size and image.unit:
        metadata["unit"] = "".join(c if c.isascii() else f"\\u{ord(c):04X}" for c in image.unit)
    if "origin" in extra and image.pixel_size:
        places = zip("yx", extra["origin"], image.pixel_size, strict=True)
        metadata |= {f"{axis}origin": 0.5 - at / size for axis, at, size in places}
    if "z_step" in extra:
        metadata["spacing"] = extra["z_step"]
    if "time_step" in extra:
        metadata["finterval"] = extra["time_step"]
    if "Description" in extra.get("text", {}):
        metadata["Info"] = extra["text"]["Description"]
    return metadata | dict(extra.get("imagej", {}))
