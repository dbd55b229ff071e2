"""From file to file, shard by shard: in bounded memory, in one process or many, going on where it was stopped."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from itertools import islice, product
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from vdsr_core.files import Busy, locked
from vdsr_core.formats import ome_zarr
from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.ome_tiff import tile_side, write_pyramid
from vdsr_core.formats.pyramid import check_place
from vdsr_core.network.checkpoint import fingerprint, load_model, save_checkpoint
from vdsr_core.network.engine import SharedEngine
from vdsr_core.network.model import VDSR
from vdsr_core.stopping import Stopped, stop_if
from vdsr_core.streaming.cluster import run_on_cluster
from vdsr_core.streaming.plan import PLACES, Index, Plan, provenance
from vdsr_core.streaming.shards import Bench, Shard, name
from vdsr_core.streaming.source import BadSource, complain, open_source

if TYPE_CHECKING:
    from distributed import Client
    from numpy.typing import NDArray

PACKED = "image.ome.tif"  # in the folder of a plan


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
    """Carry out a plan, yielding each shard when it is written; shards that an earlier run has written are left out.

    For an OME-TIFF each shard comes a second time, when it is packed into the file: that is done in one pass, by one
    process, which begins anew if it is stopped.

    Stop it in any way, and the same call goes on: at most the shards that were in the making are lost.

    Parameters
    ----------
    plan : Plan
        From `plan`.
    image : ImageFile, optional
        The source, if it was in memory.
    model : VDSR, str or path, optional
        The network of the plan.
    part : (int, int), optional
        Which part of how many, counted from 1, to be run as processes of their own, on one or several machines that
        share the target's disk. Whichever ends last builds the pyramid and puts the target in its place.
    client : distributed.Client, optional
        Of a dask cluster whose workers share the disk of source and target. By default this process computes.
    device : str, optional
        As in `super_resolve`.
    threads : int, optional
        Shards in the making at once in this process: while one is computed, others are read and written.
    stop : threading.Event, optional
        For other threads, which cannot close an iterator at work: when it is set, the iterator ends soon, in the midst
        of a shard. It is also set when the iterator is closed or fails.

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
        If a chunk of the source cannot be used (in the end, when all others are done), or source or network are
        not those of the plan.
    """
    number, count = part
    if not 1 <= number <= count:
        msg = f"`part` must be a number from 1 to the number of parts, and that, got {part}. Try (1, 1)."
        raise ValueError(msg)
    if client is not None and not plan.source:
        msg = "`client` needs a source that its workers can open, got an image in memory. Save it as zarr."
        raise ValueError(msg)
    network = model if isinstance(model, VDSR) else load_model(model)
    if fingerprint(network) != plan.network:
        msg = "`model` must be the network of the plan, got another one. Make a new plan."
        raise ValueError(msg)
    if provenance(Path(plan.target)).get("signature") == plan.signature:
        return iter(())
    check_place(Path(plan.target), plan.format, plan.overwrite)
    source = image if image is not None else open_source(plan.source, plan.axes, plan.name)
    bench = Bench(plan, source, SharedEngine(network, device), stop)
    with naming_full_disk(plan):
        prepare(plan, source, network)

    def run(tasks: list[tuple[int, Index]]) -> Iterator[Shard]:
        if client is None:
            return run_in_threads(bench, tasks, threads)
        return run_on_cluster(client, plan, tasks, device, bench.stop)

    return until_stopped(run_levels(plan, source, part, run, bench.stop))


def until_stopped(shards: Iterator[Shard]) -> Iterator[Shard]:
    """The same shards, and an end where somebody has stopped them."""
    with suppress(Stopped):
        yield from shards


def run_levels(
    plan: Plan,
    image: ImageFile,
    part: tuple[int, int],
    run: Callable[[list[tuple[int, Index]]], Iterator[Shard]],
    stop: threading.Event,
) -> Iterator[Shard]:
    """Make a part of the finest level; then, if no other part is left to do, the rest."""
    number, count = part
    with holding(plan, f"part {number} of {count}"), naming_full_disk(plan):
        shards = plan.shards(0)
        mine = shards[(number - 1) * len(shards) // count : number * len(shards) // count]
        yield from run(missing(plan, 0, mine))
    if missing(plan, 0):
        return
    try:
        with holding(plan, "the last step"), naming_full_disk(plan):
            if not plan.folder.joinpath("plan.json").exists():
                return  # another part has done it
            for level in range(1, plan.levels):
                yield from run(missing(plan, level))
            if plan.tiff:
                yield from pack(plan, image, stop)
            publish(plan)
    except Busy:
        return  # another part does it
    shutil.rmtree(plan.folder, ignore_errors=True)


def missing(plan: Plan, level: int, shards: Sequence[Index] | None = None) -> list[tuple[int, Index]]:
    """The tasks of a level that are still to be done, of all or of some shards."""
    try:
        done = set(os.listdir(plan.folder / "done"))
    except FileNotFoundError:  # another part has put the target in its place
        return []
    wanted = plan.shards(level) if shards is None else shards
    return [(level, index) for index in wanted if name(level, index) not in done]


def prepare(plan: Plan, image: ImageFile, model: VDSR) -> None:
    """Make the folder of a plan, or join it if it is there."""
    version = "0.5" if plan.tiff else plan.format
    plan.folder.mkdir(exist_ok=True)
    written = plan.folder / "plan.json"
    with FileLock(plan.folder / "begin.lock", timeout=60):
        if written.exists():
            check_same(plan, Plan.from_json(written.read_text(encoding="utf-8")))
            return
        shutil.rmtree(plan.folder / "image", ignore_errors=True)
        title = plan.name or Path(plan.target).name
        attributes = ome_zarr.describe(image, plan.scale, plan.levels, plan.in_range, version, title)
        attributes["vdsr_core"] = describe(plan)
        options = (np.dtype(plan.dtype), plan.chunk, plan.block, version)
        ome_zarr.create(plan.folder / "image", attributes, plan.shapes, *options)
        (plan.folder / "done").mkdir(exist_ok=True)
        save_checkpoint(plan.folder / "model.safetensors", model)
        part = written.with_suffix(".part")
        part.write_text(plan.to_json(), encoding="utf-8")
        part.replace(written)


def describe(plan: Plan) -> dict[str, Any]:
    """What a target says of its plan."""
    return dict(json.loads(plan.to_json())) | {"signature": plan.signature}


def check_same(plan: Plan, other: Plan) -> None:
    """Raise unless the plan that is being carried out is this one."""
    if plan.signature == other.signature:
        return
    mine, others = asdict(plan), asdict(other)
    differ = [field for field in mine if mine[field] != others[field] and field not in PLACES]
    msg = f"{plan.target} is being made after another plan, which differs in {', '.join(differ)}. "
    msg += f"Go on with that one, or delete {plan.folder}."
    raise FileExistsError(msg)


def holding(plan: Plan, what: str) -> AbstractContextManager[None]:
    """The lock of a part of a plan."""
    msg = f"{what} of {plan.target} must be computed once, got another process that is at it. Wait for that one."
    return locked(plan.folder / f"{what}.lock", msg)


@contextmanager
def naming_full_disk(plan: Plan) -> Iterator[None]:
    """Say which target it is that finds no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        msg = f"{plan.target} could not be written: {os.strerror(error.errno)}. Make room, and start again: finished "
        msg += "shards are kept."
        raise OSError(msg) from error


