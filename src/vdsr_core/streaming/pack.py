"""Pack the shards of a plan into one OME-TIFF."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.formats import ome_zarr
from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.ome_tiff import tile_side, write_pyramid
from vdsr_core.stopping import Stopped, stop_if
from vdsr_core.streaming.notes import IMAGE
from vdsr_core.streaming.plan import Plan
from vdsr_core.streaming.shards import Shard
from vdsr_core.streaming.workspace import PACKED, plan_record


def pack(plan: Plan, image: ImageFile, stop: threading.Event) -> Iterator[Shard]:
    """Write the OME-TIFF from all levels, in one pass; yields each shard when it has been read."""
    levels = [ome_zarr.open_level(plan.folder / IMAGE, level) for level in range(plan.levels)]
    sizes = dict(zip(plan.letters, plan.shape, strict=True))
    shape = [sizes[letter] for letter in image.axes]
    says = image.with_data(np.broadcast_to(np.zeros(1, plan.dtype), shape), plan.scale)
    passed: SimpleQueue[Shard] = SimpleQueue()
    watched = [WatchedLevel(plan, number, level, passed) for number, level in enumerate(levels)]
    with ThreadPoolExecutor(1) as pool:
        options = (plan.letters, says, plan_record(plan), tile_side(plan.tile))
        writing = pool.submit(write_pyramid, plan.folder / PACKED, watched, *options)
        try:
            while not (writing.done() and passed.empty()):
                stop_if(stop)
                with suppress(Empty):
                    yield passed.get(timeout=0.1)
        except BaseException:  # the caller has closed the generator, too
            for level in watched:
                level.stopped = True
            raise
        writing.result()
    with (plan.folder / PACKED).open("rb+") as stream:
        os.fsync(stream.fileno())


class WatchedLevel:
    """A level of a pyramid that tells when the last pixel of a shard is read, and ends the reading on demand."""

    def __init__(self, plan: Plan, number: int, level: Any, passed: SimpleQueue[Shard]) -> None:
        self.plan, self.number, self.level, self.passed = plan, number, level, passed
        self.shape, self.dtype = level.shape, level.dtype
        self.stopped = False
        self.start = time.perf_counter()

    def __getitem__(self, window: tuple[slice, ...]) -> NDArray[Any]:
        """Pixels of a window."""
        if self.stopped:
            raise Stopped
        spans = []
        for part, size, n in zip(window, self.plan.block, self.shape, strict=True):
            start, stop, _ = part.indices(n)
            touched = range(start // size, -(-stop // size))
            spans.append([i for i in touched if start < min((i + 1) * size, n) <= stop])
        for index in product(*spans):
            self.passed.put(Shard(self.number, index, time.perf_counter() - self.start))
            self.start = time.perf_counter()
        pixels: NDArray[Any] = np.asarray(self.level[window])
        return pixels
