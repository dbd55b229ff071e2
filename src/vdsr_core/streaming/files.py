"""Upscale files and folders of them, one image after the other."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.io import check_quality, check_writable, read_image, write_image
from vdsr_core.formats.urls import is_url
from vdsr_core.images.resampling import scaled_shape
from vdsr_core.memory import check_free
from vdsr_core.network.checkpoint import to_network
from vdsr_core.network.model import QUALITY, VDSR
from vdsr_core.streaming.goal import Goal
from vdsr_core.streaming.outputs import PATTERN, FileJob, bind_images, is_folder, list_jobs
from vdsr_core.streaming.plan import plan
from vdsr_core.streaming.source import open_source
from vdsr_core.streaming.stream import stream
from vdsr_core.streaming.workspace import sweep
from vdsr_core.upscaling.inference import super_resolve_tiles
from vdsr_core.upscaling.job import find_compression
from vdsr_core.upscaling.quality import describe_quality
from vdsr_core.upscaling.survey import survey

if TYPE_CHECKING:
    from distributed import Client

PYRAMIDS = (".ome.zarr", ".tif", ".tiff")  # what can be written piece by piece
STREAMED_BYTES = 2**30  # bytes of a result; a .tif is written piece by piece from this size on


@dataclass(frozen=True)
class FileProgress:
    """How far an image is in `upscale_files`.

    Attributes
    ----------
    source, target : Path
        The file or folder that holds the image, and the one that is written.
    name : str or None
        Name of the image in a source that holds several.
    number, count : int
        Number of this image, counted from 1, and of all images.
    fraction : float
        The fraction of the image that is done, from 0 to 1.
    outcome : {None, "done", "kept", "failed"}
        None while the image is computed. "kept" if the target exists and must not be replaced.
    message : str
        The outcome in a few words, such as shape, dtype and time, or what went wrong; empty until then.
    error : Exception or None
        What went wrong.
    """

    source: Path
    target: Path
    name: str | None
    number: int
    count: int
    fraction: float = 0.0
    outcome: str | None = None
    message: str = ""
    error: Exception | None = None


def upscale_files(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    scale: float | tuple[float, float] | None = None,
    *,
    size: tuple[int | None, int | None] | None = None,
    pixel_size: tuple[float, str] | None = None,
    pattern: str = PATTERN,
    format: str | None = None,
    recursive: bool = False,
    overwrite: bool = False,
    jpeg_quality: int = 95,
    axes: str | None = None,
    model: VDSR | str | os.PathLike[str] | None = None,
    device: str | None = None,
    shard: int = 2048,
    part: tuple[int, int] | None = None,
    client: Client | None = None,
    stop: threading.Event | None = None,
    **options: Any,
) -> Iterator[FileProgress]:
    """Upscale image files one after the other; an image that fails does not stop the others.

    Arguments are checked, and the images are listed, at the call; nothing is written before the first record. Closing
    the iterator cancels: finished files stay, and no half-written file is left.

    Parameters
    ----------
    sources : path or iterable of paths
        Image files, folders of them, patterns such as ``plate/*.tif``, or URLs of OME-Zarr.
    output : path
        For one image, the file to write, whose suffix chooses the format; or a folder, which is made if missing: a path
        that is one already, has no suffix or ends with a slash. A ``.ome.zarr``, and a ``.tif`` of 1 GiB or more, is
        written piece by piece as by `stream`; the same call resumes it.
    scale : float or (float, float), optional
        As in `super_resolve`. Exactly one of `scale`, `size` and `pixel_size` is needed.
    size : (int or None, int or None), optional
        Rows and columns of each result. None for one of them keeps the shape of the pixels.
    pixel_size : (float, str), optional
        Side of a pixel of each result and its unit, such as ``(0.1, "µm")``, for files that state their pixel size.
    pattern : str, optional
        Names of the files in a folder `output`, without the suffix: ``{name}`` stands for the name of the source,
        ``{scale}`` for what was asked for, such as ``x2``.
    format : str, optional
        Suffix of the files in a folder `output`: tif, ome.tif, png, jpg, webp, zarr or ome.zarr. By default that of
        each source.
    recursive : bool, optional
        Whether to search the subfolders of a folder as well. The results lie in the same subfolders of `output`.
    overwrite : bool, optional
        Whether existing files may be replaced; by default they are kept.
    jpeg_quality : int, optional
        Quality of JPEG files, from 1 to 100.
    axes : str, optional
        The axes of the images, one letter each, for files that do not name them or name them wrongly.
    model, device
        As in `super_resolve`.
    shard, part, client
        As in `plan` and `stream`. With `part` or `client`, small ``.tif`` files are also written piece by piece.
    stop : threading.Event, optional
        For other threads, which cannot close an iterator that is running: when it is set, the iterator ends soon.
    **options
        Other options of `super_resolve` that apply to each image: `in_range`, `noise` (also a fraction of the range,
        such as ``"3%"``), `compression`, `tile`, `nan`, `self_ensemble`.

    Yields
    ------
    FileProgress
        Several for each image; the last record of an image has an outcome.

    Raises
    ------
    FileNotFoundError
        If a folder or a pattern holds no image.
    ValueError, TypeError
        If an argument is invalid, or two images would have the same target.

    See Also
    --------
    super_resolve : Upscale an array.
    plan, stream : Upscale one large file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from vdsr_core import ImageFile, write_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(pathlib.Path(folder, "cells.tif"), ImageFile(np.full((4, 6), 9, np.uint8), "YX"))
    ...     results = [step for step in upscale_files(folder, f"{folder}/results", 2) if step.outcome]
    >>> [(step.target.name, step.outcome) for step in results]
    [('cells_x2.tif', 'done')]
    """
    goal = Goal.of(scale, size, pixel_size)
    written = {"overwrite": overwrite, "jpeg_quality": check_quality(jpeg_quality)}
    many = [sources] if isinstance(sources, str | os.PathLike) else sources
    jobs = list_jobs(many, output, goal.label, pattern=pattern, format=format, recursive=recursive)
    asked = part is not None or client is not None
    if asked and (others := [job.target for job in jobs if not is_pyramid(job)]):
        name = "part" if client is None else "client"
        msg = f"`{name}` needs results that are written piece by piece, .ome.zarr or .tif, got {others[0]}. Rename it."
        raise ValueError(msg)
    network = to_network(model)
    options["model"] = network
    pieces: dict[str, Any] = {"axes": axes, "shard": shard, "overwrite": overwrite}
    running: dict[str, Any] = {"part": part or (1, 1), "client": client, "device": device, "stop": stop}
    folder = is_folder(output)

    def upscale(job: FileJob) -> Iterator[float | str]:
        if folder:
            job.target.parent.mkdir(parents=True, exist_ok=True)
        image = open_source(read_image(job.source, lazy=True, name=job.name), axes)
        factors = goal.scale(image)
        if is_streamed(job, math.prod(upscaled_shape(image, factors)) * image.data.dtype.itemsize, asked):
            return stream_file(job, factors, options | pieces, running)
        return upscale_file(job, image, factors, options | {"device": device, "stop": stop}, written)

    return follow(jobs, upscale, overwrite, stop)


def follow(
    jobs: list[FileJob],
    upscale: Callable[[FileJob], Iterator[float | str]],
    overwrite: bool,
    stop: threading.Event | None,
) -> Iterator[FileProgress]:
    """Carry out jobs one after the other, yielding what `upscale` gives of each: fractions, then the outcome."""
    for number, job in enumerate(jobs, 1):
        progress = FileProgress(job.source, job.target, job.name, number, len(jobs))
        if job.target.exists() and not overwrite:
            sweep(job.target)
            yield replace(progress, fraction=1.0, outcome="kept", message="it exists")
            continue
        yield progress
        try:
            with closing(upscale(job)) as steps:  # type: ignore[type-var]
                for step in steps:
                    if isinstance(step, str):
                        progress = replace(progress, fraction=1.0, outcome="done", message=step)
                    else:
                        progress = replace(progress, fraction=step)
                    yield progress
        except Exception as error:  # decoders raise anything on damaged files; the other images are still of interest
            yield replace(progress, outcome="failed", message=" ".join(str(error).split()), error=error)
        if stop is not None and stop.is_set():
            return
    bind_images(jobs)


def is_pyramid(job: FileJob) -> bool:
    """Whether an output can be written piece by piece."""
    return job.whole is not None or job.target.name.lower().endswith(PYRAMIDS)


def is_streamed(job: FileJob, nbytes: int, asked: bool) -> bool:
    """Whether an output is written piece by piece: because of its kind, its size, or an option."""
    tiff = job.target.suffix.lower() in (".tif", ".tiff")
    return is_pyramid(job) and (asked or not tiff or nbytes >= STREAMED_BYTES)


def upscale_file(
    job: FileJob, image: ImageFile, scale: tuple[float, float], options: dict[str, Any], written: dict[str, Any]
) -> Iterator[float | str]:
    """Upscale one image in memory; yields the fraction that is done, then what was written."""
    start, dtype = time.perf_counter(), image.data.dtype
    if not isinstance(image.data, np.ndarray) and not is_url(job.source) and job.source.is_file():
        # A TIFF: whole, it is read only once.
        image = replace(image, data=read_image(job.source, name=job.name).data)
    shape = upscaled_shape(image, scale)
    way_out = "Write .ome.zarr or .ome.tif, which is done piece by piece."
    check_free(math.prod(shape) * dtype.itemsize, f"the result, of shape {shape},", way_out)
    check_writable(job.target, shape, dtype, image.axes, overwrite=written["overwrite"])
    out = np.empty(shape, dtype)
    quality, options = find_quality(image, options)
    tiles = super_resolve_tiles(image, scale, out, **options)
    done = 0
    with closing(tiles):  # type: ignore[type-var]
        for tile in tiles:
            done += out[tile.write].size
            yield done / out.size
    if done < out.size:  # it was stopped
        return
    write_image(job.target, image.with_data(out, scale), **written)
    yield f"{shape} {dtype}{quality}  {time.perf_counter() - start:.1f} s"


def find_quality(image: ImageFile, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a network with maps of it removes, for the message, and the options with what is found."""
    network = options["model"]
    if set(QUALITY).isdisjoint(network.maps):
        return "", options
    kind: dict[str, Any] = {"channel_axis": image.channel_axis, "rgb": image.rgb, "nan": options.get("nan", "raise")}
    data: Any = image.data
    kind |= {"in_range": options.get("in_range"), "noise": options.get("noise", "auto")}
    compression = find_compression(options.get("compression", "auto"), image.compression, network)
    kind |= {"maps": network.maps, "tolerance": network.tolerance, "compression": compression}
    ranges, noises = survey(data, **kind)
    words = describe_quality(noises, ranges, compression)
    return f"  without {words}" if words else "", options | {"in_range": ranges, "noise": noises}


def stream_file(
    job: FileJob, scale: tuple[float, float], options: dict[str, Any], running: dict[str, Any]
) -> Iterator[float | str]:
    """Upscale one image into a pyramid, shard by shard; yields as `upscale_file` does."""
    start, target = time.perf_counter(), job.target
    if job.whole is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    work = plan(job.source, scale, target, name=job.name, **options)
    shards = stream(work, model=options["model"], **running)
    done, made = len(work.done), 0
    with closing(shards):  # type: ignore[type-var]
        for _ in shards:
            made += 1
            yield min((done + made) / work.total, 1.0)
    stop = running["stop"]
    if stop is not None and stop.is_set():
        return
    kept = f", {done} from before" if done else ""
    what = f"{work.shape} {work.dtype}" if target.exists() else "part {} of {}".format(*running["part"])
    words = describe_quality(work.noise, work.in_range, work.compression) if work.noise else ""
    quality = f"  without {words}" if words else ""
    yield f"{what}  {made} shards{kept}{quality}  {time.perf_counter() - start:.1f} s"


def upscaled_shape(image: ImageFile, scale: tuple[float, float]) -> tuple[int, ...]:
    """The shape of the result."""
    shape, y, x = list(image.data.shape), image.axes.index("Y"), image.axes.index("X")
    shape[y], shape[x] = scaled_shape((shape[y], shape[x]), scale)
    return tuple(shape)
