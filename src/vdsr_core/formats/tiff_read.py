"""Read TIFF, OME-TIFF and ImageJ files."""

from __future__ import annotations

import logging
import math
import os
import struct
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vdsr_core.formats.image_file import ImageFile, check_memory, count_channels, fitting_profile, refuse, upright
from vdsr_core.formats.ome_xml import parse_ome
from vdsr_core.formats.png_jpeg import measure_tables
from vdsr_core.formats.tiff_colors import check_kind, has_plain_pixels, is_fax, read_colors
from vdsr_core.formats.tiff_metadata import read_metadata

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray
    from tifffile import TiffFile, TiffPage, TiffPageSeries

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it complains of is found and refused here
WAY_OUT = "Copy or export it again."
_USED_TAGS = {270, 274, 282, 283, 320, 34675, 50838, 50839}  # description, orientation, sizes, colours, ImageJ's
_RATIOS = {1: 1, 5: 2600, 8: 1032, 32946: 1032, 32773: 64}  # bytes that one byte of a compression becomes, at most
_JPEG = (6, 7, 33007, 34892)  # old and new JPEG, another number of it, and that of lossy DNG
_MOST = 10**5  # the same of a compression without such a limit; and planes that a text may promise beside the pages


def read_tiff(path: Path, *, lazy: bool = False, name: str | None = None) -> ImageFile:
    """Read an image of a TIFF file, the only one without `name`; with `lazy` its pixels stay there, if they can."""
    with open_tiff(path) as tif:
        series = _find_series(tif, name)
        page = series.keyframe
        check_kind(page)
        _check_complete(tif, series)
        orientation = 1 if tif.is_ome or tif.is_imagej else page.tags.valueof(274, default=1)
        if lazy and orientation == 1 and has_plain_pixels(series) and _counts_fit(series):
            pixels = _open_pixels(path, series, tif.series.index(series))
        else:
            check_memory(series.nbytes)
            pixels = _read_fax(path, series) if is_fax(page) else series.asarray()
        data, axes, known = read_colors(series, pixels, series.axes)
        known = read_metadata(tif, series, known)
        profile = page.tags.valueof(34675)
        compression = _measure_jpeg(page)
    if orientation != 1 and known["extra"].pop("geotiff", None):  # it places the pixels as they are stored
        known["extra"]["not_kept"] = (*known["extra"].get("not_kept", ()), "GeoTIFF tags")
    if len(known.get("channel_names", ())) != count_channels(data.shape, axes):
        known.pop("channel_names", None)
    image = ImageFile(data, axes, icc_profile=fitting_profile(profile, axes), compression=compression, **known)
    return upright(image, orientation)


