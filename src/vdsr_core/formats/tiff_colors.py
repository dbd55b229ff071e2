"""What the samples of a TIFF mean: gray, colours, palettes, alpha, channels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vdsr_core.formats.image_file import gray_alpha_to_rgba, native, refuse

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tifffile import TiffPageSeries

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
PREMULTIPLIED, STRAIGHT = 1, 2  # kinds of alpha; 0 is a sample of which nothing is said
CHANNEL_COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def check_kind(page: Any) -> None:
    """Refuse pixels of a kind that is not read, by its name."""
    import tifffile

    if page.photometric > PALETTE and not _is_jpeg(page):
        name = getattr(page.photometric, "name", page.photometric)
        refuse(f"its colours are {name}. Convert it to gray or RGB first.")
    if page.dtype is None or page.dtype.kind not in "biuf":
        refuse(f"its pixels are {page.dtype or f'of {page.bitspersample} bits'}. Save real numbers.")
    if page.samplesperpixel > 1 and page.planarconfig not in (1, 2):  # tifffile would read pixels that are not there
        refuse(f"its planar configuration is {page.planarconfig}, neither 1 nor 2. Copy or export it again.")
    if page.photometric == WHITE_IS_ZERO and page.dtype.kind not in "bu":
        refuse(f"white is zero in its {page.dtype} pixels. Invert it in another program first.")
    if page.photometric == PALETTE and (page.colormap is None or page.colormap.shape != (3, 2**page.bitspersample)):
        refuse("its palette is missing or incomplete. Copy or export it again.")
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
    except KeyError:
        name = getattr(page.compression, "name", page.compression)
        refuse(f"its compression is {name}, which is not read. Save it with another one first.")


def is_fax(page: Any) -> bool:
    """Whether the pages are compressed as faxes are, by CCITT."""
    return page.compression in (2, 3, 4) and len(page.treeindex) == 1 and page.samplesperpixel == 1


def _is_jpeg(page: Any) -> bool:
    """Whether the colours in the file are YCbCr, as slide scanners write them, and RGB when they are decoded."""
    return page.photometric == YCBCR and page.compression in (6, 7)


def _is_rgb(page: Any) -> bool:
    """Whether the first samples are red, green and blue."""
    return page.samplesperpixel > 2 and (page.photometric == RGB or _is_jpeg(page))


def _extra_samples(page: Any) -> tuple[int, ...]:
    """What the samples after gray or the colours are; nothing said of a single one after RGB means alpha."""
    count = page.samplesperpixel - (3 if _is_rgb(page) else 1)
    found = tuple(int(kind) for kind in page.extrasamples)
    return ((STRAIGHT,) if _is_rgb(page) and count == 1 and not found else found + (0,) * count)[:count]


def _few_bits(page: Any) -> bool:
    """Whether samples have fewer bits than their dtype, and 1 is not to stay the smallest step: white is the largest.

    Gray of 9 to 15 bits, as cameras write it, keeps its intensities, and says how many bits it has.
    """
    small = page.dtype.kind == "u" and page.bitspersample < 8 * page.dtype.itemsize
    return bool(small and (page.bitspersample < 8 or page.samplesperpixel > 1))


def has_plain_pixels(series: TiffPageSeries) -> bool:
    """Whether the pixels can be taken as they are, apart from their axes."""
    page: Any = series.keyframe
    extra = _extra_samples(page)
    alpha = extra == (PREMULTIPLIED,) or (not _is_rgb(page) and extra == (STRAIGHT,))
    known = page.photometric in (BLACK_IS_ZERO, RGB) or _is_jpeg(page)
    known = known and (page.compression != 1 or page.predictor == 1)  # a predictor of nothing: only damaged files
    return known and page.dtype.kind in "iuf" and not alpha and not _few_bits(page)


def read_colors(series: TiffPageSeries, data: Any, axes: str) -> tuple[Any, str, dict[str, Any]]:
    """Gray, RGB, RGBA or channels with black at zero, their axes, and what is known of colours beside."""
    page: Any = series.keyframe
    known: dict[str, Any] = {}
    rgb, extra = _is_rgb(page), _extra_samples(page)
    if not has_plain_pixels(series):
        data = native(data)
        if "S" in axes:
            data, axes = np.moveaxis(data, axes.index("S"), -1), axes.replace("S", "") + "S"
        if page.photometric == PALETTE:
            data, axes, known, rgb = _apply_palettes(series, data, axes)
        elif page.photometric == WHITE_IS_ZERO:
            gray = data[..., :1] if "S" in axes else data  # and not its alpha
            np.subtract(2**page.bitspersample - 1, gray, out=gray) if data.dtype != bool else np.invert(gray, out=gray)
        if not (rgb and page.photometric == PALETTE):
            data = _full_range(data, page)
        if not rgb and len(extra) == 1 and extra[0] in (PREMULTIPLIED, STRAIGHT):
            data, rgb = gray_alpha_to_rgba(data), True
        if rgb and extra == (PREMULTIPLIED,):
            data = _straighten(data)
    if page.dtype.kind == "u" and page.bitspersample < 8 * page.dtype.itemsize and not _few_bits(page):
        known = {**known, "bits": page.bitspersample}
    if "S" in axes and not (rgb and (not extra or extra in ((PREMULTIPLIED,), (STRAIGHT,)))):
        if rgb:
            known |= {"samples": extra, "channel_colors": CHANNEL_COLORS + ((255, 255, 255),) * len(extra)}
        axes = axes.replace("S", "Q" if "C" in axes else "C")
    return data, axes, known


def _full_range(data: NDArray[Any], page: Any) -> NDArray[Any]:
    """Samples of few bits with white at the largest number of their dtype."""
    if data.dtype == bool:
        return data.astype(np.uint8) * np.uint8(255)
    if not _few_bits(page):
        return data
    wide: NDArray[Any] = np.rint(data * (np.iinfo(data.dtype).max / (2**page.bitspersample - 1)))
    return wide.astype(data.dtype)


def _straighten(data: NDArray[Any]) -> NDArray[Any]:
    """RGBA (..., 4) with the colours as they were before they were multiplied by alpha."""
    top = np.iinfo(data.dtype).max if data.dtype.kind in "iu" else 1
    alpha = np.maximum(data[..., 3:].astype(np.float64), 0)
    colors = np.divide(data[..., :3] * float(top), alpha, out=np.zeros((*data.shape[:-1], 3)), where=alpha > 0)
    if data.dtype.kind in "iu":
        colors = np.minimum(np.rint(colors), top)
    return np.concatenate([colors.astype(data.dtype), data[..., 3:]], -1)


def _apply_palettes(series: TiffPageSeries, data: NDArray[Any], axes: str) -> tuple[Any, str, dict[str, Any], bool]:
    """Colours in the place of indices, or the indices where palettes are ramps, hence LUTs over intensities.

    Each page may have a palette of its own. Indices of several channels stay: their palettes are LUTs.
    """
    sizes = {letter: n for letter, n in zip(axes, data.shape, strict=True) if letter not in "YXS"}
    maps, channels = _read_palettes(series, math.prod(sizes.values())), sizes.get("C", 1)
    if "S" not in axes and (channels > 1 or all(_is_ramp(colors) for colors in maps)):
        if len(maps) > 1 and "C" in sizes:  # those of the first plane of each channel
            numbers = np.moveaxis(np.arange(len(maps)).reshape(tuple(sizes.values())), list(sizes).index("C"), 0)
            maps = [maps[i] for i in numbers.reshape(channels, -1)[:, 0]]
        if not all(_is_ramp(colors) for colors in maps) or len(maps) not in (1, channels):
            return data, axes, {"not_kept": ("palettes",)}, False
        shown = tuple(tuple(int(n) for n in colors[-1] // (257 if colors.itemsize == 2 else 1)) for colors in maps)
        return data, axes, {"channel_colors": shown * (channels // len(shown))}, False
    dtype = np.result_type(*maps)
    top = np.iinfo(dtype).max
    indices = data[..., 0] if "S" in axes else data
    tables = [colors.astype(dtype) * dtype.type(top // np.iinfo(colors.dtype).max) for colors in maps]
    pages = indices.astype(np.intp).reshape(len(maps), -1)
    colors = np.stack([table[page] for table, page in zip(tables, pages, strict=True)]).reshape(*indices.shape, 3)
    if "S" in axes:
        others = np.rint(data[..., 1:] * (top / (2**series.keyframe.bitspersample - 1)))
        colors = np.concatenate([colors, others.astype(dtype)], -1)
    return colors, axes.replace("S", "") + "S", {}, True


def _read_palettes(series: TiffPageSeries, planes: int) -> list[NDArray[Any]]:
    """The palette of each page, or only one if they are equal, or planes have no pages of their own."""
    pages: list[Any] = [page for page in series.pages if page is not None and not getattr(page, "is_virtual", False)]
    if len(pages) != planes:
        pages = [series.keyframe]
    maps = [_palette(page.aspage().colormap) for page in pages]
    return maps[:1] if len({colors.tobytes() for colors in maps}) == 1 else maps


def _palette(colormap: NDArray[np.uint16]) -> NDArray[Any]:
    """A TIFF colour map (3, n) as colours (n, 3), of 8 bits if they have no more."""
    colors = colormap.T
    if colors.max() < 256:  # some writers forget that the map has 16 bits
        return colors.astype(np.uint8)
    high, low = colors >> 8, colors & 255
    return high.astype(np.uint8) if ((low == 0) | (low == high)).all() else colors


def _is_ramp(colors: NDArray[Any]) -> bool:
    """Whether colours (n, 3) rise evenly from black to the last one, so that indices are intensities."""
    ramp = np.linspace(0, 1, len(colors))[:, None] * colors[-1]
    return bool(colors[-1].any() and np.abs(ramp - colors).max() <= colors.max() / 255)
