"""Read and write WebP files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from vdsr_core.formats.image_file import ImageFile, check_memory, refuse
from vdsr_core.formats.losses import warn_of_loss
from vdsr_core.formats.png_jpeg import picture_file, samples_last

LONGEST = 16383  # pixels of a side


def read_webp(path: Path) -> ImageFile:
    """Read a WebP file, RGB or RGBA: the format has no gray."""
    from PIL.WebPImagePlugin import WebPImageFile

    with WebPImageFile(path) as picture:
        if picture.n_frames > 1:
            refuse(f"it is an animation of {picture.n_frames} frames. Save one frame, or a TIFF stack.")
        check_memory(picture.width * picture.height * len(picture.mode))
        picture.load()
        return picture_file(np.array(picture), picture, {})


def write_webp(path: Path, image: ImageFile) -> None:
    """Write a WebP file without loss; gray becomes RGB."""
    from PIL.Image import fromarray

    known = {
        "icc_profile": image.icc_profile, "exif": image.extra.get("exif"), "xmp": image.extra.get("xmp")
    }  # fmt: skip
    options = {name: part for name, part in known.items() if part}
    warn_of_loss(image, options)
    data = samples_last(image)  # (rows, columns[, samples])
    pixels = np.stack([data] * 3, axis=-1) if data.ndim == 2 else data
    content = BytesIO()  # and not the file: there Pillow's encoders ignore a full disk
    fromarray(pixels).save(content, format="WebP", lossless=True, exact=True, **options)
    path.write_bytes(content.getbuffer())
