"""What OME-XML says of an image, and what is said of an image in OME-XML."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from vdsr_core.formats.image_file import METRES, SECONDS, ImageFile, count_channels, unify_unit

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from tifffile import TiffFile

NAMESPACE = "vdsr_core"  # of the note that says how an image was made
KEEPS = {
    "pixel_size", "channel_names", "icc_profile", "z_step", "time_step", "channel_colors", "origin", "channels",
    "planes", "samples", "xmp", "iptc", "geotiff",
}  # fmt: skip
TEXTS = {"Title": "Name", "Description": "Description", "AcquisitionDate": "AcquisitionDate"}
_DTYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")
_CHANNEL = (
    "AcquisitionMode", "ContrastMethod", "EmissionWavelength", "EmissionWavelengthUnit", "ExcitationWavelength",
    "ExcitationWavelengthUnit", "Fluor", "IlluminationType", "NDFilter", "PinholeSize", "PinholeSizeUnit",
    "PockelCellSetting",
)  # fmt: skip
_PLANE = ("DeltaT", "DeltaTUnit", "ExposureTime", "ExposureTimeUnit", "PositionZ", "PositionZUnit")
_READ = (
    "OME", "Image", "Pixels", "Description", "AcquisitionDate", "Channel", "Plane", "TiffData", "UUID", "BinData",
    "MetadataOnly", "HashSHA1",
)  # fmt: skip


def fits_ome(dtype: np.dtype[Any], axes: str) -> bool:
    """Whether an OME-TIFF can hold such pixels."""
    return dtype.name in _DTYPES and set(axes) <= set("TZCYXS")


def parse_ome(tif: TiffFile) -> Element:
    """The OME-XML of a file."""
    return ElementTree.fromstring(tif.ome_metadata or "<OME/>")


def read_ome(root: Element, number: int, count: int, sizes: Mapping[str, int]) -> dict[str, Any]:
    """What OME-XML says of one of so many images, as fields of `ImageFile`; `sizes` are those of its axes."""
    found = [image for image in root.findall("{*}Image") if image.find("{*}Pixels") is not None]
    image = next(iter(found[number:]), None)
    pixels = None if image is None else image.find("{*}Pixels")
    if image is None or pixels is None or (len(found) != count and number):
        return {}  # it speaks of other files, too
    says = pixels.attrib
    unit = unify_unit(says.get("PhysicalSizeXUnit", "µm"))
    known: dict[str, Any] = {"extra": {}}

    rows, columns, z_step = (
        _length(says.get(f"PhysicalSize{axis}"), says.get(f"PhysicalSize{axis}Unit", "µm"), unit) or 0 for axis in "YXZ"
    )
    if 0 < rows < math.inf and 0 < columns < math.inf:
        known["pixel_size"] = (rows, columns)
    if 0 < z_step < math.inf:
        known["extra"]["z_step"] = z_step
    if "z_step" in known["extra"] or "pixel_size" in known:
        known["unit"] = unit
    if "TimeIncrement" in says and (seconds := SECONDS.get(says.get("TimeIncrementUnit", "s"))):
        known["extra"]["time_step"] = float(says["TimeIncrement"]) * seconds
    channels = [channel.attrib for channel in pixels.findall("{*}Channel")]
    if any(channel.get("Name") for channel in channels):
        known["channel_names"] = tuple(channel.get("Name", "") for channel in channels)
    if channels and all("Color" in channel for channel in channels):
        colors = [(int(channel["Color"]) & 0xFFFFFFFF).to_bytes(4, "big") for channel in channels]
        known["extra"]["channel_colors"] = tuple(tuple(color[:3]) for color in colors)  # without alpha
    lights = tuple({key: channel[key] for key in _CHANNEL if key in channel} for channel in channels)
    known["extra"] |= {"channels": lights} if any(lights) else {}
    known["extra"] |= _read_planes(pixels, unit if "pixel_size" in known else "", sizes)
    texts = {"Title": image.get("Name"), **{word: image.findtext("{*}" + word) for word in list(TEXTS)[1:]}}
    texts = {word: said for word, said in texts.items() if said and not re.fullmatch(r"Image[\s:]*\d+", said)}
    known["extra"] |= {"text": texts} if texts else {}
    if ours := find_provenance(root):
        known["extra"]["provenance"] = ours
    lost = (*known["extra"].pop("not_kept", ()), *_name_unread(root, image))
    known["extra"] |= {"not_kept": lost} if lost else {}
    return known


def _length(value: str | None, own: str | None, unit: str | None) -> float | None:
    """A length in `unit`; None without one, or if units do not convert."""
    own = unify_unit(own)
    if value is None or (own != unit and not (unit in METRES and own in METRES)):
        return None
    return float(value) * (1 if own == unit else METRES[own or ""] / METRES[unit or ""])


def _read_planes(pixels: Element, unit: str | None, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Origin and planes, where OME-XML says where and when the planes were taken."""
    letters = [letter for letter in sizes if letter not in "YXS"]
    said = {
        tuple(int(plane.get(f"The{axis}", 0)) for axis in "TZC"): plane.attrib for plane in pixels.findall("{*}Plane")
    }
    known: dict[str, Any] = {}
    lost = []
    positions = [(says.get("PositionY"), says.get("PositionX")) for says in said.values()]
    if said and all(positions[0]):
        first = next(iter(said.values()))
        units = [first.get(f"Position{axis}Unit", "reference frame") for axis in "YX"]
        place = tuple(_length(at, own, unit) for at, own in zip(positions[0], units, strict=True))
        if None in place:
            lost.append("the stage position, whose unit is not one of length")
        else:
            known["origin"] = place
            lost += ["stage positions of later planes"] if len(set(positions)) > 1 else []
    if set(letters) <= set("TZC") and math.prod(sizes[letter] for letter in letters) <= 10**6:
        found = []
        for index in np.ndindex(*(sizes[letter] for letter in letters)):
            at = dict(zip(letters, index, strict=True))
            says = said.get(tuple(at.get(axis, 0) for axis in "TZC"), {})
            found.append({key: says[key] for key in _PLANE if key in says})
        known |= {"planes": tuple(found)} if any(found) else {}
    return known | ({"not_kept": tuple(lost)} if lost else {})