@contextmanager
def open_tiff(path: Path) -> Iterator[TiffFile]:
    """Open a TIFF whose list of pages ends, and whose description promises no more than the file can hold."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        pages = _count_pages(tif)
        if tif.is_ome:
            _check_ome(path, parse_ome(tif), pages)
        yield tif


def _count_pages(tif: TiffFile) -> int:
    """The number of pages, whose list is neither a ring nor broken off."""
    try:
        offset = tif.pages.first.offset
    except IndexError:  # len(tif.pages) would say it, too, but would never end in a ring
        refuse(f"it holds no image. {WAY_OUT}")
    tiff, handle, seen = tif.tiff, tif.filehandle, set[int]()
    while offset:
        if offset in seen:
            refuse(f"its list of pages leads back to an earlier one after {len(seen)}. {WAY_OUT}")
        seen.add(offset)
        handle.seek(offset)
        try:
            (count,) = struct.unpack(tiff.tagnoformat, handle.read(tiff.tagnosize))
            handle.seek(offset + tiff.tagnosize + count * tiff.tagsize)
            (offset,) = struct.unpack(tiff.offsetformat, handle.read(tiff.offsetsize))
        except (struct.error, OSError, ValueError):
            refuse(f"its list of pages breaks off after {len(seen) - 1}. {WAY_OUT}")
    return len(seen)


def _check_ome(path: Path, root: Element, pages: int) -> None:
    """Refuse OME-XML that needs files which are missing, elsewhere, or beyond what files of this size can hold."""
    if (master := root.find("{*}BinaryOnly")) is not None:
        refuse(f"it is a part of the image that {master.get('MetadataFile')} describes. Convert that one.")
    others = _ome_files(root)
    for name in sorted(others):
        if os.path.basename(name) != name or not (path.parent / name).is_file():
            refuse(f"it is a part of an image in several files, and {name} is missing. Put all into one folder.")
    for pixels in root.iterfind("{*}Image/{*}Pixels"):
        planes = math.prod(int(pixels.get(f"Size{axis}", 1)) for axis in "ZCT")
        counts = [int(block.get("PlaneCount", block.get("NumPlanes", 0))) for block in pixels.iterfind("{*}TiffData")]
        if max(planes, *counts, 0) > _MOST + 100 * pages * (1 + len(others)):
            refuse(f"its pages are not those that its description promises. {WAY_OUT}")


def _ome_files(root: Element) -> set[str]:
    """The names of the other files that hold pixels of the images of OME-XML."""
    own = root.get("UUID")
    found = root.iterfind("{*}Image/{*}Pixels/{*}TiffData/{*}UUID")
    return {name for part in found if part.text != own and (name := part.get("FileName"))}


def tiff_names(path: Path) -> list[str]:
    """The names of the images of a TIFF file."""
    with open_tiff(path) as tif:
        return _names(_images(tif))


def tiff_parts(path: Path) -> list[Path]:
    """The files that the images of a TIFF are spread over, itself among them."""
    with open_tiff(path) as tif:
        names = _ome_files(parse_ome(tif)) if tif.is_ome else set()
    return [path, *(path.with_name(name) for name in sorted(names) if name != path.name)]


def _images(tif: TiffFile) -> list[TiffPageSeries]:
    """The images of a TIFF, thumbnails and masks aside."""
    return [series for series in tif.series if not (series.keyframe.is_reduced or series.keyframe.is_mask)]


def _names(images: Sequence[TiffPageSeries]) -> list[str]:
    """What the file calls its images, where that tells one from another, else their numbers."""
    names = [series.name.strip() for series in images]
    return names if all(names) and len(set(names)) == len(names) else [str(number) for number in range(len(names))]


def _find_series(tif: TiffFile, name: str | None) -> TiffPageSeries:
    """The image of that name, or the only one of a TIFF."""
    every = _images(tif)
    if not every:
        refuse(f"it holds no image. {WAY_OUT}")
    names = _names(every)
    if name is None and len(every) > 1:
        refuse(f"it holds {len(every)} images: {', '.join(names[:4])} ... Give the `name` of one.")
    if name is not None and name not in names:
        refuse(f"it holds no image {name}, but {', '.join(names[:4])} ... Give one of these names.")
    return every[0 if name is None else names.index(name)]


def _check_complete(tif: TiffFile, series: TiffPageSeries) -> None:
    """Refuse a TIFF that lacks a page, strip or tile: tifffile logs that, and reads fewer pages or zeros."""
    if _lost_tags(tif.pages.first) & _USED_TAGS:
        refuse(f"it ends before its tags do. {WAY_OUT}")
    if series.kind in ("generic", "uniform") and (tif.is_ome or tif.is_imagej or tif.is_shaped):
        refuse(f"its pages are not those that its description promises. {WAY_OUT}")
    offset, nbytes = series.dataoffset, series.nbytes
    if offset is not None and not 0 < offset <= tif.filehandle.size - nbytes:
        refuse(f"it ends before its {nbytes} bytes of pixels do. {WAY_OUT}")
    for index, page in enumerate([] if offset is not None else series.pages):
        if page is None or not _is_complete(page):
            refuse(f"page {index} of {len(series.pages)} is missing or incomplete. {WAY_OUT}")


def _lost_tags(page: TiffPage) -> set[int]:
    """The tags that the page lists and tifffile dropped, because they point beyond the file."""
    tiff, handle = page.parent.tiff, page.parent.filehandle
    handle.seek(page.offset)
    (count,) = struct.unpack(tiff.tagnoformat, handle.read(tiff.tagnosize))
    entries = handle.read(count * tiff.tagsize)
    codes = [entries[i : i + 2] for i in range(0, len(entries), tiff.tagsize)]
    return {struct.unpack(tiff.byteorder + "H", code)[0] for code in codes} - set(page.tags.keys())


def _is_complete(page: Any) -> bool:
    """Whether every strip or tile of a TiffPage or TiffFrame lies inside the file, and they can hold the pixels.

    Tiles without place and length are background, as GDAL and slide scanners leave them out.
    """
    size = page.parent.filehandle.size
    if page.is_contiguous and any(page.dataoffsets):
        return bool(page.dataoffsets[0] + page.nbytes <= size)
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    there = [segment for segment in segments if not page.keyframe.is_tiled or any(segment)]
    ratio = _RATIOS.get(page.keyframe.compression, _MOST)
    share = len(there) / max(1, len(segments))
    packed = math.ceil(page.nbytes * page.keyframe.bitspersample / 8 / page.keyframe.dtype.itemsize)
    return (
        len(segments) >= math.prod(page.chunked)
        and bool(there)
        and all(offset > 0 and count > 0 and offset + count <= size for offset, count in there)
        and packed * share <= ratio * sum(count for _, count in there)
    )


def _measure_jpeg(page: TiffPage) -> float:
    """How strongly the pixels of a page are compressed by JPEG, as `ImageFile.compression` has it."""
    from PIL.JpegImagePlugin import JpegImageFile

    if page.compression not in _JPEG:
        return 0.0
    offset, count = next(pair for pair in zip(page.dataoffsets, page.databytecounts, strict=True) if all(pair))
    page.parent.filehandle.seek(offset)
    content = page.parent.filehandle.read(count)
    if page.jpegtables:  # which the tiles share: without its end and their beginning, one stream
        content = page.jpegtables[:-2] + content[2:]
    try:
        return measure_tables(JpegImageFile(BytesIO(content)))
    except (SyntaxError, OSError):  # more than 8 bits, or without loss
        return 0.0


def _counts_fit(series: TiffPageSeries) -> bool:
    """Whether pages in one piece are as long as their tags say; else only whole pages are read rightly."""
    pages = [] if series.dataoffset is not None else [page for page in series.pages if page is not None]
    return all(sum(page.databytecounts) >= page.nbytes for page in pages if page.is_contiguous)


def coarser_levels(path: Path) -> list[Any]:
    """All levels of the only image of a TIFF but the finest, lazily; none where the pixels have to be changed."""
    with open_tiff(path) as tif:
        series = _find_series(tif, None)
        levels = range(1, len(series.levels) if has_plain_pixels(series) else 1)
        return [_open_pixels(path, series, tif.series.index(series), level) for level in levels]


def _open_pixels(path: Path, series: TiffPageSeries, number: int, level: int = 0) -> Any:
    """The pixels as a memory map, or as a zarr array whose chunks are the tiles or strips of the file."""
    import tifffile

    if series.dataoffset is not None and not level:
        dtype = series.dtype.newbyteorder(series.keyframe.parent.byteorder)
        return np.memmap(path, dtype, "r", series.dataoffset, series.shape)
    from vdsr_core.formats.zarr_array import open_array

    opened = tifffile.TiffFile(path)
    array = open_array(opened.series[number].aszarr(level=level))
    weakref.finalize(array, opened.close)  # stays open as long as the array is used
    return array


def _read_fax(path: Path, series: TiffPageSeries) -> NDArray[np.bool_]:
    """The pixels of fax pages as libtiff decodes them; warn where tifffile decodes others."""
    from imagecodecs import tiff_decode  # unlike Pillow's, this libtiff prints nothing of damaged pages

    content = path.read_bytes()
    pages = [tiff_decode(content, index=page.index) for page in series.pages if page is not None]
    found: NDArray[np.bool_] = np.reshape(pages, series.shape)
    try:
        differ = f"{np.mean(series.asarray() != found):.1%}"
    except Exception:  # codes that only libtiff knows, or damaged ones
        differ = "some"
    if differ != "0.0%":
        msg = f"Decoders of faxes differ in {differ} of the pixels; those of libtiff are taken. Look at the image."
        warnings.warn(msg, stacklevel=4)
    return found
