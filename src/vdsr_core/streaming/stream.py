"""Upscale from file to file, shard by shard: in bounded memory, in one process or many, resumable."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vdsr_core.files import Busy
from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.pyramid import check_place
from vdsr_core.network.checkpoint import fingerprint, to_network
from vdsr_core.network.devices import SharedEngine
from vdsr_core.network.model import VDSR
from vdsr_core.stopping import Stopped
from vdsr_core.streaming.cluster import run_on_cluster
from vdsr_core.streaming.pack import pack
from vdsr_core.streaming.plan import Index, Plan
from vdsr_core.streaming.shards import Shard, ShardMaker
from vdsr_core.streaming.source import BadSource, open_source, raise_bad_chunks, stamp
from vdsr_core.streaming.workspace import holding, is_published, missing, naming_full_disk, prepare, publish, sweep

if TYPE_CHECKING:
    from distributed import Client


def stream(
    plan: Plan,
    *,
    image: ImageFile | None = None,
    model: VDSR | str | os.PathLike[str] | None = None,
    part: tuple[int, int] = (1, 1),
    client: Client | None = None,
    device: str | None = None,
    threads: int = 2,
    stop: threading.Event | None = None,
) -> Iterator[Shard]:
    """Carry out a plan, yielding each shard when it is written; shards that an earlier run has written are skipped.

    For an OME-TIFF, each shard is yielded a second time when it is packed into the file. One process packs all shards
    in one pass, and starts that pass again if it is stopped.

    If the work is stopped in any way, even by killing the process, the same call resumes it: only the shards that were
    being made are lost. If the source's files have changed meanwhile, shards that were made from other pixels are made
    again. Before the target appears, the source is checked once more.

    Parameters
    ----------
    plan : Plan
        From `plan`.
    image : ImageFile, optional
        The source, if it is in memory.
    model : VDSR, str or path, optional
        The network of the plan.
    part : (int, int), optional
        Number of the part, counted from 1, and number of parts. Each part is run as a separate process, on one or
        several machines that share the target's disk. The part that ends last builds the pyramid and puts the target in
        its place.
    client : distributed.Client, optional
        A client of a dask cluster whose workers share the disk of source and target. By default this process computes.
    device : str, optional
        As in `super_resolve`.
    threads : int, optional
        Number of shards that this process works on at once: while one is computed, others are read and written.
    stop : threading.Event, optional
        For other threads, which cannot close an iterator that is running: when it is set, the iterator ends soon, in
        the middle of a shard. It is also set when the iterator is closed or fails.

    Yields
    ------
    Shard

    Raises
    ------
    FileExistsError
        If the target exists, or is being made after another plan.
    RuntimeError
        If another process is at work on the same part.
    ValueError
        If a chunk of the source cannot be used (raised when all other shards are done), source or network are
        not those of the plan, or the source changes during the run.
    PermissionError
        If the hidden folder beside the target was made by another user.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from vdsr_core import ImageFile, VDSR, VDSRConfig, plan, verify
    >>> image, model = ImageFile(np.eye(300, dtype=np.uint8), "YX"), VDSR(VDSRConfig(depth=3, width=4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     job = plan(image, 2, f"{folder}/eye_x2.ome.zarr", model=model)
    ...     print([(shard.level, shard.index) for shard in stream(job, image=image, model=model)])
    ...     print({check.ok for check in verify(job.target, source=image, model=model)})
    [(0, (0, 0))]
    {True}
    """
    number, count = part
    if not 1 <= number <= count:
        msg = f"`part` must be (number, count), 1 <= number <= count, got {part}. Try (1, 1)."
        raise ValueError(msg)
    if client is not None and not plan.source:
        msg = "`client` needs a source that its workers can open, got an image in memory. Save it as zarr."
        raise ValueError(msg)
    network = to_network(model)
    if fingerprint(network) != plan.network:
        msg = "`model` must be the network of the plan, got another one. Make a new plan."
        raise ValueError(msg)
    if is_published(plan):
        sweep(Path(plan.target))  # a process may have been killed before it did so
        return until_stopped(iter(()))
    check_place(Path(plan.target), plan.format, plan.overwrite)
    source = image if image is not None else open_source(plan.source, plan.axes, plan.name)
    plan = replace(plan, stamp=stamp(source, plan.source))
    maker = ShardMaker(plan, source, SharedEngine(network, device), stop)
    with naming_full_disk(plan):
        prepare(plan, source, network, maker.is_unchanged)

    def run(tasks: Iterable[tuple[int, Index]]) -> Iterator[Shard]:
        if client is None:
            return run_in_threads(maker, tasks, threads)
        return run_on_cluster(client, plan, list(tasks), device, maker.stop)

    return until_stopped(run_levels(plan, source, part, run, maker.stop))


def until_stopped(shards: Iterator[Shard]) -> Iterator[Shard]:
    """The same shards, and an end where somebody has stopped them."""
    with suppress(Stopped):
        yield from shards


def run_levels(
    plan: Plan,
    image: ImageFile,
    part: tuple[int, int],
    run: Callable[[Iterable[tuple[int, Index]]], Iterator[Shard]],
    stop: threading.Event,
) -> Iterator[Shard]:
    """Make a part of the finest level; then, if no other part is left to do, the rest."""
    number, count = part
    if is_published(plan):
        return
    with holding(plan, f"part {number} of {count}"), naming_full_disk(plan):
        shards = plan.shards(0)
        mine = shards[(number - 1) * len(shards) // count : number * len(shards) // count]
        yield from run(missing(plan, 0, mine))
    if is_published(plan) or any(missing(plan, 0)):  # another part has done it, or is to do it
        return
    try:
        with holding(plan, "the last step"), naming_full_disk(plan):
            if is_published(plan):
                return
            for level in range(1, plan.levels):
                yield from run(missing(plan, level))
            if plan.tiff:
                yield from pack(plan, image, stop)
            publish(plan, image)
    except Busy:
        return  # another part does it


def run_in_threads(maker: ShardMaker, tasks: Iterable[tuple[int, Index]], threads: int) -> Iterator[Shard]:
    """Make shards in this process, a few at once."""
    waiting, bad = iter(tasks), []
    with ThreadPoolExecutor(threads) as pool:
        running: set[Future[Shard]] = {pool.submit(maker.make, *task) for task in islice(waiting, threads)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(maker.make, *task) for task in islice(waiting, len(done))}
                for future in done:
                    try:
                        yield future.result()
                    except BadSource as error:
                        bad.append(error)
        except BaseException:  # the caller has closed the generator, too
            maker.stop.set()
            for future in running:
                future.cancel()
            raise
    raise_bad_chunks(bad)
