"""From file to file, shard by shard: in bounded memory, in one process or many, going on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import metadata
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from vdsr_core import ome_zarr
from vdsr_core.checkpoint import fingerprint, load_checkpoint, load_model, save_checkpoint
from vdsr_core.engine import Engine, SharedEngine, choose_device
from vdsr_core.files import check_target
from vdsr_core.image_file import ImageFile
from vdsr_core.inference import find_range, super_resolve, super_resolve_tiles
from vdsr_core.io import read_image
from vdsr_core.model import VDSR
from vdsr_core.resampling import make_taps, scale_pair, scaled_shape
from vdsr_core.tiling import Region, cover

if TYPE_CHECKING:
    from distributed import Client
    from numpy.typing import NDArray

Index = tuple[int, ...]
Range = tuple[float, float]
VERSION = metadata.version("napari-vdsr")
SAMPLES, SAMPLE = 16, 64  # windows of the source, and their sides, that tell it from others


class BadSource(ValueError):
    """Pixels of the source that cannot be used; the shards that do without them can be made."""


@dataclass(frozen=True)
class Plan:
    """A job of upscaling one file into another: all that its pixels depend on, as JSON can hold it.

    Made by `plan`, carried out by `stream`. A shard is what one task writes: a window of one plane, or of all colours
    of one, in one level of the pyramid.

    Attributes
    ----------
    source, target : str
        Paths; `source` is empty for an image in memory.
    identity : str
        A checksum of the source's shape, dtype and samples of its pixels.
    axes : str
        Of the source, a letter each. The target has them in the order T, C, Z, Y, X; colour samples are channels.
    shape : tuple of int
        Of the target, in its own order of axes.
    dtype : str
        Of source and target.
    scale : (float, float)
        Output pixels per input pixel of rows and columns.
    network : str
        A checksum of the network.
    in_range : tuple of (low, high)
        For each channel; one for all three colours, or without channels.
    tile, shard : int
        Sides in output pixels of what the network is given and of what one task writes.
    format : str
        ``0.5`` or ``0.4``, of OME-Zarr.
    version : str
        Of this package.
    overwrite : bool
        Whether an existing target may be replaced.

    Examples
    --------
    >>> job = Plan("cells.zarr", "cells_x2.ome.zarr", "", "YX", (9000, 5000), "uint16", (2.0, 2.0), "", ((0, 4095),))
    >>> job.levels, len(job.shards(0)), job.nbytes
    (6, 15, 90000000)
    >>> Plan.from_json(job.to_json()) == job
    True
    """

    source: str
    target: str
    identity: str
    axes: str
    shape: Index
    dtype: str
    scale: tuple[float, float]
    network: str
    in_range: tuple[Range, ...]
    tile: int = 512
    shard: int = 2048
    format: str = "0.5"
    version: str = VERSION
    overwrite: bool = False

    def to_json(self) -> str:
        """All fields, as text."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The inverse of `to_json`."""
        given = json.loads(text)
        pairs = tuple((low, high) for low, high in given.pop("in_range"))
        return cls(**given | {"shape": tuple(given["shape"]), "scale": tuple(given["scale"]), "in_range": pairs})

    @property
    def signature(self) -> str:
        """A checksum of all that the pixels depend on: not of the paths."""
        fields = {name: value for name, value in asdict(self).items() if name not in ("source", "target", "overwrite")}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """Where the work goes on, beside the target."""
        target = Path(self.target)
        return target.with_name(f".{target.name}.partial")

    @property
    def rgb(self) -> bool:
        """Whether the source has colour samples."""
        return "S" in self.axes

    @property
    def letters(self) -> str:
        """The axes of the source in the order of the target."""
        return ome_zarr.order_axes(self.axes)

    @property
    def shapes(self) -> list[Index]:
        """Of the levels of the pyramid."""
        return ome_zarr.level_shapes(self.shape, self.tile)

    @property
    def levels(self) -> int:
        """How many the pyramid has."""
        return len(self.shapes)

    @property
    def block(self) -> Index:
        """The shape of a shard, unless the edge of the image cuts it."""
        return self._sized(max(1, self.shard // self.tile) * self.tile)

    @property
    def chunk(self) -> Index:
        """The shape of a chunk: shards are made of whole ones."""
        return self._sized(self.tile)

    def _sized(self, side: int) -> Index:
        lengths = {"Y": side, "X": side, "S": self.shape[self.letters.index("S")] if self.rgb else 1}
        return tuple(lengths.get(letter, 1) for letter in self.letters)

    @property
    def nbytes(self) -> int:
        """Of the pixels of the finest level, before compression."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def shards(self, level: int) -> list[Index]:
        """The indices of a level's shards, in C order."""
        counts = (range(-(-n // size)) for n, size in zip(self.shapes[level], self.block, strict=True))
        return list(product(*counts))

    def window(self, level: int, index: Index) -> tuple[slice, ...]:
        """What a shard holds of its level."""
        sizes = zip(index, self.block, self.shapes[level], strict=True)
        return tuple(slice(i * size, min((i + 1) * size, n)) for i, size, n in sizes)


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


def plan(
    source: str | os.PathLike[str] | ImageFile,
    scale: float | tuple[float, float],
    target: str | os.PathLike[str],
    *,
    model: VDSR | str | os.PathLike[str] | None = None,
    axes: str | None = None,
    in_range: Range | Sequence[Range] | None = None,
    tile: int = 512,
    shard: int = 2048,
    format: str = "0.5",
    overwrite: bool = False,
) -> Plan:
    """Plan to upscale an image into an OME-Zarr pyramid.

    Reads the whole source once to find `in_range`, unless that is given or the image is 8-bit RGB. Nothing is written.

    Parameters
    ----------
    source : path or ImageFile
        A zarr array, an OME-Zarr group (its finest level), a TIFF file or another image. An image in memory can be
        streamed in this process only.
    scale : float or (float, float)
        As in `super_resolve`.
    target : path
        The folder to write; it appears when it is whole.
    model, in_range, tile
        As in `super_resolve`; the tile is also the chunk of the target.
    axes : str, optional
        What the axes of the source are, a letter each, if it says nothing or something wrong.
    shard : int, optional
        Side in output pixels of what one task computes, and of a file of the target in version 0.5. Rounded down to
        whole tiles, at least one.
    format : {"0.5", "0.4"}, optional
        Version of OME-Zarr; 0.4 has a file for each chunk.
    overwrite : bool, optional
        Whether an existing target may be replaced, in the end.

    Returns
    -------
    Plan

    Raises
    ------
    FileNotFoundError, PermissionError, FileExistsError
        If the source is missing, or the target exists or cannot be written.
    ValueError, TypeError
        If the source or an option cannot be used.
    """
    if format not in ome_zarr.VERSIONS:
        msg = f"`format` must be one of {', '.join(ome_zarr.VERSIONS)}, got {format!r}. Take 0.5 where in doubt."
        raise ValueError(msg)
    check_target(Path(target), overwrite)
    image = open_source(source, axes)
    letters = ome_zarr.order_axes(image.axes)
    network = model if isinstance(model, VDSR) else load_model(model)
    options: dict[str, Any] = {"channel_axis": image.channel_axis, "rgb": image.rgb}
    corner = image.data[
        tuple(slice(0, 1 if letter in "YX" else n) for letter, n in zip(image.axes, image.data.shape, strict=True))
    ]
    super_resolve(np.zeros_like(corner), scale, model=network, tile=tile, **options)  # raises for wrong options
    data: Any = image.data
    with naming_chunks(data):
        found = in_range if in_range is not None else find_range(data, **options)
    channels = 1 if image.rgb or image.channel_axis is None else image.data.shape[image.channel_axis]
    ranges = np.broadcast_to(np.asarray(found, np.float64), (channels, 2))
    pair, sizes = scale_pair(scale), dict(zip(image.axes, image.data.shape, strict=True))
    sizes["Y"], sizes["X"] = scaled_shape((sizes["Y"], sizes["X"]), pair)
    return Plan(
        source="" if isinstance(source, ImageFile) else str(Path(source).resolve()),
        target=str(Path(target).resolve()),
        identity=identify(image),
        axes=image.axes,
        shape=tuple(sizes[letter] for letter in letters),
        dtype=image.data.dtype.newbyteorder("=").name,
        scale=pair,
        network=fingerprint(network),
        in_range=tuple((float(low), float(high)) for low, high in ranges),
        tile=tile,
        shard=shard,
        format=format,
        overwrite=overwrite,
    )


def open_source(source: str | os.PathLike[str] | ImageFile, axes: str | None = None) -> ImageFile:
    """An image, lazily where its file can be read by windows; with other axes if they are given."""
    image = source if isinstance(source, ImageFile) else read_image(source, lazy=True)
    return image if axes is None else replace(image, axes=axes)


def identify(image: ImageFile) -> str:
    """A checksum of shape, dtype, axes and samples of the pixels, spread over the image."""
    digest = hashlib.sha256(f"{image.axes} {image.data.shape} {image.data.dtype.newbyteorder('=')}".encode())
    for sample in range(SAMPLES):
        window = []
        for number, (letter, n) in enumerate(zip(image.axes, image.data.shape, strict=True)):
            length = min(n, SAMPLE if letter in "YX" else 4 if letter == "S" else 1)
            # Steps of the golden ratio's powers: no two axes move together.
            start = int((sample * 0.6180339887498949 ** (number + 1)) % 1 * (n - length + 1))
            window.append(slice(start, start + length))
        with naming_chunks(image.data, tuple(window)):
            pixels = np.asarray(image.data[tuple(window)])
        digest.update(np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)).tobytes())
    return digest.hexdigest()


@contextmanager
def naming_chunks(data: Any, window: tuple[slice, ...] | None = None) -> Iterator[None]:
    """Say which chunk of an array it is that cannot be read, if that is why the block fails."""
    try:
        yield
    except Exception as error:  # decoders raise anything on damaged chunks
        chunks = getattr(data, "chunks", None)
        if isinstance(data, np.ndarray) or not chunks:
            raise
        spans = [range(n) for n in data.shape] if window is None else [range(s.start, s.stop) for s in window]
        for index in product(
            *(range(span.start // c, -(-span.stop // c)) for span, c in zip(spans, chunks, strict=True))
        ):
            try:
                data[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunks, strict=True))]
            except Exception as cause:
                msg = f"chunk {index} of the source cannot be read: {cause}. Restore it, and start again."
                raise BadSource(msg) from error
        raise


class Stopped(Exception):
    """Nobody waits for the shard any more."""


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
    """

    def __init__(self, plan: Plan, image: ImageFile, engine: SharedEngine) -> None:
        with suppress(BadSource):  # the shards that need such a chunk will say so
            if identify(image) != plan.identity:
                msg = f"the source must be the one of the plan, {plan.source}, got another one. Make a new plan."
                raise ValueError(msg)
        self.plan, self.image, self.engine = plan, image, engine
        self.stopped = False

    def make(self, level: int, index: Index) -> Shard:
        """Compute a shard, write it, and note that it is there."""
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
        halo = self.engine.model.halo
        source = dict(wanted)
        for letter, factor in zip("YX", plan.scale, strict=True):
            stop = plan.shape[plan.letters.index(letter)]
            part = wanted[letter]
            read = (max(0, part.start - halo), min(stop, part.stop + halo))
            source[letter] = make_taps(shape[letter], factor, *read).source
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
            )
            for _ in tiles:
                if self.stopped:
                    raise Stopped
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


def coarsen(finer: Any, window: tuple[slice, ...]) -> NDArray[Any]:
    """A window of a level of the pyramid, from the finer one, piece by piece."""
    out = np.empty([part.stop - part.start for part in window], finer.dtype)
    for piece in cover(out.shape[-2:], max(1, finer.chunks[-1] // 2), 0):
        rows, columns = piece.write
        parts = zip((rows, columns), window[-2:], strict=True)
        source = [slice(2 * (here.start + part.start), 2 * (here.stop + part.start)) for here, part in parts]
        out[..., rows, columns] = ome_zarr.halve(np.asarray(finer[(*window[:-2], *source)]))
    return out


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
    return Bench(plan, open_source(plan.source, plan.axes), SharedEngine(model, device))


def make_shard(task: tuple[int, Index], folder: str, signature: str, device: str | None) -> Shard:
    """What a worker of a cluster does."""
    return open_bench(folder, signature, device).make(*task)


def stream(
    plan: Plan,
    *,
    image: ImageFile | None = None,
    model: VDSR | str | os.PathLike[str] | None = None,
    part: tuple[int, int] = (1, 1),
    client: Client | None = None,
    device: str | None = None,
    threads: int = 2,
) -> Iterator[Shard]:
    """Carry out a plan, yielding each shard when it is written; shards that an earlier run has written are left out.

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
    check_target(Path(plan.target), plan.overwrite)
    source = image if image is not None else open_source(plan.source, plan.axes)
    bench = Bench(plan, source, SharedEngine(network, device))
    prepare(plan, source, network)

    def run(tasks: list[tuple[int, Index]]) -> Iterator[Shard]:
        if client is None:
            return run_in_threads(bench, tasks, threads)
        return run_on_cluster(client, plan, tasks, device)

    return run_levels(plan, part, run)


def estimate(plan: Plan, model: VDSR, device: str | None = None) -> tuple[float, float, str]:
    """Seconds for all tiles of a plan in one process, as one tile takes here; bytes of memory; and the device."""
    engine: Any = Engine(model, choose_device(device))
    side = plan.tile + 2 * model.halo
    image = np.random.default_rng(0).random([max(1, round(side / factor)) for factor in plan.scale])
    times = []
    for _ in range(2):  # the first is slow
        start = time.perf_counter()
        super_resolve(image, plan.scale, model=engine, in_range=(0, 1), tile=None)
        times.append(time.perf_counter() - start)
    tiles = math.prod(-(-n // size) for n, size in zip(plan.shape, plan.chunk, strict=True))
    shard = math.prod(plan.block) * (8 + 4 * np.dtype(plan.dtype).itemsize)
    network = engine.memory(side, side) if engine.device.type == "cpu" else 0
    return tiles * min(times), network + 2 * shard, f"{engine.device} ({engine.name})"


def run_levels(
    plan: Plan, part: tuple[int, int], run: Callable[[list[tuple[int, Index]]], Iterator[Shard]]
) -> Iterator[Shard]:
    """Make a part of the finest level; then, if no other part is left to do, the rest."""
    number, count = part
    with locked(plan, f"part {number} of {count}"):
        shards = plan.shards(0)
        mine = shards[(number - 1) * len(shards) // count : number * len(shards) // count]
        yield from run(missing(plan, 0, mine))
    if missing(plan, 0):
        return
    try:
        with locked(plan, "the last step"):
            if not plan.folder.joinpath("plan.json").exists():
                return  # another part has done it
            for level in range(1, plan.levels):
                yield from run(missing(plan, level))
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
    plan.folder.mkdir(exist_ok=True)
    written = plan.folder / "plan.json"
    with FileLock(plan.folder / "begin.lock", timeout=60):
        if written.exists():
            check_same(plan, Plan.from_json(written.read_text(encoding="utf-8")))
            return
        shutil.rmtree(plan.folder / "image", ignore_errors=True)
        attributes = ome_zarr.describe(
            image, plan.scale, plan.levels, plan.in_range, plan.format, Path(plan.target).name
        )
        attributes["vdsr_core"] = json.loads(plan.to_json()) | {"signature": plan.signature}
        options = (np.dtype(plan.dtype), plan.chunk, plan.block, plan.format)
        ome_zarr.create(plan.folder / "image", attributes, plan.shapes, *options)
        (plan.folder / "done").mkdir(exist_ok=True)
        save_checkpoint(plan.folder / "model.safetensors", model)
        part = written.with_suffix(".part")
        part.write_text(plan.to_json(), encoding="utf-8")
        part.replace(written)


def check_same(plan: Plan, other: Plan) -> None:
    """Raise unless the plan that is being carried out is this one."""
    if plan.signature == other.signature:
        return
    mine, others = asdict(plan), asdict(other)
    differ = [name for name in mine if mine[name] != others[name] and name not in ("source", "target", "overwrite")]
    msg = f"{plan.target} is being made after another plan, which differs in {', '.join(differ)}. "
    msg += f"Go on with that one, or delete {plan.folder}."
    raise FileExistsError(msg)


class Busy(RuntimeError):
    """Another process holds a lock."""


@contextmanager
def locked(plan: Plan, what: str) -> Iterator[None]:
    """Hold a lock of the operating system, which ends with the process that holds it, however that ends."""
    try:
        with FileLock(plan.folder / f"{what}.lock", timeout=0):
            yield
    except Timeout:
        msg = f"{what} of {plan.target} must be computed once, got another process that is at it. Wait for that one."
        raise Busy(msg) from None


def provenance(target: Path) -> dict[str, Any]:
    """What a target says of the plan after which it was made; {} if there is none."""
    import zarr

    try:
        attributes: Any = zarr.open_group(target, mode="r").attrs.asdict()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return dict(attributes.get("vdsr_core", {}))


def publish(plan: Plan) -> None:
    """Put the target in its place, in one step."""
    target, old = Path(plan.target), plan.folder / "old"
    check_target(target, plan.overwrite)
    if target.is_dir():
        os.replace(target, old)
    os.replace(plan.folder / "image", target)
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
            bench.stopped = True
            for future in running:
                future.cancel()
            raise
    complain(bad)


def run_on_cluster(
    client: Client, plan: Plan, tasks: Sequence[tuple[int, Index]], device: str | None
) -> Iterator[Shard]:
    """Make shards on the workers of a dask cluster; those of a lost worker are made by another."""
    from distributed import as_completed

    check_workers(client)
    options: dict[str, Any] = {
        "folder": str(plan.folder),
        "signature": plan.signature,
        "device": device,
    }
    futures = client.map(make_shard, tasks, pure=False, key=f"shard-{plan.signature[:8]}", **options)
    bad = []
    try:
        for future in as_completed(futures):
            try:
                yield future.result()
            except BadSource as error:
                bad.append(error)
            future.release()
    finally:
        client.cancel(futures)
    complain(bad)


@contextmanager
def connect(cluster: str | None) -> Iterator[Client | None]:
    """A client of a dask cluster: at an address, or of ``local:N`` processes on this machine; None without."""
    if cluster is None:
        yield None
        return
    from distributed import Client, LocalCluster

    if not cluster.startswith("local:"):
        with Client(cluster, timeout=10) as client:
            yield client
        return
    count = cluster.removeprefix("local:")
    if not count.isdecimal() or not int(count):
        msg = f"`cluster` must be the address of a scheduler, or local: and a number, got {cluster!r}. Try local:2."
        raise ValueError(msg)
    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": "ERROR"}
    with LocalCluster(int(count), **options) as processes, Client(processes) as client:
        yield client


def check_workers(client: Client) -> None:
    """Raise unless the workers of a cluster have this version of the package."""
    client.wait_for_workers(1, timeout=60)
    versions: dict[str, Any] = client.run(metadata.version, "napari-vdsr", on_error="return")
    for worker, found in versions.items():
        if found != VERSION:
            got = found if isinstance(found, str) else "none"
            msg = f"the workers must have version {VERSION} of napari-vdsr, got {got} at {worker}. Install it there."
            raise RuntimeError(msg)


def complain(bad: Sequence[BadSource]) -> None:
    """Raise if shards are missing because of the source."""
    if bad:
        others = f" And {len(bad) - 1} more." if len(bad) > 1 else ""
        msg = f"{bad[0]} All other shards are kept.{others}"
        raise BadSource(msg)
