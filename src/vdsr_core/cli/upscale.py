"""The command `vdsr upscale`."""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vdsr_core.cli.terminal import EXPECTED, Device, Model, check_options, complain, expand, plain_errors, progress_bar

if TYPE_CHECKING:  # PyTorch takes a second to load: the help does without
    from vdsr_core.formats.io import ImageFile
    from vdsr_core.network.model import VDSR
    from vdsr_core.streaming.plan import Plan

PYRAMIDS = (".ome.zarr", ".tif", ".tiff")  # what can be written piece by piece
LARGE = 2**30  # bytes of a result from which on a .tif is


def upscale(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IN...",
            help="Image files, folders of them, or patterns such as 'plate/*.tif'.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            show_default=False,
            help="File for one image (its suffix names the format: .tif, .ome.tif, .png, .jpg, .zarr or .ome.zarr; "
            "those with .tif and .ome.zarr may be larger than memory), or folder, made if missing, where cells.tif "
            "becomes cells_x2.tif.",
        ),
    ],
    scale: Annotated[
        str,
        typer.Option(
            metavar="S",
            show_default=False,
            help="Output pixels per input pixel, above 1, such as 2 or 2.5; or ROWS,COLUMNS such as 2,1.5.",
        ),
    ],
    model: Model = None,
    tile: Annotated[
        int, typer.Option(min=1, help="Side of a tile, in output pixels: smaller needs less memory.")
    ] = 1024,
    device: Device = None,
    in_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="Darkest and brightest intensity that matter, in the image's own units.",
            show_default="found in each image",
        ),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(
            metavar="LETTERS",
            show_default="as each file says",
            help="What the axes are, such as CYX: T time, C channels, Z planes, Y rows, X columns, S colour samples.",
        ),
    ] = None,
    format: Annotated[
        Literal["tif", "ome.tif", "png", "jpg", "zarr", "ome.zarr"] | None,
        typer.Option(help="Format of the files in the folder OUT.", show_default="as each image"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how large, how long and in how many shards; write nothing.")
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Make one of N parts, each by a process of its own.", show_default="all"),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Compute on a dask cluster: the address of its scheduler, or local:4 for four processes here.",
            show_default="in this process",
        ),
    ] = None,
    shard: Annotated[
        int, typer.Option(help="Side of a shard, in output pixels: what a process makes in one go.")
    ] = 2048,
) -> None:
    """Upscale images: dtype, intensities, channels and metadata are kept, pixels get smaller.

    Prints a line per image. An output that exists is kept; a bad image is named, and the others go on.
    An OUT that ends in .ome.zarr, and one that ends in .tif if it is large (1 GiB), is a pyramid, written piece
    by piece, and the same command goes on where it was stopped; --dry-run, --part, --cluster and --shard go with these.

    Example: vdsr upscale cells.tif -o cells_x2.tif --scale 2
    """
    factor = parse_scale(scale)
    how: dict[str, Any] = {"dry_run": dry_run, "part": parse_part(part), "shard": shard}
    with plain_errors():
        jobs = plan(images, output, scale_name(factor), format)
        from vdsr_core.network.checkpoint import load_model
        from vdsr_core.streaming.cluster import connect

        network = load_model(model)
        options: dict[str, Any] = {"model": network, "tile": tile, "device": device, "in_range": in_range}
        check_options([factor], **options)
        asked = bool(dry_run or part or cluster)
        if asked and not all(is_pyramid(job) for job in jobs):
            msg = f"goes with an OUT that ends in .ome.zarr or .tif, got {output}."
            name = "--dry-run" if dry_run else "--part" if part else "--cluster"
            raise typer.BadParameter(msg, param_hint=name)
        failed = False
        with connect(cluster) as client:
            for job in jobs:
                try:
                    if job.target.exists() and not overwrite:
                        outcome = "kept: it exists (--overwrite replaces it)"
                    elif is_streamed(job, factor, asked):
                        outcome = stream_file(job, factor, axes, overwrite, options, client=client, **how)
                    else:
                        outcome = upscale_file(job, factor, axes, overwrite, options)
                    typer.echo(f"{job.source}{f', {job.name}' if job.name else ''} -> {job.target}  {outcome}")
                except BrokenPipeError:
                    raise
                except EXPECTED as error:
                    complain(error, job.source)
                    failed = True
        bind_images(jobs)
        raise typer.Exit(int(failed))


