"""Read and write PNG and JPEG files."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vdsr_core.formats.image_file import (
    METRES,
    ImageFile,
    check_memory,
    fitting_profile,
    gray_alpha_to_rgba,
    in_memory,
    refuse,
    upright,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

LEVEL = 4  # of a PNG's compression: at most 6 % larger than 6, zlib's default, and encoded 2.5 times as fast


def read_png(path: Path) -> ImageFile:
    """Read a PNG file, of 1 to 16 bits."""
    # The class itself and not Image.open: that one warns above 89 million pixels and fails above 179
    # million, whereas the checks below ask what the file and the memory can hold.
    from PIL.PngImagePlugin import PngImageFile

    with PngImageFile(path) as picture, path.open("rb") as stream:
        depth, color = stream.read(26)[24:]
        columns, rows = picture.size
        samples = {2: 3, 4: 2, 6: 4}.get(color, 1)
        packed = rows * math.ceil(columns * samples * depth / 8)
        if packed > 1032 * path.stat().st_size:  # deflate packs 1032 bytes into one at best
            refuse(f"its header claims {rows} x {columns} pixels, more than it can hold. Copy it again.")
        if getattr(picture, "is_animated", False):
            refuse(f"it is an animation of {picture.n_frames} frames. Save one frame, or a TIFF stack.")
        check_memory(rows * columns * (4 if color == 3 else samples * max(1, depth // 8)))
        if depth < 16:
            picture.load()
            return _picture_file(_expanded(picture), picture)
        import imagecodecs

        data = imagecodecs.png_decode(path.read_bytes())  # Pillow reduces 16-bit colour to 8 bits
        return _picture_file(gray_alpha_to_rgba(data) if color == 4 else data, picture)


def read_jpeg(path: Path) -> ImageFile:
    """Read a JPEG file, gray or RGB."""
    from PIL.JpegImagePlugin import JpegImageFile

    with JpegImageFile(path) as picture:
        if picture.mode not in ("L", "RGB"):
            refuse(f"its colours are {picture.mode}. Convert it to RGB first.")
        check_memory(picture.width * picture.height * len(picture.mode))
        picture.load()
        return _picture_file(np.array(picture), picture)


def _expanded(picture: Image) -> NDArray[np.uint8]:
    """Return the pixels of an 8-bit PNG as gray, RGB or RGBA."""
    if picture.mode in ("LA", "PA") or "transparency" in picture.info:
        return np.array(picture.convert("RGBA"))
    mode = {"1": "L", "P": "RGB"}.get(picture.mode, picture.mode)
    return np.array(picture.convert(mode))


def _picture_file(data: NDArray[Any], picture: Image) -> ImageFile:
    """Return the upright pixels (rows, columns[, samples]) with the metadata of a Pillow image."""
    axes = "YXS"[: data.ndim]
    orientation, exif = _upright_exif(picture.info.get("exif"))
    dpi = picture.info.get("dpi", (0, 0))
    size = (1 / float(dpi[1]), 1 / float(dpi[0])) if all(0 < float(n) < math.inf for n in dpi) else None
    return upright(
        ImageFile(
            data,
            axes,
            pixel_size=size,
            unit=size and "inch",
            icc_profile=fitting_profile(picture.info.get("icc_profile"), axes),
            extra={"exif": exif} if exif else {},
        ),
        orientation,
    )


def _upright_exif(content: bytes | None) -> tuple[int, bytes | None]:
    """Return the orientation, and the EXIF without what depends on orientation or size."""
    from PIL.ExifTags import IFD, Base
    from PIL.Image import Exif

    exif, orientation = Exif(), 1
    if not content:
        return orientation, None
    try:
        exif.load(content)
        orientation = exif.get(Base.Orientation, 1)
        for tag in (Base.Orientation, Base.XResolution, Base.YResolution, Base.ResolutionUnit):
            exif.pop(tag, None)
        for tag in (Base.ExifImageWidth, Base.ExifImageHeight) if IFD.Exif in exif else ():
            exif.get_ifd(IFD.Exif).pop(tag, None)
        return orientation, exif.tobytes() if len(exif) else None  # tobytes leaves the thumbnail behind
    except Exception as error:  # cameras write, and Pillow raises, anything; the pixels are sound
        warnings.warn(f"The EXIF is damaged and left out: {error}", stacklevel=2)
        return orientation, None


def write_png(path: Path, image: ImageFile) -> None:
    """Write a PNG file of 8 or 16 bits."""
    data = _samples_last(image)
    if data.dtype == np.uint8:
        _save(path, image, data, format="PNG", compress_level=LEVEL)
        return
    import imagecodecs

    content = imagecodecs.png_encode(data, level=LEVEL)
    header = 8 + 25  # the signature and the IHDR chunk; the chunks below go between it and the pixels
    path.write_bytes(content[:header] + b"".join(_png_chunks(image)) + content[header:])


def _png_chunks(image: ImageFile) -> Iterator[bytes]:
    """Give the PNG chunks that hold profile, resolution and EXIF."""

    def chunk(name: bytes, content: bytes) -> bytes:
        length, checksum = struct.pack(">I", len(content)), struct.pack(">I", zlib.crc32(name + content))
        return length + name + content + checksum

    if image.icc_profile:
        yield chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(image.icc_profile))
    if dpi := _dpi(image):
        yield chunk(b"pHYs", struct.pack(">IIB", *(round(n / 0.0254) for n in dpi), 1))
    if exif := image.extra.get("exif"):
        yield chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))


def write_jpeg(path: Path, image: ImageFile) -> None:
    """Write a JPEG file."""
    _save(path, image, _samples_last(image), format="JPEG", quality=95, subsampling=0)


def _save(path: Path, image: ImageFile, data: NDArray[np.uint8], **options: Any) -> None:
    """Write 8-bit pixels and their metadata by Pillow."""
    from PIL.Image import fromarray

    known = {"icc_profile": image.icc_profile, "dpi": _dpi(image), "exif": image.extra.get("exif")}
    options |= {key: value for key, value in known.items() if value}
    content = BytesIO()  # and not the file: there Pillow's encoders ignore a full disk
    fromarray(data).save(content, **options)
    path.write_bytes(content.getbuffer())


def _dpi(image: ImageFile) -> tuple[float, float] | None:
    """Return dots per inch (columns, rows); None for microscopic pixels, which would print as a speck."""
    if image.pixel_size is None or image.unit not in ("inch", "cm"):
        return None
    rows, columns = (0.0254 / (size * METRES[image.unit]) for size in image.pixel_size)
    return (columns, rows) if min(rows, columns) >= 1 and max(rows, columns) <= 65535 else None


def _samples_last(image: ImageFile) -> NDArray[Any]:
    """Return the pixels of a picture as (rows, columns[, samples])."""
    return in_memory(image, [image.axes.index(letter) for letter in "YXS" if letter in image.axes])
