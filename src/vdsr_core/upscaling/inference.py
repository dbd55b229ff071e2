"""Super-resolve an image, whole or tile by tile: the public door."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vdsr_core.arguments import is_whole
from vdsr_core.images.axes import Axes, find_axes, is_dask, open_image, unwrap
from vdsr_core.images.color import rgb_to_ycbcr, ycbcr_to_rgb
from vdsr_core.images.intensity import Extent, Rescale, cast, opaque
from vdsr_core.images.missing import check_policy, fill, nearest, widen
from vdsr_core.images.ranges import Range, check_ranges, default_range, find_rescales, is_fixed, measure_channels
from vdsr_core.images.resampling import Taps, check_window, make_taps, scale_pair, scaled_shape
from vdsr_core.images.tiling import Region, Slices, Tile, check_tile, cover, halve
from vdsr_core.memory import check_free, free_memory
from vdsr_core.network.checkpoint import fingerprint, load_model
from vdsr_core.network.devices import SharedEngine, make_engine
from vdsr_core.network.engine import IN_CACHE, Engine
from vdsr_core.network.model import VDSR
from vdsr_core.stopping import Stopped, stop_if

MAX_SCALE = 1000
Window = tuple[slice, slice]


def super_resolve(
    image: ArrayLike,
    scale: float | tuple[float, float],
    *,
    model: VDSR | str | os.PathLike[str] | None = None,
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
    tile: int | None = 1024,
    window: Window | None = None,
    nan: str = "raise",
    device: str | torch.device | None = None,
) -> Any:
    """Upscale an image with a very deep residual network [1]_.

    Parameters
    ----------
    image : (..., M, N) array_like
        Image of any real dtype. Axes before rows and columns (time, plane) are independent. Anything with a shape, a
        NumPy dtype and slicing (a memory map, a zarr array) is read window by window. Of a dask array the result is a
        dask array, see Notes.
    scale : float or (float, float)
        Output pixels per input pixel, greater than 1, for both axes or for (rows, columns); one of a pair may be 1.
        It need not be a whole number.
    model : VDSR, str or path, optional
        A network, or what `load_model` takes. The default network by default.
    channel_axis : int, optional
        Axis of the channels. They are independent unless `rgb` is True.
    rgb : bool, optional
        Whether the channels, along the last axis unless `channel_axis` says otherwise, are red, green, blue and
        perhaps alpha. Then luma goes through the network, chroma and alpha are interpolated.
    in_range : (low, high) or sequence of them, optional
        The image values that become 0 and 1 for the network, or one pair for each channel. By default 0 and 255 for
        8-bit RGB, else what `find_range` finds. Values outside are not clipped; the network alone
        is shown them clipped, to a quarter of the range beyond it.
    tile : int or None, optional
        Side of a tile in output pixels. The result does not depend on it (see Notes); memory does, and time a little:
        what tiles share, `VDSR.halo` pixels on each side, is computed twice. None takes each plane in one piece.
    window : (slice, slice), optional
        Rows and columns of the result to compute, the whole by default. With `in_range`, only those input pixels are
        read and checked that the window needs.
    nan : {"raise", "keep"}, optional
        Whether pixels that are NaN are an error, or pixels without a value: the result is NaN where its nearest input
        pixel is. The network gets the mean of known neighbours there, up to 4 pixels away, and the low end of the range
        further inside; the range is found without them.
    device : str or torch.device, optional
        Where to compute: by default CUDA, MPS or the CPU, the first that is there and works.

    Returns
    -------
    out : (..., round(scale * M), round(scale * N)) ndarray or dask array
        Or the `window` of that. Same dtype and intensity units as `image`; integers are rounded and saturated, floats
        are not clipped, except where they would end in infinity: finite pixels give finite ones. Pixel areas are
        aligned at the origin: the centre of output pixel i lies at (i + 0.5) / scale - 0.5 in the input.

    Raises
    ------
    TypeError
        If `image` is not of a real dtype, or an option is of the wrong type.
    ValueError
        If `scale` is not greater than 1, `image` is empty or holds NaN, infinity or masked pixels, looks like colour
        without `rgb` or `channel_axis`, or an option has no such value.
    MemoryError
        If the result, or a tile, cannot fit in memory.

    Warns
    -----
    UserWarning
        If the scale lies below all that the network was trained for: there it may do harm.

    See Also
    --------
    super_resolve_tiles : The same, one tile at a time.
    resize : Plain bicubic interpolation.

    Notes
    -----
    Tiles overlap by the receptive field of the network and are interpolated from global positions. So the result for
    any tile size equals that for the whole image, to the rounding of the device: 1e-5 of the range in float32, 1e-3
    in half precision (CUDA); of integers one step at least. On one CPU it is the same bit for bit whatever else is
    computed.

    Of a dask array nothing is computed, nor read, before the result is. Its chunks are the tiles; each reads the
    chunks of `image` that it needs. Unless `in_range` is given or the image is 8-bit RGB, every computation begins
    with one pass over the whole of `image`, which finds the range: to look at a part here and a part there, give
    ``in_range=find_range(image)``.

    A constant image comes back constant, without the network. Where only parts of it are seen, a `window` or a dask
    array with an `in_range` of more than that value or of 8-bit RGB, nobody knows that it is constant, and the network
    is asked.

    References
    ----------
    .. [1] J. Kim, J. K. Lee, K. M. Lee, "Accurate Image Super-Resolution Using Very Deep Convolutional Networks",
           CVPR 2016. https://arxiv.org/abs/1511.04587

    Examples
    --------
    >>> import numpy as np
    >>> ramp = np.arange(0, 60000, 1000, dtype=np.uint16).reshape(5, 12)
    >>> out = super_resolve(ramp, 2.5)
    >>> out.shape, out.dtype
    ((12, 30), dtype('uint16'))
    """
    image = unwrap(image)
    if is_dask(image):
        return _super_resolve_lazily(image, scale, model, channel_axis, rgb, in_range, tile, window, device, nan)
    job = _Job(image, scale, model, channel_axis, rgb, in_range, tile, window, device, nan=nan)
    job.check_memory(math.prod(job.shape) * job.image.dtype.itemsize)
    out = np.empty(job.shape, job.image.dtype)
    for _ in job.run(out):
        pass
    return out


def super_resolve_tiles(
    image: ArrayLike,
    scale: float | tuple[float, float],
    out: Any,
    *,
    model: VDSR | str | os.PathLike[str] | None = None,
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
    tile: int | None = 1024,
    window: Window | None = None,
    near: tuple[int, ...] | None = None,
    nan: str = "raise",
    device: str | torch.device | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Tile]:
    """Upscale an image tile by tile into `out`, as `super_resolve` does.

    Arguments are checked at the call, before the first tile. Closing the iterator cancels the rest; so does setting
    `stop`, in the midst of a tile.

    Parameters
    ----------
    image, scale, model, channel_axis, rgb, in_range, tile, window, nan, device
        As in `super_resolve`.
    out : array
        Where to write: an ndarray, a memory map, a zarr array; of the shape of the result and the dtype of `image`.
    near : tuple of int, optional
        A pixel of `out`, one number for each of its axes: its plane comes first, and in a plane the tiles nearest to
        it. By default tiles come in C order.
    stop : threading.Event, optional
        For other threads, such as a window's, which cannot close an iterator at work: when it is set, the iterator ends
        soon, and what it was computing is not written.

    Yields
    ------
    Tile
        Each tile after ``out[tile.write]`` is written. Its slices are on the grid and in the axis order of `out`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As in `super_resolve`, and if `out` has another shape or dtype, cannot be written, or overlaps `image`.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.eye(8, dtype=np.float32)
    >>> out = np.empty((16, 16), np.float32)
    >>> [tile.write for tile in super_resolve_tiles(image, 2, out, tile=8)][-1]
    (slice(8, 16, None), slice(8, 16, None))
    """
    job = _Job(image, scale, model, channel_axis, rgb, in_range, tile, window, device, near, stop, nan)
    _check_out(out, job.shape, job.image)
    job.check_memory(0)
    _ = job.rescales  # pixels and range are checked at the call
    return job.run(out)


def find_range(
    image: ArrayLike, *, channel_axis: int | None = None, rgb: bool = False, nan: str = "raise"
) -> Range | list[Range]:
    """The range of an image that `super_resolve` maps to [0, 1] by default.

    It runs between the extremes that three of the four pixels of some 2 x 2 block reach, over all planes, with a
    quarter of that added on each side. So hot or dead pixels, alone or in pairs, do not count, while the smallest
    real spot does. For 8-bit RGB it is 0 and 255.

    Parameters
    ----------
    image, channel_axis, rgb, nan
        As in `super_resolve`.

    Returns
    -------
    (low, high), or a list of them
        One for each channel of `channel_axis`, unless `rgb` is True. Equal numbers for a constant image.

    Raises
    ------
    TypeError, ValueError
        If `image` is no image, or holds infinity, or NaN that is not to be kept.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.full((4, 8), 100, np.uint16)
    >>> image[:, 4:] = 200
    >>> image[1, 1] = 65535
    >>> find_range(image)
    (75.0, 225.0)
    """
    pixels = open_image(image)
    axes, keep_nan = find_axes(pixels, channel_axis, rgb), check_policy(nan)
    ranges: list[Range]
    if is_fixed(pixels.dtype, axes):
        ranges = [default_range(pixels.dtype, axes, Extent())]
    elif is_dask(pixels):
        ranges = _find_range_lazily(pixels, axes, keep_nan).compute()
    else:
        ranges = [
            default_range(pixels.dtype, axes, extent) for extent in measure_channels(pixels, axes, keep_nan=keep_nan)
        ]
    return ranges if axes.channel is not None else ranges[0]


def network_planes(
    image: ArrayLike,
    *,
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
) -> Iterator[NDArray[np.float32] | None]:
    """What the network sees of an image: plane by plane, each in the range that `super_resolve` maps it to.

    Parameters
    ----------
    image, channel_axis, rgb, in_range
        As in `super_resolve`.

    Yields
    ------
    (M, N) ndarray or None
        Each plane of each channel, or its luma; None for a plane of a constant channel, which the network never sees.
    """
    pixels = open_image(image)
    axes = find_axes(pixels, channel_axis, rgb)
    rescales = find_rescales(pixels, axes, in_range)
    for index in np.ndindex(*axes.leading):
        leading = tuple(slice(i, i + 1) for i in index)
        rescale = rescales[axes.channel_of(leading)]
        values = axes.unpack(np.asarray(pixels[axes.native((*leading, *(slice(0, n) for n in axes.plane)))]))
        yield encode(values, rescale)[0].astype(np.float32) if isinstance(rescale, Rescale) else None


class _Job:
    """One image on its way through one network: checked arguments, and the memory that has proved to suffice."""

    def __init__(
        self,
        image: ArrayLike,
        scale: float | tuple[float, float],
        model: VDSR | Engine | str | os.PathLike[str] | None,
        channel_axis: int | None,
        rgb: bool,
        in_range: Range | Sequence[Range] | None,
        tile: int | None,
        window: Window | None,
        device: str | torch.device | None,
        near: tuple[int, ...] | None = None,
        stop: threading.Event | None = None,
        nan: str = "raise",
    ) -> None:
        self.image = open_image(image)
        self.scale = _check_scale(scale)
        self.axes = find_axes(self.image, channel_axis, rgb)
        self.tile = check_tile(tile)
        self.plane = scaled_shape(self.axes.plane, self.scale)
        self.grid = (*self.axes.leading, *self.plane)  # of the whole result, without colour
        self.window = check_window(window, self.plane)
        if not isinstance(model, Engine):
            model = make_engine(_find_network(model, self.scale), device)
        self.engine, self.device = model, model.device
        self.in_range = in_range
        self.keep_nan = check_policy(nan) and self.image.dtype.kind == "f"
        self.part = None if window is None else self.source()
        extent = (*self.axes.leading, *(part.stop - part.start for part in self.window))
        self.shape = tuple(part.stop for part in self.axes.native(tuple(slice(0, n) for n in extent)))  # of `out`
        self.near = _check_near(near, self.shape)
        self.stop = stop
        self.most = self.engine.most  # pixels that fit on the device at once, as far as is known

    @cached_property
    def rescales(self) -> list[Rescale | float]:
        """The map of each channel to [0, 1], or its only value; reads the image, or the part that is needed."""
        return find_rescales(self.image, self.axes, self.in_range, self.part, self.keep_nan)

    def check_memory(self, result: int) -> None:
        """Raise if the result and one tile on the CPU need more memory than is free; reads no pixels."""
        tile = max(self.plane) if self.tile is None else self.tile
        spans = zip(self.plane, self.window, strict=True)
        side = [min(n, min(tile, part.stop - part.start) + 2 * self.engine.halo) for n, part in spans]
        piece = self.engine.memory(side[0], side[1]) if self.device.type == "cpu" else 0
        smaller = result < free_memory() / 2
        way_out = "Use a smaller `tile`." if smaller else "Use `super_resolve_tiles` with `out` on disk."
        check_free(result + piece, "`image`, upscaled, and a tile at work", way_out)

    def run(self, out: Any) -> Iterator[Tile]:
        """Write all tiles into `out`, yielding each when it is written; ends early when it is to stop."""
        for batch in self.batches():
            try:
                stop_if(self.stop)
                self.write(batch, out)
            except Stopped:
                return
            yield from (self.place(tile) for tile in batch)

    def place(self, tile: Tile) -> Tile:
        """A tile on the grid of `out`: what it reads beyond that is left out."""
        first = [0] * len(self.axes.leading) + [part.start for part in self.window]
        stops = [*self.axes.leading, *(part.stop for part in self.window)]
        read, write, crop = [], [], []
        for r, w, start, stop in zip(tile.read, tile.write, first, stops, strict=True):
            low = max(r.start, start)
            read.append(slice(low - start, min(r.stop, stop) - start))
            write.append(slice(w.start - start, w.stop - start))
            crop.append(slice(w.start - low, w.stop - low))
        return Tile(*(self.axes.native(tuple(part)) for part in (read, write, crop)))

    def tiles(self) -> list[Tile]:
        """The tiles of the window, in the order they are wanted."""
        found = cover(self.grid, self.tile, self.engine.halo, self.window, align=self.engine.align)
        if self.near is None:
            return found
        *planes, row, column = (self.near[axis] for axis in self.axes.order)
        point = (*planes, row + self.window[0].start, column + self.window[1].start)

        def distance(tile: Tile) -> tuple[int, int]:
            away = [max(w.start - at, at - w.stop + 1, 0) for w, at in zip(tile.write, point, strict=True)]
            return sum(away[:-2]), away[-2] ** 2 + away[-1] ** 2

        return sorted(found, key=distance)

    def source(self) -> tuple[slice, slice]:
        """The rows and columns of the image that the window needs."""
        whole = cover(self.plane, None, self.engine.halo, self.window, align=self.engine.align)[0]
        rows, columns = (t.source for t in self.taps(whole.read))
        return self.widened((rows, columns)) if self.keep_nan else (rows, columns)

    def batches(self) -> Iterator[list[Tile]]:
        """Tiles, a few of equal size at a time."""
        batch: list[Tile] = []
        for tile in self.tiles():
            more = (len(batch) + 1) * math.prod(_size(tile))
            if batch and (more > self.engine.pixels or _size(tile) != _size(batch[0])):
                yield batch
                batch = []
            batch.append(tile)
        yield batch

    def write(self, tiles: list[Tile], out: Any) -> None:
        """Compute tiles of equal size; where memory runs out, halve the batch, then the tile."""
        pixels = len(tiles) * math.prod(_size(tiles[0]))
        parts = self.split(tiles)
        if pixels <= self.most or not parts:
            try:
                results = self.compute(tiles)
            except MemoryError as error:
                if not parts:
                    raise
                self.most = pixels // 2
                warnings.warn(f"{self.device} ran out of memory ({error}); going on with smaller tiles", stacklevel=4)
            else:
                for tile, result in zip(tiles, results, strict=True):
                    out[self.place(tile).write] = self.axes.pack(result)
                return
        for part in parts:
            self.write(part, out)

    def split(self, tiles: list[Tile]) -> list[list[Tile]]:
        """The same pixels in smaller pieces; nothing if there are none."""
        middle = len(tiles) // 2
        if middle:
            return [tiles[:middle], tiles[middle:]]
        parts = halve(tiles[0], self.grid, self.engine.halo, self.engine.align)
        return [[part] for part in parts] if len(parts) > 1 else []

    def compute(self, tiles: list[Tile]) -> list[NDArray[Any]]:
        """The written parts of tiles, (colours, rows, columns) each."""
        results: dict[int, NDArray[Any]] = {}
        todo = []
        for number, tile in enumerate(tiles):
            rescale = self.rescales[self.axes.channel_of(tile.write)]
            if isinstance(rescale, Rescale):
                todo.append((number, tile, rescale))
            else:
                results[number] = np.full((self.axes.colours, *_size(tile, "write")), rescale, self.image.dtype)
        if todo:
            taps = [self.taps(tile.read) for _, tile, _ in todo]
            windows = [
                encode(self.pixels(tile, t, rescale.low), rescale)
                for (_, tile, rescale), t in zip(todo, taps, strict=True)
            ]
            for (number, tile, rescale), sr in zip(todo, self.engine.run(windows, taps, self.stop), strict=True):
                values = sr[:, *tile.crop[-2:]]
                results[number] = decode(values, rescale, self.image.dtype)
        if self.keep_nan:
            for number, tile in enumerate(tiles):
                results[number][self.holes(tile)] = np.nan
        return [results[number] for number in range(len(tiles))]

    def taps(self, read: Slices) -> tuple[Taps, Taps]:
        """The taps of some rows and columns of the result."""
        rows, columns = (
            make_taps(n, s, part.start, part.stop)
            for n, s, part in zip(self.axes.plane, self.scale, read[-2:], strict=True)
        )
        return rows, columns

    def pixels(self, tile: Tile, taps: tuple[Taps, Taps], rest: float) -> NDArray[Any]:
        """The input pixels that a tile needs, (colours, rows, columns); NaN is filled, at last by `rest`."""
        rows, columns = (t.source for t in taps)
        if not self.keep_nan:
            return self.read(tile, (rows, columns))
        wide = self.widened((rows, columns))
        values = self.read(tile, wide)
        if np.isnan(values).any():
            values = np.concatenate([fill(values[:3], rest), fill(values[3:], opaque(values.dtype))])
        down, right = (part.start - more.start for part, more in zip((rows, columns), wide, strict=True))
        return values[:, down : down + rows.stop - rows.start, right : right + columns.stop - columns.start]

    def holes(self, tile: Tile) -> NDArray[Any]:
        """Where the result is NaN because the nearest input pixel is, (colours, rows, columns)."""
        rows, columns = (
            nearest(n, s, part) for n, s, part in zip(self.axes.plane, self.scale, tile.write[-2:], strict=True)
        )
        values = self.read(tile, (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)))
        unknown: NDArray[Any] = np.isnan(values)
        return unknown[:, rows[:, None] - rows[0], columns - columns[0]]

    def widened(self, parts: tuple[slice, slice]) -> tuple[slice, slice]:
        """Rows and columns of the image, and those that fill their NaN."""
        rows, columns = (widen(part, n) for part, n in zip(parts, self.axes.plane, strict=True))
        return rows, columns

    def read(self, tile: Tile, parts: tuple[slice, slice]) -> NDArray[Any]:
        """Rows and columns of the plane that a tile lies in, (colours, rows, columns)."""
        return self.axes.unpack(np.asarray(self.image[self.axes.native((*tile.read[:-2], *parts))]))


def encode(window: NDArray[Any], rescale: Rescale) -> NDArray[np.float64]:
    """Image units to what the network and the taps take: gray, or luma, chroma and alpha; (C, h, w)."""
    if len(window) == 1:
        return rescale.forward(window)
    values = rescale.forward(window[:3])
    if len(window) == 3:
        return rgb_to_ycbcr(values)
    # Premultiplied: the colour of transparent pixels must not bleed into the others.
    alpha = window[3:].astype(np.float64) / opaque(window.dtype)
    return np.concatenate([rgb_to_ycbcr(values * alpha), alpha])


def decode(values: NDArray[Any], rescale: Rescale, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The inverse of `encode`, some rows at a time, so that what lies in between stays in the cache."""
    image = np.empty(values.shape, dtype)
    for top in range(0, values.shape[1], IN_CACHE):
        image[:, top : top + IN_CACHE] = _decode(values[:, top : top + IN_CACHE], rescale, dtype)
    return image