def parse_scale(text: str) -> float | tuple[float, float]:
    """``2`` or ``2,1.5`` (rows, columns) as numbers."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 2):
        msg = f"--scale must be a number, or two with a comma (rows,columns), got {text!r}. Try 2."
        raise typer.BadParameter(msg)
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def scale_name(scale: float | tuple[float, float]) -> str:
    """What is added to the name of an upscaled image, such as ``_x2``."""
    return "_x" + "x".join(f"{s:g}" for s in (scale if isinstance(scale, tuple) else (scale,)))


@dataclass(frozen=True)
class Job:
    """One image on its way.

    Attributes
    ----------
    source, target : Path
        From where to where.
    name : str or None
        Of the image in a source that holds several.
    whole : Path or None
        The OME-Zarr that `target` is a part of.
    """

    source: Path
    target: Path
    name: str | None = None
    whole: Path | None = None


def plan(inputs: Iterable[str], output: str, added: str, format: str | None) -> list[Job]:
    """The images and where each goes; makes the folder that they go to.

    Outputs of an earlier run, found among the inputs, are left out.
    """
    sources = list(dict.fromkeys(path for text in inputs for path in expand(text)))
    folder = Path(output)
    if is_folder(output):
        targets = [folder / f"{stem}{added}.{format or kind}" for stem, kind in map(split_name, sources)]
        made = {target.resolve() for target in targets}
        jobs = [job for job in zip(sources, targets, strict=True) if job[0].resolve() not in made]
    elif len(sources) == 1 and format is None:
        jobs = [(sources[0], folder)]
    else:
        rule = "--format goes with a folder OUT" if format else f"--output must be a folder for {len(sources)} images"
        msg = f"{rule}, got the file {output}. End the name of a folder with a slash."
        raise typer.BadParameter(msg)
    found = [job for source, target in jobs for job in split_job(source, target, is_folder(output))]
    check_targets(found)
    if is_folder(output):
        folder.mkdir(parents=True, exist_ok=True)
    return found


def split_job(source: Path, target: Path, folder: bool) -> list[Job]:
    """A job for each image that a source holds: parts of one OME-Zarr, or files of their own in a folder."""
    from vdsr_core.formats.io import image_names

    try:
        names = image_names(source)
    except EXPECTED:  # reading it will say why
        names = [""]
    if names == [""]:
        return [Job(source, target)]
    inside = source.is_dir()  # zarr: the names are paths
    stem, kind = split_name(target)
    if kind == "ome.zarr" or (inside and folder and kind == "zarr"):
        whole = target.with_name(f"{stem}.ome.zarr")
        if inside:
            return [Job(source / name, whole / name, None, whole) for name in names]
        return [Job(source, whole / str(number), name, whole) for number, name in enumerate(names)]
    if not folder:
        msg = f"--output must be a folder or end in .ome.zarr for the {len(names)} images of {source}, got {target}."
        raise typer.BadParameter(msg)
    parts = [re.sub(r"[^\w.-]+", "-", name) for name in names]
    targets = [target.with_name(f"{stem}_{part}.{kind}") for part in parts]
    sources = [(source / name, None) if inside else (source, name) for name in names]
    return [Job(path, target, name) for (path, name), target in zip(sources, targets, strict=True)]


def bind_images(jobs: Iterable[Job]) -> None:
    """Make one plate or collection of the images of each OME-Zarr, where all are there."""
    from vdsr_core.formats.ome_zarr import bind

    for whole in {job.whole for job in jobs if job.whole is not None}:
        parts = [job for job in jobs if job.whole == whole]
        names = [job.target.relative_to(whole).as_posix() for job in parts]
        source = parts[0].source
        if all(job.target.exists() for job in parts):
            bind(whole, names, source if parts[0].name else source.parents[names[0].count("/")])


def is_folder(output: str) -> bool:
    """Whether OUT is a folder of images: it exists as one, has no suffix, or ends with a slash."""
    path = Path(output)
    exists = path.is_dir() and path.suffix.lower() != ".zarr"
    return exists or not path.suffix or output.endswith(("/", os.sep))


def split_name(path: Path) -> tuple[str, str]:
    """The name without its suffix, and the suffix without its first dot: ``ome.tif`` is one."""
    match = re.fullmatch(r"(.+?)\.((?:ome\.)?[^.]+)", path.name)
    return (match[1], match[2]) if match else (path.name, "tif")


def check_targets(jobs: Iterable[Job]) -> None:
    """Raise if an image would take the place of another one, of its own source, or of a folder that holds it."""
    sources: dict[Path, Job] = {}
    for job in jobs:
        source, target = job.source, job.target
        other = sources.setdefault(target.resolve(), job)
        first = other.source
        if other != job or source.resolve().is_relative_to(target.resolve()):
            msg = f"{target} must be the output of one image and hold no input, got {first} and {source}. "
            msg += "Choose another OUT, or upscale them one by one."
            raise ValueError(msg)


def upscale_file(
    job: Job,
    scale: float | tuple[float, float],
    axes: str | None,
    overwrite: bool,
    options: dict[str, Any],
) -> str:
    """Upscale one file; returns what is to be said of it."""
    from vdsr_core.formats.io import check_writable, read_image, write_image
    from vdsr_core.streaming.source import open_source

    target, start = job.target, time.perf_counter()
    image = open_source(read_image(job.source, name=job.name), axes)
    shape = upscaled_shape(image, scale)
    check_memory(shape, image.data.dtype.itemsize)
    check_writable(target, shape, image.data.dtype, image.axes, overwrite=overwrite)
    result = upscale_image(image, shape, scale, job.source.name, options)
    write_image(target, result, overwrite=overwrite)
    return f"{shape} {image.data.dtype}  {time.perf_counter() - start:.1f} s"


def is_pyramid(job: Job) -> bool:
    """Whether an output can be written shard by shard."""
    return job.whole is not None or job.target.name.lower().endswith(PYRAMIDS)


def is_streamed(job: Job, scale: float | tuple[float, float], asked: bool) -> bool:
    """Whether an output is written shard by shard: where its kind, its size or an option asks for it."""
    from vdsr_core.formats.io import read_image

    if asked or job.target.suffix.lower() not in (".tif", ".tiff"):
        return is_pyramid(job)
    image = read_image(job.source, lazy=True, name=job.name)
    return math.prod(upscaled_shape(image, scale)) * image.data.dtype.itemsize >= LARGE


def parse_part(text: str | None) -> tuple[int, int]:
    """``2/8`` as numbers."""
    match = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        msg = f"must be a number from 1 to N, a slash and N, got {text!r}. Try 1/8."
        raise typer.BadParameter(msg, param_hint="--part")
    return number, count


def stream_file(
    job: Job,
    scale: float | tuple[float, float],
    axes: str | None,
    overwrite: bool,
    options: dict[str, Any],
    *,
    dry_run: bool,
    part: tuple[int, int],
    client: Any,
    shard: int,
) -> str:
    """Upscale one file into a pyramid, shard by shard; returns what is to be said of it."""
    from vdsr_core.streaming import plan as planning
    from vdsr_core.streaming import stream as streaming

    target, start = job.target, time.perf_counter()
    options = dict(options) | {"axes": axes, "shard": shard, "overwrite": overwrite, "name": job.name}
    network, device = options["model"], options.pop("device")
    if dry_run:
        work = planning.plan(job.source, scale, (job.whole or target).with_suffix(f".dry{target.suffix}"), **options)
        return "\n".join(("planned", *describe_plan(work, network, device)))
    if job.whole is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    work = planning.plan(job.source, scale, target, **options)
    shards = streaming.stream(work, model=network, part=part, client=client, device=device)
    done = len(work.done)
    with progress_bar("{task.completed:.0f} of {task.total:.0f} shards") as progress:
        task = progress.add_task(job.name or job.source.name, total=work.total, completed=done)
        made = 0
        for _ in shards:
            made += 1
            progress.advance(task)
    kept = f", {done} from before" if done else ""
    what = f"{work.shape} {work.dtype}" if target.exists() else f"part {part[0]} of {part[1]}"
    return f"{what}  {made} shards{kept}  {time.perf_counter() - start:.1f} s"


def describe_plan(job: Plan, network: VDSR, device: str | None) -> Iterator[str]:
    """How large the result of a plan is, in how many shards, with how much memory, and how long it takes here."""
    from vdsr_core.streaming.plan import estimate

    seconds, memory, name = estimate(job, network, device)
    sizes = ", ".join(f"{len(job.shards(level))}" for level in range(job.levels))
    free = shutil.disk_usage(Path(job.target).parent).free
    yield f"  result   {job.shape} {job.dtype}, {job.nbytes * 4 / 3e9:.2f} GB with its pyramid, before compression"
    yield f"  disk     {free / 1e9:.2f} GB free{', for this and for the shards that it is packed from' * job.tiff}"
    yield f"  shards   {sizes} in {job.levels} levels, {' x '.join(map(str, job.block))} each"
    yield f"  range    {', '.join(f'{low:g} to {high:g}' for low, high in job.in_range)}"
    yield f"  memory   about {memory / 1e9:.1f} GB for each process"
    yield f"  time     about {f'{seconds / 60:.2g} min' if seconds < 6000 else f'{seconds / 3600:.2g} h'} on {name}"


def upscaled_shape(image: ImageFile, scale: float | tuple[float, float]) -> tuple[int, ...]:
    """The shape of the result."""
    from vdsr_core.images.resampling import scale_pair, scaled_shape

    shape, y, x = list(image.data.shape), image.axes.index("Y"), image.axes.index("X")
    shape[y], shape[x] = scaled_shape((shape[y], shape[x]), scale_pair(scale))
    return tuple(shape)


def check_memory(shape: tuple[int, ...], itemsize: int) -> None:
    """Raise if the result does not fit in the memory that is free."""
    from vdsr_core.memory import check_free

    way_out = "Give OUT the suffix .ome.zarr or .ome.tif, written piece by piece."
    check_free(math.prod(shape) * itemsize, f"the result, of shape {shape},", way_out)


def upscale_image(
    image: ImageFile,
    shape: tuple[int, ...],
    scale: float | tuple[float, float],
    name: str,
    options: dict[str, Any],
) -> ImageFile:
    """The image upscaled to `shape`, with a progress bar."""
    import numpy as np

    from vdsr_core.images.resampling import scale_pair
    from vdsr_core.upscaling.inference import super_resolve_tiles

    pixels: Any = image.data
    out = np.empty(shape, pixels.dtype)
    tiles = super_resolve_tiles(pixels, scale, out, channel_axis=image.channel_axis, rgb=image.rgb, **options)
    samples = 1e6 * (shape[image.axes.index("S")] if image.rgb else 1)  # in a megapixel
    with progress_bar("{task.completed:.1f} of {task.total:.1f} megapixels") as progress:
        task = progress.add_task(name, total=out.size / samples)
        for tile in tiles:
            progress.advance(task, out[tile.write].size / samples)
    return image.with_data(out, scale_pair(scale))
