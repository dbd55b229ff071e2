"""One image on its way through one network: what is read for a tile, computed, and written, and in which order."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vdsr_core.arguments import check_switch, is_integer
from vdsr_core.images.axes import find_axes, open_image
from vdsr_core.images.color import smooth_chroma
from vdsr_core.images.intensity import Rescale, max_alpha
from vdsr_core.images.missing import check_policy, fill, nearest, widen
from vdsr_core.images.noise import Noise, check_noise, fit_blocks
from vdsr_core.images.noise_blocks import Samples, sample
from vdsr_core.images.ranges import Range, find_rescales
from vdsr_core.images.resampling import Taps, check_window, make_taps, scale_pair, scaled_shape
from vdsr_core.images.tiling import Slices, Tile, check_tile, cover, halve
from vdsr_core.memory import check_free, free_memory
from vdsr_core.network.checkpoint import to_network
from vdsr_core.network.conditions import UNTOUCHED, check_compression, check_maps, to_condition
from vdsr_core.network.devices import make_engine
from vdsr_core.network.engine import Engine
from vdsr_core.network.model import QUALITY, VDSR, Condition
from vdsr_core.stopping import Stopped, stop_if
from vdsr_core.upscaling.encoding import decode, encode
from vdsr_core.upscaling.quality import find_misfit

MAX_SCALE = 1000
Window = tuple[slice, slice]


@dataclass(frozen=True)
class Options:
    """What is asked of `super_resolve`, not checked yet; the fields are its arguments."""

    scale: float | tuple[float, float]
    model: VDSR | Engine | str | os.PathLike[str] | None = None
    channel_axis: int | None = None
    rgb: bool = False
    in_range: Range | Sequence[Range] | None = None
    tile: int | None = 1024
    window: Window | None = None
    nan: str = "raise"
    self_ensemble: bool = False
    device: str | torch.device | None = None
    noise: str | float | Noise | Sequence[Noise] = "auto"
    compression: str | float = "auto"
    known_compression: float = 0.0  # that of a file


class Job:
    """One image on its way through one network: checked options, and the memory that has proved to suffice.

    An engine may take the place of the model among the options.
    """

    def __init__(
        self,
        image: ArrayLike,
        options: Options,
        near: tuple[int, ...] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.image = open_image(image)
        self.scale = check_scale(options.scale)
        self.axes = find_axes(self.image, options.channel_axis, options.rgb)
        self.tile = check_tile(options.tile)
        self.plane = scaled_shape(self.axes.plane, self.scale)
        self.grid = (*self.axes.leading, *self.plane)  # of the whole result, without colour
        self.window = check_window(options.window, self.plane)
        engine: Any = options.model
        if not isinstance(engine, Engine):
            engine = make_engine(find_network(options.model, self.scale), options.device)
        self.engine, self.device = engine, engine.device
        check_enlarges(self.scale, engine.maps)
        self.noise = check_noise(options.noise, self.axes.channels)
        self.known_compression = options.known_compression
        self.compression = find_compression(options.compression, self.known_compression, engine)
        check_maps(engine.maps, noise=options.noise if self.noise else 0, compression=self.compression)
        self.in_range = options.in_range
        self.keep_nan = check_policy(options.nan) and self.image.dtype.kind == "f"
        self.self_ensemble = check_switch("self_ensemble", options.self_ensemble)
        self.part = None if options.window is None else self.source()
        extent = (*self.axes.leading, *(part.stop - part.start for part in self.window))
        self.shape = tuple(part.stop for part in self.axes.native(tuple(slice(0, n) for n in extent)))  # of `out`
        self.near = check_near(near, self.shape)
        self.stop = stop
        self.most = self.engine.most  # pixels that fit on the device at once, as far as is known

    @property
    def rescales(self) -> list[Rescale | float]:
        """The map of each channel to [0, 1], or its only value; reads the image, or the part that is needed."""
        return self.found[0]

    @cached_property
    def found(self) -> tuple[list[Rescale | float], list[Noise]]:
        """The map of each channel to [0, 1], and its noise, in units of the image.

        Where the range is looked for, it is seen in passing whether the network fits the image.
        """
        mapped = "noise" in self.engine.maps
        auto = self.noise is None and (mapped or self.in_range is None)
        whole = self.in_range is None or self.part is None
        samples = Samples(self.axes, self.image.dtype) if auto and whole else None
        rescales = find_rescales(self.image, self.axes, self.in_range, self.part, self.keep_nan, samples)
        if not auto:
            return rescales, self.noise or [(0.0, 0.0)] * len(rescales)
        samples = samples or sample(self.image, self.axes)
        noises = [fit_blocks(blocks) for blocks in samples.blocks]
        ranges = [(r.low, r.high) if isinstance(r, Rescale) else (r, r) for r in rescales]
        if misfit := find_misfit(self.engine.maps, noises, ranges, self.known_compression):
            warnings.warn(misfit, stacklevel=5)
        if not mapped:
            return rescales, [(0.0, 0.0)] * len(rescales)
        return rescales, self.engine.tolerance.select_noise(noises, ranges, self.compression)

    def condition(self, channel: int) -> Condition:
        """How noisy, compressed and enlarged a channel is, in the intensities of the network."""
        rescale, noise = self.found[0][channel], self.found[1][channel]
        if not isinstance(rescale, Rescale) or not self.engine.maps:
            return Condition(scale=math.sqrt(math.prod(self.scale)))
        colour = self.axes.colour is not None
        found = to_condition(noise, self.compression, rescale, self.image.dtype, colour=colour)
        return found._replace(scale=math.sqrt(math.prod(self.scale)))

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
                warnings.warn(f"{self.device} ran out of memory ({error}); continuing with smaller tiles", stacklevel=4)
            else:
                for tile, result in zip(tiles, results, strict=True):
                    out[self.place(tile).write] = self.axes.pack(result)
                return
        for part in parts:
            self.write(part, out)

    def split(self, tiles: list[Tile]) -> list[list[Tile]]:
        """The same pixels in smaller pieces; nothing if they cannot be split."""
        middle = len(tiles) // 2
        if middle:
            return [tiles[:middle], tiles[middle:]]
        parts = halve(tiles[0], self.grid, self.engine.halo, self.engine.align)
        return [[part] for part in parts] if len(parts) > 1 else []

    def compute(self, tiles: list[Tile]) -> list[NDArray[Any]]:
        """The written parts of tiles, (colours, rows, columns) each."""
        results: dict[int, NDArray[Any]] = {}
        todo, conditions = [], []
        for number, tile in enumerate(tiles):
            channel = self.axes.channel_of(tile.write)
            rescale, condition = self.rescales[channel], self.condition(channel)
            if not isinstance(rescale, Rescale):
                results[number] = np.full((self.axes.colours, *_size(tile, "write")), rescale, self.image.dtype)
            elif max(self.scale) == 1 and condition == UNTOUCHED:  # there is nothing to do
                rows, columns = tile.write[-2:]
                results[number] = self.read(tile, (rows, columns)).copy()
            else:
                todo.append((number, tile, rescale))
                conditions.append(condition)
        if todo:
            taps = [self.taps(tile.read) for _, tile, _ in todo]
            windows = [
                encode(self.pixels(tile, t, rescale.low), rescale)
                for (_, tile, rescale), t in zip(todo, taps, strict=True)
            ]
            given = conditions if self.engine.maps else None
            found = self.engine.run(windows, taps, self.stop, given, self_ensemble=self.self_ensemble)
            for (number, tile, rescale), condition, sr in zip(todo, conditions, found, strict=True):
                if self.axes.colour is not None and (noise := condition.noise) > 0:
                    sr = smooth_chroma(sr, noise, self.scale, self.engine.halo)
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
            values = np.concatenate([fill(values[:3], rest), fill(values[3:], max_alpha(values.dtype))])
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


def _size(tile: Tile, part: str = "read") -> tuple[int, int]:
    """Rows and columns of a part of a tile."""
    rows, columns = (s.stop - s.start for s in getattr(tile, part)[-2:])
    return rows, columns


def check_out(out: Any, shape: tuple[int, ...], image: Any) -> None:
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


def find_network(model: Any, scale: tuple[float, float]) -> VDSR:
    """The network itself; warns where the scale lies below those that it was trained for."""
    network = to_network(model)
    if 1 < max(scale) < min(network.scales, default=0):
        known = ", ".join(f"{known:g}" for known in network.scales)
        msg = f"the network was trained for x{known}: at x{max(scale):g} it adds too much and may be worse than "
        msg += "bicubic interpolation. Compare the two, or take a network for smaller scales."
        warnings.warn(msg, stacklevel=4)
    return network


def check_scale(scale: object) -> tuple[float, float]:
    """`scale` as (rows, columns), checked not to reduce."""
    pair = scale_pair(scale)
    if min(pair) < 1:
        msg = f"`scale` must be greater than 1, got {scale}. The function `degrade` reduces images."
        raise ValueError(msg)
    if max(pair) > MAX_SCALE:
        msg = f"`scale` must be at most {MAX_SCALE}, got {scale}. The network was made for scales of 2 to 4."
        raise ValueError(msg)
    return pair


def check_enlarges(scale: tuple[float, float], maps: Sequence[str]) -> None:
    """Raise unless a network with these maps has something to do: at scale 1 it removes noise and compression."""
    if max(scale) == 1 and set(QUALITY).isdisjoint(maps):
        msg = "`scale` must be greater than 1 for a network that removes neither noise nor compression, got 1. "
        msg += "Use one that does, such as photo, to clean an image."
        raise ValueError(msg)


def find_compression(asked: str | float, known: float, network: VDSR | Engine) -> float:
    """The compression to be removed: what is asked for, or else that of the file, if the network minds it."""
    given = check_compression(asked)
    if given is not None:
        return given
    return network.tolerance.select_compression(known) if "compression" in network.maps else 0.0


def check_near(near: tuple[int, ...] | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """`near`, checked to have a number for each axis of `out`."""
    if near is None:
        return None
    way_out = "Leave it out for the usual order."
    if not isinstance(near, tuple | list | np.ndarray) or not all(map(is_integer, near)):
        msg = f"`near` must be integers, one for each axis of `out`, got {near!r}. {way_out}"
        raise TypeError(msg)
    if len(near) != len(shape):
        msg = f"`near` must have a number for each axis of `out`, {shape}, got {near}. {way_out}"
        raise ValueError(msg)
    return tuple(map(int, near))
