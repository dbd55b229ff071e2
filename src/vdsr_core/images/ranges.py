"""Which values of an image become 0 and 1 for the network, channel by channel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from vdsr_core.images.axes import Axes, is_dask
from vdsr_core.images.intensity import LIMIT, Rescale, check_unmasked, max_alpha
from vdsr_core.images.noise_blocks import Samples

MARGIN = 0.25  # of the robust range, added on each side: chosen by benchmarks/in_range.py
SLAB = 1 << 22  # pixels looked at in one go, so that a scan needs little memory
Range = tuple[float, float]


@dataclass(frozen=True)
class Extent:
    """The extreme values of an image or of a part of it; the extents of parts merge into that of the whole.

    `low` and `high` are the robust range: the extremes that three of the four pixels of a 2 x 2 block reach, so that
    hot or dead pixels do not count, alone or in pairs, while the smallest real spot does.
    """

    low: float = math.inf
    high: float = -math.inf
    minimum: float = math.inf  # of all pixels; of integers as int, so that it is exact
    maximum: float = -math.inf
    invalid: int = 0  # how many pixels are NaN or infinite

    def merge(self, other: Extent) -> Extent:
        """The extent of two parts together."""
        return Extent(
            min(self.low, other.low),
            max(self.high, other.high),
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.invalid + other.invalid,
        )

    @property
    def constant(self) -> bool:
        """True when all pixels are equal."""
        return self.minimum == self.maximum

    @property
    def in_range(self) -> tuple[float, float]:
        """The range to map to [0, 1]: the robust one, or the full one where all else is lone pixels, and a margin."""
        low, high = (self.low, self.high) if self.low < self.high else (self.minimum, self.maximum)
        margin = MARGIN * (high - low)
        return float(low - margin), float(high + margin)


def measure(values: NDArray[Any], keep_nan: bool = False) -> Extent:
    """The extent of the pixels (..., M, N) of an array in memory; NaN does not count if it is to be kept.

    In a single row or column, two neighbours take the place of a 2 x 2 block.
    """
    lower, upper = values, values  # where NaN is neither low nor high
    if values.dtype.kind == "f" and (invalid := values.size - np.count_nonzero(np.isfinite(values))):
        unknown = np.isnan(values) & keep_nan
        if np.count_nonzero(unknown) < invalid:
            return Extent(invalid=int(invalid - np.count_nonzero(unknown)))
        lower, upper = np.where(unknown, np.inf, values), np.where(unknown, -np.inf, values)
    middle = _middle(lower)
    low, high = np.maximum(*middle).min(), np.minimum(*(middle if upper is lower else _middle(upper))).max()
    return Extent(low.item(), high.item(), lower.min().item(), upper.max().item())


def _middle(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The two middle ones of the four values of each 2 x 2 block, in no order."""
    lower, upper = values, values
    if values.shape[-1] > 1:
        lower, upper = np.minimum(values[..., :-1], values[..., 1:]), np.maximum(values[..., :-1], values[..., 1:])
    if values.shape[-2] > 1:
        lower = np.maximum(lower[..., :-1, :], lower[..., 1:, :])
        upper = np.minimum(upper[..., :-1, :], upper[..., 1:, :])
    return lower, upper


def scan_windows(plane: tuple[int, int], chunk: tuple[int, int] | None = None) -> Iterator[tuple[slice, slice]]:
    """Windows that cover a plane of (rows, columns), each overlapping the next by a pixel: no 2 x 2 block is lost.

    They are slabs of whole rows, or are cut where the chunks of a chunked array end, so that few are read twice.
    """
    rows, columns = plane
    height, width = chunk or (1, columns)
    across = min(columns, max(2, width * max(1, math.isqrt(SLAB // (height * width)))))
    down = max(2, height * max(1, SLAB // (height * across)))
    for top in range(0, rows, down):
        for left in range(0, columns, across):
            yield (slice(max(0, top - 1), min(rows, top + down)), slice(max(0, left - 1), min(columns, left + across)))


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
        for block in scan_windows(size, chunk):
            window = [slice(first + s.start, first + s.stop) for first, s in zip(corner, block, strict=True)]
            values = axes.unpack(np.asarray(image[axes.native((*leading, *window))]))
            extents[channel] = extents[channel].merge(measure(values[:3], keep_nan))
            if samples is not None:
                samples.add(index, window, values)
            if len(values) == 4:
                alpha = measure(values[3:], keep_nan)
                extents[channel] = extents[channel].merge(Extent(invalid=alpha.invalid))
                if not alpha.invalid and alpha.maximum > max_alpha(values.dtype):
                    msg = f"`image` must have alpha of at most 1 where it is float, got {alpha.maximum}. Divide alpha."
                    raise ValueError(msg)
    if invalid := sum(extent.invalid for extent in extents):
        msg = f"`image` must be finite, got {invalid} NaN or infinite pixels. "
        msg += "Replace them, for instance by `np.nan_to_num`" + (".", ", or keep NaN by `nan='keep'`.")[not keep_nan]
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
