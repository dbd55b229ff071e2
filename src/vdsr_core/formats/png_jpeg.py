"""Read and write PNG and JPEG files."""

from __future__ import annotations

import logging
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
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
from vdsr_core.formats.losses import warn_of_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.JpegImagePlugin import JpegImageFile

logging.getLogger("imagecodecs").addHandler(logging.NullHandler())  # it tells of damaged chunks, as we do
PNG_LEVEL = 4  # of compression: files larger by 1 % than with 6, libpng's default, and encoded 1.4 times as fast
SEEN = ("gAMA", "cHRM", "cICP", "sRGB", "mDCV", "cLLI")  # chunks of a PNG that say how its values are to be seen
_TOLD = ("iCCP", "pHYs", "eXIf", "tEXt", "zTXt", "iTXt")  # chunks that Pillow reads
_KEEPS = {"pixel_size", "icc_profile", "exif", "xmp"}
_SEGMENT = 65000  # bytes that a segment of a JPEG holds
_SIZES = rb"tiff:(?:Image(?:Width|Length)|Orientation|[XY]Resolution|ResolutionUnit)|exif:Pixel[XY]Dimension"


def read_png(path: Path) -> ImageFile:
    """Read a PNG file, of 1 to 16 bits."""
    import imagecodecs

    content = path.read_bytes()
    chunks = list(_chunks(content))
    if not chunks or chunks[0][0] != "IHDR":
        refuse("it does not begin as a PNG does. Copy or export it again.")
    columns, rows, depth, color = struct.unpack(">IIBB", chunks[0][1][:10])
    names = {name for name, _ in chunks}
    samples = {2: 3, 4: 2, 6: 4}.get(color, 1)
    packed = rows * math.ceil(columns * samples * depth / 8)
    if packed > 1032 * len(content):  # deflate packs 1032 bytes into one at best
        refuse(f"its header claims {rows} x {columns} pixels, more than it can hold. Copy it again.")
    if "acTL" in names:
        frames = int.from_bytes(dict(chunks)["acTL"][:4], "big")
        refuse(f"it is an animation of {frames} frames. Save one frame, or a TIFF stack.")
    check_memory(rows * columns * (4 if color == 3 or "tRNS" in names else samples) * max(1, depth // 8))
    data = imagecodecs.png_decode(content)  # palettes are colours, a transparent colour is alpha
    if color == 3 and "tRNS" not in names:
        data = np.ascontiguousarray(data[..., :3])
    seen = {name: chunk for name, chunk in chunks if name in SEEN}
    with _told(chunks) as picture:
        return picture_file(gray_alpha_to_rgba(data) if data.shape[2:] == (2,) else data, picture, seen)


def _chunks(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The names and contents of a PNG's chunks, without damaged ones that the pixels do not need."""
    start, name = 8, ""
    while name != "IEND":
        if start + 12 > len(content) or start + 12 + int.from_bytes(content[start : start + 4], "big") > len(content):
            refuse("it ends before its pixels do. Copy or export it again.")
        end = start + 8 + int.from_bytes(content[start : start + 4], "big")
        name, chunk = content[start + 4 : start + 8].decode("latin-1"), content[start + 8 : end]
        if zlib.crc32(content[start + 4 : end]) == int.from_bytes(content[end : end + 4], "big"):
            yield name, chunk
        elif name[0].isupper():
            refuse(f"its chunk {name!r} is damaged. Copy or export it again.")
        else:
            warnings.warn(f"The chunk {name!r} of a PNG is damaged and left out.", stacklevel=3)
        start = end + 4


def _told(chunks: Iterable[tuple[str, bytes]]) -> Image:
    """Metadata of a PNG as Pillow reads them: of one black pixel with the same chunks, also those behind the pixels."""
    from PIL.PngImagePlugin import PngImageFile

    told = [_chunk(name, chunk) for name, chunk in chunks if name in _TOLD]
    one = (_chunk("IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)), *told, _chunk("IDAT", zlib.compress(b"\0\0")))
    picture = PngImageFile(BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(one) + _chunk("IEND", b"")))
    picture.load()
    return picture


def read_jpeg(path: Path) -> ImageFile:
    """Read a JPEG file, gray or RGB."""
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        picture = JpegImageFile(path)
    except SyntaxError as error:
        if "bit layers" in str(error):
            refuse(f"it has {str(error).split()[2]} samples. Convert it to a PNG or TIFF of 16 bits first.")
        raise
    with picture:
        if picture.mode not in ("L", "RGB"):
            refuse(f"its colours are {picture.mode}. Convert it to RGB first.")
        columns, rows = picture.size
        if math.ceil(rows / 8) * math.ceil(columns / 8) > 8 * path.stat().st_size:  # a bit per block at least
            refuse(f"its header claims {rows} x {columns} pixels, more than it can hold. Copy it again.")
        check_memory(rows * columns * len(picture.mode))
        picture.load()
        compression = measure_tables(picture)
        return replace(picture_file(np.array(picture), picture, {}), compression=compression)


def measure_tables(picture: JpegImageFile) -> float:
    """How strongly a JPEG is compressed: the mean quantisation step of its first component, as a fraction of 255."""
    steps = picture.quantization.get(picture.layer[0][3], ()) if picture.layer else ()
    return min(1.0, sum(steps) / len(steps) / 255) if steps else 0.0


def picture_file(data: NDArray[Any], picture: Image, seen: Mapping[str, bytes]) -> ImageFile:
    """The upright pixels (rows, columns[, samples]) with the metadata of a Pillow image."""
    axes, info = "YXS"[: data.ndim], picture.info
    orientation, exif = _upright_exif(info.get("exif"))
    dpi = info.get("dpi", (0, 0))
    size = (1 / float(dpi[1]), 1 / float(dpi[0])) if all(0 < float(n) < math.inf for n in dpi) else None
    text = {str(word): str(said) for word, said in getattr(picture, "text", {}).items()}
    xmp = info.get("xmp") or text.pop("XML:com.adobe.xmp", "").encode()
    text.pop("XML:com.adobe.xmp", None)
    if comment := info.get("comment"):
        text["Comment"] = read_text(comment)
    resources = info.get("photoshop", {})
    known = {
        "exif": exif,
        "xmp": neutral_xmp(xmp),
        "iptc": resources.get(0x0404) if isinstance(resources, dict) else None,
        "text": text,
        "png": dict(seen),
        "not_kept": ("other pictures of the file",) if _has_others(picture) else (),
    }
    image = ImageFile(
        data,
        axes,
        pixel_size=size,
        unit=size and "inch",
        icc_profile=fitting_profile(info.get("icc_profile"), axes),
        extra={name: value for name, value in known.items() if value},
    )
    return upright(image, orientation)


def _has_others(picture: Any) -> bool:
    """Whether a JPEG holds pictures beside the first one and its previews, such as a gain map for HDR screens."""
    try:
        kinds = [entry["Attribute"]["MPType"] for entry in picture._getmp()[0xB002]]
    except Exception:  # there is no list of pictures (MPF), or a damaged one
        return False
    return not all(kind.startswith("Large Thumbnail") for kind in kinds[1:])


def read_text(content: bytes) -> str:
    """A text of a file that does not say how it is encoded."""
    try:
        return content.decode().rstrip("\0")
    except UnicodeDecodeError:
        return content.decode("latin-1").rstrip("\0")


def neutral_xmp(xmp: bytes) -> bytes:
    """XMP without what depends on orientation or size, as attributes or elements.

    Examples
    --------
    >>> neutral_xmp(b'<a tiff:Orientation="6" dc:rights="me"><exif:PixelXDimension>9</exif:PixelXDimension></a>')
    b'<a dc:rights="me"></a>'
    """
    xmp = re.sub(rb"\s+(?:" + _SIZES + rb")\s*=\s*(\"[^\"]*\"|'[^']*')", b"", xmp)
    return re.sub(rb"<(" + _SIZES + rb")>[^<]*</\1>", b"", xmp)


def _upright_exif(content: bytes | None) -> tuple[int, bytes | None]:
    """The orientation, and the EXIF without what depends on orientation or size."""
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
    import imagecodecs

    warn_of_loss(image, _KEEPS | {"png"} - ({"pixel_size"} if _dpi(image) is None else set()), None)
    content = imagecodecs.png_encode(samples_last(image), level=PNG_LEVEL)
    header = 8 + 25  # the signature and the IHDR chunk; the chunks below go between it and the pixels
    path.write_bytes(content[:header] + b"".join(_metadata_chunks(image)) + content[header:])


def _chunk(name: str, content: bytes) -> bytes:
    """A chunk of a PNG."""
    named = name.encode("latin-1") + content
    return struct.pack(">I", len(content)) + named + struct.pack(">I", zlib.crc32(named))


def _metadata_chunks(image: ImageFile) -> Iterator[bytes]:
    """The PNG chunks that hold metadata."""
    from PIL.PngImagePlugin import PngInfo

    yield from (_chunk(name, content) for name, content in image.extra.get("png", {}).items())
    if image.icc_profile:
        yield _chunk("iCCP", b"ICC Profile\0\0" + zlib.compress(image.icc_profile))
    if dpi := _dpi(image):
        yield _chunk("pHYs", struct.pack(">IIB", *(round(n / 0.0254) for n in dpi), 1))
    if exif := image.extra.get("exif"):
        yield _chunk("eXIf", exif.removeprefix(b"Exif\0\0"))
    info = PngInfo()
    for word, said in image.extra.get("text", {}).items():
        info.add_text(word.encode("latin-1", "replace").decode("latin-1")[:79], said)
    if xmp := image.extra.get("xmp"):
        info.add_itxt("XML:com.adobe.xmp", read_text(xmp))
    yield from (_chunk(name.decode(), content) for name, content, _ in info.chunks)


def write_jpeg(path: Path, image: ImageFile, quality: int = 95) -> None:
    """Write a JPEG file of a quality from 1 to 100."""
    from PIL.Image import fromarray

    extra, text = image.extra, image.extra.get("text", {})
    word = "Comment" if "Comment" in text else "Description"
    options = {
        "comment": text.get(word, "").encode(), "exif": extra.get("exif"), "xmp": extra.get("xmp"),
        "extra": _iptc_segment(extra.get("iptc", b"")), "icc_profile": image.icc_profile, "dpi": _dpi(image),
    }  # fmt: skip
    options = {
        name: part for name, part in options.items() if part and (len(part) <= _SEGMENT or name == "icc_profile")
    }
    names = {"extra": "iptc", "dpi": "pixel_size"}
    warn_of_loss(image, {names.get(name, name) for name in options}, {word} if "comment" in options else ())
    content = BytesIO()  # and not the file: there Pillow's encoders ignore a full disk
    fromarray(samples_last(image)).save(content, format="JPEG", quality=quality, subsampling=0, **options)
    path.write_bytes(content.getbuffer())


def _iptc_segment(iptc: bytes) -> bytes:
    """The segment of a JPEG that holds IPTC, as a resource of Photoshop."""
    if not 0 < len(iptc) <= _SEGMENT:
        return b""
    content = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content


def _dpi(image: ImageFile) -> tuple[float, float] | None:
    """Dots per inch (columns, rows); None for microscopic pixels, which would print as a speck."""
    if image.pixel_size is None or image.unit not in ("inch", "cm"):
        return None
    rows, columns = (0.0254 / (size * METRES[image.unit]) for size in image.pixel_size)
    return (columns, rows) if min(rows, columns) >= 1 and max(rows, columns) <= 65535 else None


def samples_last(image: ImageFile) -> NDArray[Any]:
    """The pixels of a picture as (rows, columns[, samples])."""
    return in_memory(image, [image.axes.index(letter) for letter in "YXS" if letter in image.axes])
