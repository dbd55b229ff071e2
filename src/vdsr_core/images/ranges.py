"""Which values of an image become 0 and 1 for the network, channel by channel."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np

from vdsr_core.images.axes import Axes, is_dask
from vdsr_core.images.intensity import LIMIT, Extent, Rescale, blocks, check_unmasked, measure, opaque
from vdsr_core.images.sampling import Samples

Range = tuple[float, float]


def measure_channels(
    image: Any,
    axes: Axes,
    part: tuple[slice, slice] | None = None,
    keep_nan: bool = False,
    samples: Samples | None = None,
) -> list[Extent]:
    """The extent of each independent channel, or of a part of it, alpha left out; raises unless it is finite.

    `samples` get the same windows, so that they need no second pass.
    """
    extents = [Extent()] * axes.channels
    corner, size = (0, 0), axes.plane
    if part is not None:
        corner, size = (part[0].start, part[1].start), (part[0].stop - part[0].start, part[1].stop - part[1].start)
    chunks = getattr(image, "chunks", None)  # of zarr and HDF5
    chunk = (chunks[axes.order[-2]], chunks[axes.order[-1]]) if chunks and not is_dask(image) else None
    for index in np.ndindex(*axes.leading):
        leading = tuple(slice(i, i + 1) for i in index)
        channel = axes.channel_of(leading)
        for block in blocks(size, chunk):
            window = [slice(first + s.start, first + s.stop) for first, s in zip(corner, block, strict=True)]
            values = axes.unpack(np.asarray(image[axes.native((*leading, *window))]))
            extents[channel] = extents[channel].merge(measure(values[:3], keep_nan))
            if samples is not None:
                samples.add(index, window, values)
            if len(values) == 4:
                alpha = measure(values[3:], keep_nan)
                extents[channel] = extents[channel].merge(Extent(invalid=alpha.invalid))
                if not alpha.invalid and alpha.maximum > opaque(values.dtype):
                    msg = f"`image` must have alpha of at most 1 where it is float, got {alpha.maximum}. Divide alpha."
                    raise ValueError(msg)
    if invalid := sum(extent.invalid for extent in extents):
        msg = f"`image` must be finite, got {invalid} NaN or infinite pixels. "
        msg += "Replace them, as by `np.nan_to_num`" + (".", ", or keep NaN by `nan='keep'`.")[not keep_nan]
        raise ValueError(msg)
    return extents


def is_fixed(dtype: np.dtype[Any], axes: Axes) -> bool:
    """Whether the range does not depend on the pixels: that of 8-bit colour."""
    return axes.colour is not None and dtype == np.uint8


def default_range(dtype: np.dtype[Any], axes: Axes, extent: Extent) -> Range:
    """The range that is mapped to [0, 1] if none is given."""
    if is_fixed(dtype, axes):
        return 0.0, 255.0
    if extent.minimum > extent.maximum:  # no pixel has a value
        return 0.0, 0.0
    low, high = extent.in_range
    if not extent.constant and not (low < high and math.isfinite(high - low)):
        refuse_span(extent)
    return low, high


def refuse_span(extent: Extent) -> NoReturn:
    """Raise because float64 cannot hold the range of an image."""
    msg = f"`image` must span a range that float64 resolves and holds, got {extent.minimum} to {extent.maximum}. "
    msg += "Subtract an offset, or divide it by a constant, first."
    raise ValueError(msg)


def check_reach(rescale: Rescale, extent: Extent) -> Rescale:
    """`rescale`, unless the image lies so far outside it, or fills so little of it, that float32 loses it."""
    reach = np.abs(rescale.forward(np.array([extent.low, extent.high], np.float64))).max()
    spread = (extent.maximum - extent.minimum) / (rescale.high - rescale.low)
    if reach >= LIMIT or (spread <= 1 / LIMIT and not extent.constant):
        msg = f"`in_range` must be near the values of `image`, {extent.minimum} to {extent.maximum}, "
        msg += f"got {(rescale.low, rescale.high)}. Leave it out to find it."
        raise ValueError(msg)
    return rescale


def check_ranges(in_range: Any, channels: int) -> list[Range]:
    """`in_range` as one pair for each channel."""
    check_unmasked(in_range, "in_range")
    try:
        given = np.asarray(in_range, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        given = np.empty(0)
    if given.shape not in ((2,), (channels, 2)):
        msg = f"`in_range` must be (low, high), or {channels} of them, one for each channel, got {in_range!r}."
        raise ValueError(msg)
    ranges = [(float(low), float(high)) for low, high in np.broadcast_to(given, (channels, 2))]
    for low, high in ranges:
        Rescale(low, high if low != high else low + 1)  # raises; equal ones are right for a constant channel
    return ranges


def find_rescales(
    image: Any,
    axes: Axes,
    in_range: Any,
    part: tuple[slice, slice] | None = None,
    keep_nan: bool = False,
    samples: Samples | None = None,
) -> list[Rescale | float]:
    """For each independent channel its map to [0, 1], or its only value where it is known to be constant.

    If the range is given, only `part` of the planes is looked at: that a channel is constant shows in the range.
    `samples` are filled where all is looked at.
    """
    extents = measure_channels(image, axes, None if in_range is None else part, keep_nan, samples)
    if in_range is None:
        ranges = [default_range(image.dtype, axes, extent) for extent in extents]
    else:
        ranges = check_ranges(in_range, len(extents))
    whole = in_range is None or part is None
    return [_find_rescale(low, high, extent, axes, whole) for (low, high), extent in zip(ranges, extents, strict=True)]


def _find_rescale(low: float, high: float, extent: Extent, axes: Axes, whole: bool) -> Rescale | float:
    """The map of a range to [0, 1], or the only value of a channel; `extent` may not be that of the whole."""
    if extent.minimum > extent.maximum:  # no pixel that was looked at has a value
        extent = Extent(low, low, low, low)
    if not extent.constant or (low != high and not whole):
        return check_reach(Rescale(low, high), extent)
    if axes.colours < 4 and low <= high:
        return extent.minimum
    above = high if low != high else low + max(1, abs(low))  # alpha may vary where the colour does not
    if math.isinf(above) and math.isfinite(high):
        refuse_span(extent)
    return Rescale(low, above)