def _decode(values: NDArray[Any], rescale: Rescale, dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(values) == 1:
        return rescale.inverse(values, dtype)
    colours = ycbcr_to_rgb(values[:3].astype(np.float64))
    if len(values) == 3:
        return rescale.inverse(colours, dtype)
    alpha = np.clip(values[3:].astype(np.float64), 0, 1)
    step = 0.5 / opaque(dtype) if dtype.kind in "ui" else 0.0  # less comes out as no alpha at all
    visible = alpha > max(step, np.finfo(values.dtype).eps)
    colours = np.where(visible, colours / np.where(visible, alpha, 1), 0)
    # Overshoot divided by a small alpha is no colour.
    colours = np.where(alpha < 1 - 1e-6, np.clip(colours, 0, 1), colours)
    return np.concatenate([rescale.inverse(colours, dtype), cast(alpha * opaque(dtype), dtype)])


def _size(tile: Tile, part: str = "read") -> tuple[int, int]:
    """Rows and columns of a part of a tile."""
    rows, columns = (s.stop - s.start for s in getattr(tile, part)[-2:])
    return rows, columns


def _check_out(out: Any, shape: tuple[int, ...], image: Any) -> None:
    """Raise unless the result, of `shape`, can be written to `out`."""
    if not all(hasattr(out, name) for name in ("shape", "dtype", "__setitem__")):
        msg = f"`out` must be an array, got {type(out).__name__}. Use `np.empty({shape}, {image.dtype.name!r})`."
        raise TypeError(msg)
    if tuple(out.shape) != shape or out.dtype != image.dtype:
        msg = f"`out` must have shape {shape} and dtype {image.dtype}, got {tuple(out.shape)} and {out.dtype}."
        raise ValueError(msg)
    if not out.flags.writeable if isinstance(out, np.ndarray) else getattr(out, "read_only", False):
        msg = "`out` must be writable, got a read-only array. Open or copy it for writing."
        raise ValueError(msg)
    if isinstance(out, np.ndarray) and isinstance(image, np.ndarray) and np.may_share_memory(out, image):
        msg = "`out` must not share memory with `image`, which is read until the last tile. Use `image.copy()`."
        raise ValueError(msg)


def _find_network(model: VDSR | str | os.PathLike[str] | None, scale: tuple[float, float]) -> VDSR:
    """The network itself; warns where the scale lies below those that it was trained for."""
    network = model if isinstance(model, VDSR) else load_model(model)
    if max(scale) < min(network.scales, default=0):
        known = ", ".join(f"{known:g}" for known in network.scales)
        msg = f"the network was trained for x{known}: at x{max(scale):g} it adds too much and may be worse than "
        msg += "bicubic interpolation. Compare the two, or take a network for smaller scales."
        warnings.warn(msg, stacklevel=4)
    return network


def _check_scale(scale: object) -> tuple[float, float]:
    """`scale` as (rows, columns), checked to enlarge."""
    pair = scale_pair(scale)
    if min(pair) < 1 or max(pair) == 1:
        msg = f"`scale` must be greater than 1, got {scale}. Use `degrade` to reduce an image."
        raise ValueError(msg)
    if max(pair) > MAX_SCALE:
        msg = f"`scale` must be at most {MAX_SCALE}, got {scale}. The network was made for scales of 2 to 4."
        raise ValueError(msg)
    return pair


def _check_near(near: tuple[int, ...] | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """`near`, checked to have a number for each axis of `out`."""
    if near is None:
        return None
    if not isinstance(near, tuple | list | np.ndarray) or not all(map(is_whole, near)):
        msg = f"`near` must be whole numbers, one for each axis of `out`, got {near!r}. Leave it out for the usual "
        msg += "order."
        raise TypeError(msg)
    if len(near) != len(shape):
        msg = (
            f"`near` must have a number for each axis of `out`, {shape}, got {near}. Leave it out for the usual order."
        )
        raise ValueError(msg)
    return tuple(map(int, near))


# ------------------------------------------------------------------------------------------------- dask arrays


def _super_resolve_lazily(
    image: Any,
    scale: float | tuple[float, float],
    model: VDSR | str | os.PathLike[str] | None,
    channel_axis: int | None,
    rgb: bool,
    in_range: Range | Sequence[Range] | None,
    tile: int | None,
    window: Window | None,
    device: str | torch.device | None,
    nan: str,
) -> Any:
    """A dask array of the super-resolved image, whose chunks are tiles."""
    from vdsr_core.upscaling import dask_graphs as lazy

    tile = check_tile(tile)
    axes = find_axes(open_image(image), channel_axis, rgb)
    image = lazy.tidy(image, axes.colour)
    pair, keep_nan = _check_scale(scale), check_policy(nan)
    plane = scaled_shape(axes.plane, pair)
    part = check_window(window, plane)
    model = _find_network(model, pair)
    channels = 1 if axes.channel is None else axes.leading[axes.channel]
    ranges: Any = None if in_range is None else check_ranges(in_range, channels)
    if ranges is None:
        fixed = is_fixed(image.dtype, axes)
        ranges = [default_range(image.dtype, axes, Extent())] if fixed else _find_range_lazily(image, axes, keep_nan)

    chunks: list[list[int]] = [[1] * n for n in image.shape]
    sources = [[slice(i, i + 1) for i in range(n)] for n in image.shape]
    if axes.colour is not None:
        chunks[axes.colour], sources[axes.colour] = [axes.colours], [slice(0, axes.colours)]
    for axis, length, stop, factor in zip(axes.order[-2:], axes.plane, plane, pair, strict=True):
        tiles = [(t.read[1], t.write[1]) for t in cover((1, stop), tile, model.halo, align=model.config.fold)]
        chunks[axis] = [write.stop - write.start for _, write in tiles]
        sources[axis] = [make_taps(length, factor, read.start, read.stop).source for read, _ in tiles]
        if keep_nan:
            sources[axis] = [widen(source, length) for source in sources[axis]]
    options = (pair, channel_axis, rgb, tile, nan)
    token = (fingerprint(model), *options, in_range, str(device))
    compute = _LazyTile(SharedEngine(model, device), axes, plane, *options)
    result = lazy.map_tiles(image, chunks, sources, compute, ranges, token, keep_nan)
    return result[axes.native((*(slice(0, n) for n in axes.leading), *part))]


def _find_range_lazily(image: Any, axes: Axes, keep_nan: bool) -> Any:
    """A delayed list of ranges, one for each channel."""
    from vdsr_core.upscaling import dask_graphs as lazy

    image = lazy.tidy(image, axes.colour)
    channel = None if axes.channel is None else axes.order[axes.channel]
    extents, finish = (
        partial(_measure_piece, axes=axes, keep_nan=keep_nan),
        partial(_default_ranges, dtype=image.dtype, axes=axes),
    )
    rows, columns = axes.order[-2:]
    return lazy.measure_chunks(image, rows, columns, channel, extents, finish, keep_nan)


def _measure_piece(values: NDArray[Any], axes: Axes, keep_nan: bool) -> list[Extent]:
    """The extents of the channels in a piece of an image."""
    return measure_channels(values, replace(axes, shape=values.shape), keep_nan=keep_nan)


def _default_ranges(extents: list[Extent], dtype: np.dtype[Any], axes: Axes) -> list[Range]:
    """The default range of each channel."""
    return [default_range(dtype, axes, extent) for extent in extents]


@dataclass(frozen=True)
class _LazyTile:
    """How a chunk of a lazy result is computed."""

    network: SharedEngine
    axes: Axes
    plane: tuple[int, int]  # of the result
    scale: tuple[float, float]
    channel_axis: int | None
    rgb: bool
    tile: int | None
    nan: str

    def __call__(self, ranges: list[Range], index: tuple[int, ...], region: Region) -> NDArray[Any]:
        """The pixels of the chunk `index`, of the region of the image that it needs."""
        axes = self.axes
        origin, shape = list(region.origin), list(region.shape)
        for axis in axes.order[:-2]:  # the plane that the tile lies in, as if it were all
            origin[axis], shape[axis] = 0, 1
        image: Any = replace(region, origin=tuple(origin), shape=tuple(shape))
        numbers = [index[axis] for axis in axes.order]
        in_range = ranges[0 if axes.channel is None else numbers[axes.channel]]
        sides = [self.tile or n for n in self.plane]
        rows, columns = (
            slice(i * side, min((i + 1) * side, n)) for i, side, n in zip(numbers[-2:], sides, self.plane, strict=True)
        )
        with self.network as engine:
            options = (self.channel_axis, self.rgb, in_range, self.tile, (rows, columns), None)
            job = _Job(image, self.scale, engine, *options, nan=self.nan)
            out = np.empty(job.shape, image.dtype)
            for _ in job.run(out):
                pass
        return out
