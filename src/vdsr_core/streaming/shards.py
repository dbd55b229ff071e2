"""Make one shard of a plan: read what it needs, compute, write, and note that it is there."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vdsr_core.formats import ome_zarr
from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.ome_zarr import coarsen
from vdsr_core.images.resampling import make_taps
from vdsr_core.images.tiling import Region, cover
from vdsr_core.network.checkpoint import load_checkpoint
from vdsr_core.network.engine import SharedEngine
from vdsr_core.stopping import stop_if
from vdsr_core.streaming.plan import VERSION, Index, Plan
from vdsr_core.streaming.source import BadSource, identify, naming_chunks, open_source
from vdsr_core.upscaling.inference import super_resolve_tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Shard:
    """A shard that has been written.

    Attributes
    ----------
    level : int
        Of the pyramid; 0 is the finest.
    index : tuple of int
        Which one.
    seconds : float
        How long it took, without waiting.
    """

    level: int
    index: Index
    seconds: float


class Bench:
    """What one process needs to make shards of a plan: the source, the network, the target.

    Parameters
    ----------
    plan : Plan
        The job.
    image : ImageFile
        Its source.
    engine : SharedEngine
        Its network.
    stop : Event, optional
        Set when nobody waits for shards any more.
    """

    def __init__(self, plan: Plan, image: ImageFile, engine: SharedEngine, stop: threading.Event | None = None) -> None:
        with suppress(BadSource):  # the shards that need such a chunk will say so
            if identify(image) != plan.identity:
                msg = f"the source must be the one of the plan, {plan.source}, got another one. Make a new plan."
                raise ValueError(msg)
        self.plan, self.image, self.engine = plan, image, engine
        self.stop = stop or threading.Event()

    def make(self, level: int, index: Index) -> Shard:
        """Compute a shard, write it, and note that it is there."""
        stop_if(self.stop)
        start = time.perf_counter()
        window = self.plan.window(level, index)
        out = ome_zarr.open_level(self.plan.folder / "image", level, "r+")
        if level:
            finer = ome_zarr.open_level(self.plan.folder / "image", level - 1)
            values = coarsen(finer, window)
        else:
            values = self.compute(window)
        out[window] = values
        sync(out, window)
        (self.plan.folder / "done" / name(level, index)).touch()
        return Shard(level, index, time.perf_counter() - start)

    def compute(self, window: tuple[slice, ...]) -> NDArray[Any]:
        """The pixels of a window of the finest level, which lies in one plane."""
        plan, axes = self.plan, self.image.axes
        wanted = dict(zip(plan.letters, window, strict=True))
        shape = dict(zip(axes, self.image.data.shape, strict=True))
        network = self.engine.model
        stops = [plan.shape[plan.letters.index(letter)] for letter in "YX"]
        (whole,) = cover(stops, None, network.halo, (wanted["Y"], wanted["X"]), align=network.config.fold)
        source = dict(wanted)
        for letter, factor, read in zip("YX", plan.scale, whole.read, strict=True):
            source[letter] = make_taps(shape[letter], factor, read.start, read.stop).source
        pixels = self.read(tuple(source[letter] for letter in axes))
        plane = [shape[letter] if letter in "YXS" else 1 for letter in axes]
        origin = [source[letter].start if letter in "YXS" else 0 for letter in axes]
        region: Any = Region(pixels, tuple(origin), tuple(plane))
        parts = [wanted[letter] if letter in "YX" else slice(0, n) for letter, n in zip(axes, plane, strict=True)]
        out = np.empty([part.stop - part.start for part in parts], self.image.data.dtype)
        with self.engine as engine:
            ready: Any = engine
            tiles = super_resolve_tiles(
                region,
                plan.scale,
                out,
                model=ready,
                channel_axis=self.image.channel_axis,
                rgb=plan.rgb,
                in_range=plan.in_range[wanted["C"].start if "C" in wanted else 0],
                tile=plan.tile,
                window=(wanted["Y"], wanted["X"]),
                stop=self.stop,
            )
            for _ in tiles:
                pass
        stop_if(self.stop)
        return np.transpose(out, [axes.index(letter) for letter in plan.letters])

    def read(self, window: tuple[slice, ...]) -> NDArray[Any]:
        """Pixels of the source, checked to be finite."""
        data = self.image.data
        with naming_chunks(data, window):
            pixels = np.asarray(data[window])
        if pixels.dtype.kind == "f" and len(bad := np.argwhere(~np.isfinite(pixels))):
            place = tuple(int(b + s.start) for b, s in zip(bad[0], window, strict=True))
            sizes = None if isinstance(data, np.ndarray) else getattr(data, "chunks", None)
            where = f"chunk {tuple(p // c for p, c in zip(place, sizes, strict=True))}" if sizes else f"pixel {place}"
            msg = (
                f"the source must be finite, got {len(bad)} NaN or infinite pixels, the first in {where}. Replace them."
            )
            raise BadSource(msg)
        return pixels


def name(level: int, index: Index) -> str:
    """The name of a shard."""
    return ".".join(map(str, (level, *index)))


def sync(array: Any, window: tuple[slice, ...]) -> None:
    """Bring the files of a window to the disk, so that a power cut cannot take what is noted as done."""
    sizes = array.shards or array.chunks
    for index in product(*(range(s.start // n, -(-s.stop // n)) for s, n in zip(window, sizes, strict=True))):
        path = Path(array.store.root) / array.path / array.metadata.encode_chunk_key(index)
        if path.exists():  # zarr writes none that holds zeros only
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


@lru_cache(maxsize=1)
def open_bench(folder: str, signature: str, device: str | None) -> Bench:
    """The bench of a plan in another process than that which began it; kept, for its network is dear to load."""
    plan = Plan.from_json((Path(folder) / "plan.json").read_text(encoding="utf-8"))
    if plan.signature != signature or plan.version != VERSION:
        msg = f"the worker must have version {plan.version} of napari-vdsr and the plan {signature}, "
        msg += f"got {VERSION} and {plan.signature}. Install the same version everywhere."
        raise RuntimeError(msg)
    model = load_checkpoint(Path(folder) / "model.safetensors")
    return Bench(plan, open_source(plan.source, plan.axes, plan.name), SharedEngine(model, device))


def make_shard(task: tuple[int, Index], folder: str, signature: str, device: str | None) -> Shard:
    """What a worker of a cluster does."""
    return open_bench(folder, signature, device).make(*task)