def pack(plan: Plan, image: ImageFile, stop: threading.Event) -> Iterator[Shard]:
    """Write the OME-TIFF from all levels, in one pass; yields each shard when it has been read."""
    levels = [ome_zarr.open_level(plan.folder / "image", level) for level in range(plan.levels)]
    sizes = dict(zip(plan.letters, plan.shape, strict=True))
    shape = [sizes[letter] for letter in image.axes]
    says = image.with_data(np.broadcast_to(np.zeros(1, plan.dtype), shape), plan.scale)
    passed: SimpleQueue[Shard] = SimpleQueue()
    watched = [Watched(plan, number, level, passed) for number, level in enumerate(levels)]
    with ThreadPoolExecutor(1) as pool:
        options = (plan.letters, says, describe(plan), tile_side(plan.tile))
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


class Watched:
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


def publish(plan: Plan) -> None:
    """Put the target in its place, in one step."""
    target, old = Path(plan.target), plan.folder / "old"
    check_place(target, plan.format, plan.overwrite)
    if target.is_dir():
        os.replace(target, old)
    os.replace(plan.folder / (PACKED if plan.tiff else "image"), target)
    (plan.folder / "plan.json").unlink()


def run_in_threads(bench: Bench, tasks: Iterable[tuple[int, Index]], threads: int) -> Iterator[Shard]:
    """Make shards in this process, a few at once."""
    waiting, bad = iter(tasks), []
    with ThreadPoolExecutor(threads) as pool:
        running: set[Future[Shard]] = {pool.submit(bench.make, *task) for task in islice(waiting, threads)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(bench.make, *task) for task in islice(waiting, len(done))}
                for future in done:
                    try:
                        yield future.result()
                    except BadSource as error:
                        bad.append(error)
        except BaseException:  # the caller has closed the generator, too
            bench.stop.set()
            for future in running:
                future.cancel()
            raise
    complain(bad)
