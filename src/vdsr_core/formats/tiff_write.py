"""Write TIFF, OME-TIFF and ImageJ files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.formats import ome_xml
from vdsr_core.formats.image_file import ImageFile, in_memory
from vdsr_core.formats.losses import list_losses, warn_of_loss
from vdsr_core.formats.tiff_metadata import IMAGEJ_KEEPS, PLAIN_KEEPS, TEXTS, resolution_tags, to_imagej, to_tags

CLASSIC_BYTES = 2**32 - 2**25  # offsets of a classic TIFF have 32 bits; the rest is for its tags
_TILED_PIXELS = 2**22  # a plane larger than this is written in tiles
_TAGS = {word: code for word, code in TEXTS.items() if word != "Description"}
KEEPS: dict[str, tuple[Collection[str], Collection[str]]] = {
    "plain": (PLAIN_KEEPS, TEXTS),
    "imagej": (IMAGEJ_KEEPS, TEXTS),
    "ome": (ome_xml.KEEPS, {**TEXTS, **ome_xml.TEXTS}),
}


def write_tiff(path: Path, image: ImageFile, *, ome: bool) -> None:
    """Write an OME-TIFF, or else the first flavour of TIFF that keeps most."""
    import tifffile

    data, axes = _planes_last(image)
    flavor = "ome" if ome else _flavor(image, data, axes)
    warn_of_loss(image, *KEEPS[flavor])
    rows, columns = data.shape[axes.index("Y")], data.shape[axes.index("X")]
    options = color_options(image, axes, data.shape)
    if flavor == "imagej":
        metadata = to_imagej(image, axes, data.shape)
        options["compression"] = "adobe_deflate" if set(axes) <= set("YXS") else None
        if image.pixel_size:
            options["resolution"] = (1 / image.pixel_size[1], 1 / image.pixel_size[0])
    else:
        metadata = ome_xml.to_ome(image, axes) if flavor == "ome" else {}
        options |= resolution_tags(image) | {
            "compression": "adobe_deflate",
            "predictor": data.dtype.kind in "iu" and data.dtype.itemsize <= 4,
            "tile": (256, 256) if rows * columns > _TILED_PIXELS else None,
        }
    if flavor == "plain" and data.dtype == np.uint16 and (bits := image.extra.get("bits")):
        data = np.minimum(data, 2**bits - 1)
        options |= {"bitspersample": bits, "compression": None, "predictor": None}  # what is packed is not compressed
    if flavor == "plain" and "Description" in image.extra.get("text", {}):
        options["description"] = image.extra["text"]["Description"].encode()
    tifffile.imwrite(
        path,
        data,
        bigtiff=data.nbytes > CLASSIC_BYTES,
        ome=flavor == "ome",
        imagej=flavor == "imagej",
        iccprofile=image.icc_profile,
        metadata={"axes": axes} | metadata,
        extratags=to_tags(image, _TAGS),
        **options,
    )


def color_options(image: ImageFile, axes: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """What tifffile is told of the samples of pages with such axes."""
    if "S" not in axes:
        return {"photometric": "minisblack"}
    options = {"photometric": "rgb", "planarconfig": "contig" if axes.endswith("S") else "separate"}
    extra = image.extra.get("samples") if "C" in image.axes else (2,) * (shape[axes.index("S")] - 3)  # straight alpha
    return options | ({"extrasamples": extra} if extra else {})


def _planes_last(image: ImageFile) -> tuple[NDArray[Any], str]:
    """Pixels and axes in the order of TIFF pages: rows and columns last, or before colour samples.

    Channels of one plane, of which the first are red, green and blue, are samples.
    """
    axes = image.axes
    if "samples" in image.extra and set(axes) == set("CYX") and len(axes) == 3:
        return in_memory(image, [axes.index(letter) for letter in "YXC"]), "YXS"
    last = "YXS" if axes.endswith("S") else "SYX" if "S" in axes else "YX"
    order = [i for i, letter in enumerate(axes) if letter not in last]
    order += [axes.index(letter) for letter in last]
    return in_memory(image, order), "".join(axes[i] for i in order)


def _flavor(image: ImageFile, data: NDArray[Any], axes: str) -> str:
    """The first of "plain", "imagej", "ome" and again "plain" that holds the pixels and loses least."""
    samples = data.dtype == np.uint8 and axes.endswith("S") and data.shape[-1] == 3
    in_order = "".join(letter for letter in "TZCYXS" if letter in axes) == axes
    pixels = samples or ("S" not in axes and data.dtype in (np.uint8, np.uint16, np.float32))
    bare = set(axes) <= set("YXS") and image.unit in (None, "inch", "cm") and not image.channel_names
    bare = bare and ("C" in image.axes or not image.extra.keys() & {"imagej", "channel_colors"})
    fitting = ["plain"] if bare else []
    fitting += ["imagej"] if in_order and pixels and data.nbytes <= CLASSIC_BYTES else []
    fitting += ["ome"] if ome_xml.fits_ome(data.dtype, axes) and "samples" not in image.extra else []
    return min([*fitting, "plain"], key=lambda flavor: len(list_losses(image, *KEEPS[flavor])))
