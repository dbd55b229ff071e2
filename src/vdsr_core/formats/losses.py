"""Metadata that a file cannot hold: named in one warning."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from vdsr_core.formats.image_file import ImageFile

LABELS = {
    "pixel_size": "the pixel size", "channel_names": "names of channels", "icc_profile": "the colour profile",
    "z_step": "the distance of planes", "time_step": "the time step", "channel_colors": "colours of channels",
    "channel_windows": "display ranges", "origin": "the position", "exif": "EXIF", "xmp": "XMP", "iptc": "IPTC",
    "geotiff": "GeoTIFF tags", "bits": "the number of bits",
}  # fmt: skip

_SHOWN = ("mode", "min", "max", "LUTs", "Ranges")  # of ImageJ: carried as colours and ranges, too


def list_losses(image: ImageFile, keeps: Collection[str], texts: Collection[str] | None = ()) -> list[str]:
    """The names of the metadata of an image that a file cannot hold.

    `keeps` are the fields, and the keys of `ImageFile.extra`, that the file holds; `texts` are the keywords of texts
    that it holds, None for all.
    """
    fields = [name for name in ("pixel_size", "channel_names", "icc_profile") if getattr(image, name) is not None]
    if {"samples", "channel_colors"} <= image.extra.keys() and "samples" in keeps:  # red, green and blue
        keeps = {*keeps, "channel_colors"}
    lost = [LABELS[name] for name in (*fields, *image.extra) if name in LABELS and name not in keeps]
    words = image.extra.get("text", {})
    lost += [f"the text {word}" for word in words if texts is not None and word not in texts]
    lost += [] if "png" in keeps else [name for name in image.extra.get("png", ()) if name != "sRGB"]
    imagej = image.extra.get("imagej", {}) if "imagej" not in keeps else {}
    lost += [f"{key} of ImageJ" for key in imagej if key not in _SHOWN]
    for key in [key for key in ("channels", "planes") if key not in keeps]:
        lost += sorted({name for says in image.extra.get(key, ()) for name in says if not name.endswith("Unit")})
    return [*lost, *image.extra.get("not_kept", ())]


def warn_of_loss(image: ImageFile, keeps: Collection[str], texts: Collection[str] | None = ()) -> None:
    """Warn, in one line, of what `list_losses` finds."""
    if lost := list_losses(image, keeps, texts):
        warnings.warn(f"not kept: {', '.join(lost)}", stacklevel=3)