def _name_unread(root: Element, image: Element) -> list[str]:
    """The names of elements that say more of an image than is read."""
    parts = [
        *root,
        *image,
        *(image.find("{*}Pixels") or ()),
        *(part for part in image.iterfind("{*}Pixels/{*}Channel/*")),
    ]
    names = {part.tag.rpartition("}")[2] for part in parts if len(part) or part.attrib or part.text}
    notes = list(root.iterfind("{*}StructuredAnnotations/*"))
    if all(note.get("Namespace") == NAMESPACE for note in notes):
        names -= {"StructuredAnnotations"}
    return [f"{name} of OME" for name in sorted(names - set(_READ)) if not name.endswith("Ref")]


def find_provenance(root: Element) -> dict[str, Any]:
    """What this package said in OME-XML of how it made the image; {} if that is not there."""
    for note in root.iterfind("{*}StructuredAnnotations/{*}MapAnnotation"):
        if note.get("Namespace") == NAMESPACE:
            return dict(json.loads(note.findtext("{*}Value/{*}M[@K='plan']") or "{}"))
    return {}


def to_ome(image: ImageFile, axes: str) -> dict[str, Any]:
    """The metadata of an OME-TIFF whose pages are the planes of an image, in the order of `axes`."""
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
    metadata |= {TEXTS[word]: said for word, said in extra.get("text", {}).items() if word in TEXTS}
    if planes := _to_planes(image, axes, unit):
        metadata["Plane"] = planes
    channels = [dict(says) for says in extra.get("channels", ())] or [{}] * count_channels(image.data.shape, image.axes)
    for key, values in (("Name", image.channel_names), ("Color", extra.get("channel_colors"))):
        if values and len(values) == len(channels):
            said = [v if key == "Name" else int.from_bytes(bytes((*v, 255)), "big", signed=True) for v in values]
            channels = [says | {key: value} for says, value in zip(channels, said, strict=True)]
    return metadata | ({"Channel": channels} if any(channels) else {})


def _to_planes(image: ImageFile, axes: str, unit: str) -> list[dict[str, Any]]:
    """What OME-XML says of each plane; [] if that is nothing."""
    lengths = dict(zip(image.axes, image.data.shape, strict=True))
    own = [letter for letter in image.axes if letter not in "YXS"]
    count = math.prod(lengths[letter] for letter in own)
    place: dict[str, Any] = {}
    if "origin" in image.extra and image.pixel_size:
        for axis, at in zip("YX", image.extra["origin"], strict=True):
            place |= {f"Position{axis}": float(at), f"Position{axis}Unit": unit}
    said = image.extra.get("planes", ())
    planes = np.empty(count, object)
    planes[:] = [place | dict(says) for says in (said if len(said) == count else [{}] * count)]
    order = [own.index(letter) for letter in axes if letter in own]
    planes = planes.reshape([lengths[letter] for letter in own]).transpose(order).ravel()
    return planes.tolist() if any(planes) else []
