"""Make one shard of a plan: read what it needs, compute, write."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.formats import ome_zarr
from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.ome_zarr import coarsen
from vdsr_core.images.missing import widen
from vdsr_core.images.resampling import make_taps, scaled_shape
from vdsr_core.images.tiling import Region, cover
from vdsr_core.network.devices import SharedEngine
from vdsr_core.stopping import stop_if
from vdsr_core.streaming.notes import IMAGE, Note
from vdsr_core.streaming.plan import Index, Plan
from vdsr_core.streaming.source import BadSource, find_chunks, find_place, is_same, look, naming_chunks, to_bytes
from vdsr_core.streaming.workspace import METADATA, store
from vdsr_core.upscaling.inference import super_resolve_tiles


@dataclass(frozen=True)
class Shard:
    """A shard that has been written.

    Attributes
    ----------
    level : int
        Level of the pyramid; 0 is the finest.
    index : tuple of int
        Position of the shard among those of its level.
    seconds : float
        Time that the work took, without waiting.
    """

    level: int
    index: Index
    seconds: float


class ShardMaker:
    """What one process needs to make shards of a plan: the source, the network, the target; until `stop` is set."""

    def __init__(self, plan: Plan, image: ImageFile, engine: SharedEngine, stop: threading.Event | None = None) -> None:
        sizes = dict(zip(image.axes, image.data.shape, strict=True))
        sizes["Y"], sizes["X"] = scaled_shape((sizes["Y"], sizes["X"]), plan.scale)
        with suppress(BadSource):  # the shards that need such a chunk will say so
            if plan.shape != tuple(map(sizes.get, plan.letters)) or not is_same(image, plan.identity):
                msg = f"the source must be the one of the plan, {plan.source}, got another one. Make a new plan."
                raise ValueError(msg)
        self.plan, self.image, self.engine = plan, image, engine
        self.stop = stop or threading.Event()
        self.seen = self.look()

    def make(self, level: int, index: Index) -> Shard:
        """Compute a shard, write it, and note that it is there."""
        stop_if(self.stop)
        start = time.perf_counter()
        window, source = self.plan.window(level, index), ""
        if level:
            values = coarsen(ome_zarr.open_level(self.plan.folder / IMAGE, level - 1), window)
        else:
            pixels = self.read(self.needed(window))
            values, source = self.compute(window, pixels), checksum(pixels)
            if self.look() != self.seen:
                msg = f"the source must stay as it is while it is upscaled, got {self.plan.source} changed or missing. "
                msg += "Restore it, and start again."
                raise ValueError(msg)
        store(self.plan, level, index, values, source)
        return Shard(level, index, time.perf_counter() - start)

    def look(self) -> list[tuple[int, int]]:
        """Size and time of the source's file, or of those that describe an array: cheap, so done for each shard."""
        place = find_place(self.image, self.plan.source)
        return [look(path) for path in (place, *(place / name for name in METADATA))] if place else []

    def is_unchanged(self, index: Index, note: Note) -> bool:
        """Whether a shard of the finest level was made from what the source holds now."""
        try:
            return checksum(self.read(self.needed(self.plan.window(0, index)))) == note.source
        except BadSource:
            return False

    def needed(self, window: tuple[slice, ...]) -> tuple[slice, ...]:
        """The window of the source that a window of the finest level depends on."""
        plan, network = self.plan, self.engine.model
        shape = dict(zip(self.image.axes, self.image.data.shape, strict=True))
        wanted = dict(zip(plan.letters, window, strict=True))
        stops = [plan.shape[plan.letters.index(letter)] for letter in "YX"]
        (whole,) = cover(stops, None, network.halo, (wanted["Y"], wanted["X"]), align=network.config.fold)
        source = dict(wanted)
        for letter, factor, read in zip("YX", plan.scale, whole.read, strict=True):
            source[letter] = make_taps(shape[letter], factor, read.start, read.stop).source
            if plan.nan == "keep":
                source[letter] = widen(source[letter], shape[letter])
        return tuple(source[letter] for letter in self.image.axes)

    def compute(self, window: tuple[slice, ...], pixels: NDArray[Any]) -> NDArray[Any]:
        """The pixels of a window of the finest level, which lies in one plane, from what it needs of the source."""
        plan, axes = self.plan, self.image.axes
        wanted = dict(zip(plan.letters, window, strict=True))
        shape = dict(zip(axes, self.image.data.shape, strict=True))
        source = dict(zip(axes, self.needed(window), strict=True))
        plane = [shape[letter] if letter in "YXS" else 1 for letter in axes]
        origin = [source[letter].start if letter in "YXS" else 0 for letter in axes]
        region: Any = Region(pixels, tuple(origin), tuple(plane))
        parts = [wanted[letter] if letter in "YX" else slice(0, n) for letter, n in zip(axes, plane, strict=True)]
        out = np.empty([part.stop - part.start for part in parts], self.image.data.dtype)
        channel = wanted["C"].start if "C" in wanted else 0
        with self.engine as engine:
            ready: Any = engine
            tiles = super_resolve_tiles(
                region,
                plan.scale,
                out,
                model=ready,
                channel_axis=self.image.channel_axis,
                rgb=plan.rgb,
                in_range=plan.in_range[channel],
                noise=plan.noise[channel] if plan.noise else 0,
                compression=plan.compression,
                tile=plan.tile,
                window=(wanted["Y"], wanted["X"]),
                nan=plan.nan,
                self_ensemble=plan.self_ensemble,
                stop=self.stop,
            )
            for _ in tiles:
                pass
        stop_if(self.stop)
        return np.transpose(out, [axes.index(letter) for letter in plan.letters])

    def read(self, window: tuple[slice, ...]) -> NDArray[Any]:
        """Pixels of the source, checked to be finite, or NaN if that is kept."""
        data = self.image.data
        with naming_chunks(data, window):
            pixels = np.asarray(data[window])
        find_bad = np.isinf if self.plan.nan == "keep" else lambda values: ~np.isfinite(values)
        if pixels.dtype.kind == "f" and len(bad := np.argwhere(find_bad(pixels))):
            place = tuple(int(b + s.start) for b, s in zip(bad[0], window, strict=True))
            sizes = find_chunks(data)
            where = f"chunk {tuple(p // c for p, c in zip(place, sizes, strict=True))}" if sizes else f"pixel {place}"
            msg = f"the source must be finite, got {len(bad)} NaN or infinite pixels, the first in {where}. "
            raise BadSource(msg + "Replace them.")
        return pixels


def checksum(pixels: NDArray[Any]) -> str:
    """A checksum of pixels."""
    return hashlib.sha256(to_bytes(pixels)).hexdigest()
