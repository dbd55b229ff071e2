"""The `vdsr` command."""

from __future__ import annotations

import csv
import glob
import io
import json
import logging
import math
import os
import platform
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:  # PyTorch takes a second to load: the help does without
    from rich.progress import Progress

    from vdsr_core.evaluation import Score
    from vdsr_core.fine_tuning import HoldOut
    from vdsr_core.io import ImageFile
    from vdsr_core.model import VDSR
    from vdsr_core.streaming import Plan
    from vdsr_core.training import Progress as StepProgress
    from vdsr_core.training import Trainer

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".zarr")
EXPECTED = (ValueError, TypeError, OSError, MemoryError, FloatingPointError, ImportError)
INTERRUPTED = 130  # what shells expect after Ctrl-C

UsageError: type[Any] = typer.BadParameter.__bases__[0]  # typer has no public name for it


class Commands(TyperGroup):
    """The commands; a wrong command line is one line on stderr and exit code 2."""

    def main(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Run the command line and leave with its exit code."""
        words = sys.argv[1:] if args is None else list(args)
        try:
            status = super().main(words, *more, **options | {"standalone_mode": False})
        except UsageError as error:
            command = " ".join(["vdsr", *(word for word in words[:1] if word in self.commands)])
            message = " ".join(error.format_message().removeprefix("Invalid value: ").split())
            if message:  # there is none when the help has been shown instead
                typer.echo(f"{command}: {message}", err=True)
            sys.exit(error.exit_code)
        sys.exit(status)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all is well, 1 an image or another file is bad, 2 the command line is bad, "
    "130 interrupted. Set VDSR_DEBUG=1 to see the traceback of an error.",
)

Model = Annotated[
    str | None,
    typer.Option(help="Network: the name of an embedded one, or a .safetensors or .npz file.", show_default="embedded"),
]
Device = Annotated[
    str | None,
    typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.", show_default="the fastest that works"),
]


def show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        from vdsr_core import __version__

        typer.echo(f"vdsr {__version__}")
        raise typer.Exit


@app.callback()
def vdsr(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and leave.", callback=show_version, is_eager=True),
    ] = False,
) -> None:
    """Upscale images with a very deep residual network (VDSR), train it, and measure how well it does."""
    if not os.environ.get("VDSR_DEBUG"):  # what it has to say of a damaged file, the error says
        logging.getLogger("tifffile").addHandler(logging.NullHandler())
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")


# ------------------------------------------------------------------------------------------------ errors


def complain(error: BaseException, source: object = "") -> None:
    """Print an error as one line on stderr, with the name of the file it is about."""
    if os.environ.get("VDSR_DEBUG"):
        traceback.print_exception(error)
    message = " ".join(str(error).split()) or type(error).__name__
    where = f"{source}: " if source and str(source) not in message else ""
    typer.echo(f"vdsr: {where}{message}", err=True)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn expected errors, Ctrl-C and warnings into one line on stderr each, and an exit code."""
    shown: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in shown:  # once, however many images it is true of
            typer.echo(f"vdsr: warning: {message}", err=True)
        shown.add(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        except KeyboardInterrupt:
            typer.echo("vdsr: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # `vdsr ... | head`: nobody reads on
            raise
        except EXPECTED as error:
            complain(error)
            raise typer.Exit(1) from None


def check_options(
    scales: Iterable[float | tuple[float, float]], in_range: tuple[float, float] | None = None, **options: Any
) -> None:
    """Raise a usage error if `super_resolve` does not take these options, before any image is read."""
    import numpy as np

    from vdsr_core.inference import super_resolve
    from vdsr_core.intensity import Rescale

    def option(match: re.Match[str]) -> str:
        return "--" + match[1].replace("_", "-")

    try:
        for scale in scales:
            super_resolve(np.zeros((1, 1), np.uint8), scale, **options)  # constant: the network does not run
        if in_range is not None:
            Rescale(*in_range)
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(re.sub("`(scale|tile|device|in_range)`", option, str(error))) from None


# --------------------------------------------------------------------------------------------- progress


@contextmanager
def progress_bar(*columns: str) -> Iterator[Progress]:
    """A bar with time left on stderr, if that is a terminal; it vanishes at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    shown: list[Any] = [TextColumn("{task.description}", markup=False), BarColumn(), *columns]
    with Progress(
        *shown,
        TimeRemainingColumn(),
        "left",
        console=console,
        transient=True,
        redirect_stdout=False,
        disable=not console.is_terminal,
    ) as progress:
        yield progress


# ---------------------------------------------------------------------------------------------- upscale


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


@app.command()
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
            help="File for one image (its suffix names the format: .tif, .ome.tif, .png, .jpg, .zarr, or .ome.zarr, "
            "which may be larger than memory), or folder, made if missing, where cells.tif becomes cells_x2.tif.",
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
    --dry-run, --part, --cluster and --shard go with an OUT that ends in .ome.zarr; so does going on where
    an earlier run of the same command was stopped.

    Example: vdsr upscale cells.tif -o cells_x2.tif --scale 2
    """
    factor = parse_scale(scale)
    how: dict[str, Any] = {"dry_run": dry_run, "part": parse_part(part), "cluster": cluster, "shard": shard}
    with plain_errors():
        jobs = plan(images, output, scale_name(factor), format)
        from vdsr_core.checkpoint import load_model

        network = load_model(model)
        options: dict[str, Any] = {"model": network, "tile": tile, "device": device, "in_range": in_range}
        check_options([factor], **options)
        if (dry_run or part or cluster) and not all(is_streamed(target) for _, target in jobs):
            msg = f"goes with an OUT that ends in .ome.zarr, got {output}."
            name = "--dry-run" if dry_run else "--part" if part else "--cluster"
            raise typer.BadParameter(msg, param_hint=name)
        failed = False
        for source, target in jobs:
            try:
                if is_streamed(target):
                    outcome = stream_file(source, target, factor, axes, overwrite, options, **how)
                else:
                    outcome = upscale_file(source, target, factor, axes, overwrite, options)
                typer.echo(f"{source} -> {target}  {outcome}")
            except BrokenPipeError:
                raise
            except EXPECTED as error:
                complain(error, source)
                failed = True
        raise typer.Exit(int(failed))


def scale_name(scale: float | tuple[float, float]) -> str:
    """What is added to the name of an upscaled image, such as ``_x2``."""
    return "_x" + "x".join(f"{s:g}" for s in (scale if isinstance(scale, tuple) else (scale,)))


def plan(inputs: Iterable[str], output: str, added: str, format: str | None) -> list[tuple[Path, Path]]:
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
    check_targets(jobs)
    if is_folder(output):
        folder.mkdir(parents=True, exist_ok=True)
    return jobs


def expand(text: str) -> list[Path]:
    """The images that a path, a folder or a pattern names; a path need not exist."""
    path = Path(text)
    folder = path.is_dir() and path.suffix.lower() != ".zarr"
    if not folder and (path.exists() or not glob.has_magic(text)):
        return [path]
    pattern = os.path.join(glob.escape(text), "*") if folder else text
    found = (Path(name) for name in glob.glob(pattern, recursive=True))
    images = sorted(name for name in found if name.suffix.lower() in SUFFIXES)
    if not images:
        msg = f"{text} holds no image ({', '.join(SUFFIXES)}). Check the name."
        raise FileNotFoundError(msg)
    return images


def is_folder(output: str) -> bool:
    """Whether OUT is a folder of images: it exists as one, has no suffix, or ends with a slash."""
    path = Path(output)
    exists = path.is_dir() and path.suffix.lower() != ".zarr"
    return exists or not path.suffix or output.endswith(("/", os.sep))


def split_name(path: Path) -> tuple[str, str]:
    """The name without its suffix, and the suffix without its first dot: ``ome.tif`` is one."""
    match = re.fullmatch(r"(.+?)\.((?:ome\.)?[^.]+)", path.name)
    return (match[1], match[2]) if match else (path.name, "tif")


def check_targets(jobs: Iterable[tuple[Path, Path]]) -> None:
    """Raise if an image would take the place of another one, or of its own source."""
    sources: dict[Path, Path] = {}
    for source, target in jobs:
        first = sources.setdefault(target.resolve(), source)
        if first != source or target.resolve() == source.resolve():
            msg = f"{target} must be the output of one image and no input, got {first} and {source}. "
            msg += "Choose another OUT, or upscale them one by one."
            raise ValueError(msg)


def upscale_file(
    source: Path,
    target: Path,
    scale: float | tuple[float, float],
    axes: str | None,
    overwrite: bool,
    options: dict[str, Any],
) -> str:
    """Upscale one file; returns what is to be said of it."""
    from vdsr_core.io import check_writable, read_image, write_image

    if target.exists() and not overwrite:
        return "kept: it exists (--overwrite replaces it)"
    start = time.perf_counter()
    image = declare_axes(read_image(source), axes)
    shape = upscaled_shape(image, scale)
    check_memory(shape, image.data.dtype.itemsize)
    check_writable(target, shape, image.data.dtype, image.axes, overwrite=overwrite)
    result = upscale_image(image, shape, scale, source.name, options)
    write_image(target, result, overwrite=overwrite)
    return f"{shape} {image.data.dtype}  {time.perf_counter() - start:.1f} s"


def is_streamed(target: Path) -> bool:
    """Whether an output is written shard by shard."""
    return target.name.lower().endswith(".ome.zarr")


def parse_part(text: str | None) -> tuple[int, int]:
    """``2/8`` as numbers."""
    match = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        msg = f"must be a number from 1 to N, a slash and N, got {text!r}. Try 1/8."
        raise typer.BadParameter(msg, param_hint="--part")
    return number, count


def stream_file(
    source: Path,
    target: Path,
    scale: float | tuple[float, float],
    axes: str | None,
    overwrite: bool,
    options: dict[str, Any],
    *,
    dry_run: bool,
    part: tuple[int, int],
    cluster: str | None,
    shard: int,
) -> str:
    """Upscale one file into an OME-Zarr pyramid, shard by shard; returns what is to be said of it."""
    from vdsr_core import streaming

    if target.exists() and not overwrite:
        return "kept: it exists (--overwrite replaces it)"
    start = time.perf_counter()
    options = dict(options)
    network, device = options.pop("model"), options.pop("device")
    job = streaming.plan(source, scale, target, model=network, axes=axes, shard=shard, overwrite=overwrite, **options)
    if dry_run:
        return "\n".join(("planned", *describe_plan(job, network, device)))
    with streaming.connect(cluster) as client:
        shards = streaming.stream(job, model=network, part=part, client=client, device=device)
        total = sum(len(job.shards(level)) for level in range(job.levels))
        left = sum(len(streaming.missing(job, level)) for level in range(job.levels))
        with progress_bar("{task.completed:.0f} of {task.total:.0f} shards") as progress:
            task = progress.add_task(source.name, total=total, completed=total - left)
            made = 0
            for _ in shards:
                made += 1
                progress.advance(task)
    kept = f", {total - left} from before" if left < total else ""
    what = f"{job.shape} {job.dtype}" if target.exists() else f"part {part[0]} of {part[1]}"
    return f"{what}  {made} shards{kept}  {time.perf_counter() - start:.1f} s"


def describe_plan(job: Plan, network: VDSR, device: str | None) -> Iterator[str]:
    """How large the result of a plan is, in how many shards, with how much memory, and how long it takes here."""
    from vdsr_core import streaming

    seconds, memory, name = streaming.estimate(job, network, device)
    sizes = ", ".join(f"{len(job.shards(level))}" for level in range(job.levels))
    yield f"  result   {job.shape} {job.dtype}, {job.nbytes * 4 / 3e9:.2f} GB with its pyramid, before compression"
    yield f"  shards   {sizes} in {job.levels} levels, {' x '.join(map(str, job.block))} each"
    yield f"  range    {', '.join(f'{low:g} to {high:g}' for low, high in job.in_range)}"
    yield f"  memory   about {memory / 1e9:.1f} GB for each process"
    yield f"  time     about {f'{seconds / 60:.2g} min' if seconds < 6000 else f'{seconds / 3600:.2g} h'} on {name}"


def declare_axes(image: ImageFile, axes: str | None) -> ImageFile:
    """The image with other axes, checked to end with rows and columns, channels aside."""
    image = image if axes is None else replace(image, axes=axes)
    if not image.axes.replace("S" if image.rgb else "C", "").endswith("YX"):
        msg = f"the last axes must be rows and columns (YX), got {image.axes}. Reorder, or correct by --axes."
        raise ValueError(msg)
    return image


def upscaled_shape(image: ImageFile, scale: float | tuple[float, float]) -> tuple[int, ...]:
    """The shape of the result."""
    from vdsr_core.resampling import scale_pair, scaled_shape

    shape, y, x = list(image.data.shape), image.axes.index("Y"), image.axes.index("X")
    shape[y], shape[x] = scaled_shape((shape[y], shape[x]), scale_pair(scale))
    return tuple(shape)


def check_memory(shape: tuple[int, ...], itemsize: int) -> None:
    """Raise if the result does not fit in the memory that is free."""
    import psutil

    needed, free = math.prod(shape) * itemsize, psutil.virtual_memory().available
    if needed > free:
        msg = f"the result must fit in memory, got {needed / 1e9:.1f} GB for shape {shape} with "
        msg += f"{free / 1e9:.1f} GB free. Give OUT the suffix .ome.zarr, which is written piece by piece."
        raise MemoryError(msg)


def upscale_image(
    image: ImageFile,
    shape: tuple[int, ...],
    scale: float | tuple[float, float],
    name: str,
    options: dict[str, Any],
) -> ImageFile:
    """The image upscaled to `shape`, with a progress bar."""
    import numpy as np

    from vdsr_core.inference import super_resolve_tiles
    from vdsr_core.resampling import scale_pair

    pixels: Any = image.data
    out = np.empty(shape, pixels.dtype)
    tiles = super_resolve_tiles(pixels, scale, out, channel_axis=image.channel_axis, rgb=image.rgb, **options)
    samples = 1e6 * (shape[image.axes.index("S")] if image.rgb else 1)  # in a megapixel
    with progress_bar("{task.completed:.1f} of {task.total:.1f} megapixels") as progress:
        task = progress.add_task(name, total=out.size / samples)
        for tile in tiles:
            progress.advance(task, out[tile.write].size / samples)
    return image.with_data(out, scale_pair(scale))


# --------------------------------------------------------------------------------------------- evaluate


class SeveralScales(TyperCommand):
    """A command that reads ``--scales 2 3 4`` as ``--scales 2,3,4``: an option takes one word only."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the numbers that follow ``--scales``."""
        start = args.index("--scales") + 1 if "--scales" in args else len(args)
        stop = start
        while stop < len(args) and re.fullmatch(r"[\d.,]*\d[\d.,]*", args[stop]):
            stop += 1
        joined = [",".join(args[start:stop])] if start < stop else []
        return super().parse_args(ctx, [*args[:start], *joined, *args[stop:]])


def parse_scales(text: str) -> list[float]:
    """``2,3,4`` as numbers."""
    try:
        scales = [float(part) for part in text.split(",") if part]
    except ValueError:
        scales = []
    if not scales:
        msg = f"--scales must be numbers, got {text!r}. Try 2 3 4."
        raise typer.BadParameter(msg)
    return scales


@app.command(cls=SeveralScales)
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Sharp 8-bit images, gray or RGB, such as Set5.", show_default=False)],
    scales: Annotated[
        str,
        typer.Option(metavar="S...", help="Upscaling factors: 2 3 4 or 2,3,4."),
    ] = "2,3,4",
    model: Model = None,
    format: Annotated[
        Literal["table", "csv", "json"] | None,
        typer.Option(help="How to print; csv and json in full precision.", show_default="by FILE's suffix, else table"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write there instead of on stdout.")
    ] = None,
    device: Device = None,
    per_image: Annotated[
        bool, typer.Option("--per-image/--mean-only", help="A row for each image, or for the mean only.")
    ] = True,
) -> None:
    """Measure a network on sharp images, beside bicubic interpolation, by the protocol of the field's tables.

    PSNR in dB and SSIM of the luma, gain over bicubic in dB, and the network's seconds per image. For Set5,
    Set14 and B100 (the folder's name) the bicubic scores must be the published ones: else the exit code is 1,
    for no figure of this run is comparable.

    Example: vdsr evaluate Set5 --scales 2 3 4
    """
    factors = parse_scales(scales)
    suffix = output.suffix[1:].lower() if output else ""
    style = format or (suffix if suffix in ("csv", "json") else "table")
    with plain_errors():
        from vdsr_core.checkpoint import load_model
        from vdsr_core.evaluation import check_bicubic, mean_scores
        from vdsr_core.files import replacing

        network = load_model(model)
        check_options(factors, model=network, device=device)
        with replacing(output) if output else nullcontext() as temporary:
            scores = score_images(folder, factors, network, device)
            means = mean_scores(scores)
            rows = pair_methods([*(scores if per_image else []), *means])
            text = {"table": to_table, "csv": to_csv, "json": to_json}[style](rows)
            if temporary:
                temporary.write_text(text, encoding="utf-8")
            else:
                typer.echo(text, nl=False)
        check_bicubic(folder.resolve().name, means)


def score_images(folder: Path, scales: list[float], model: VDSR, device: str | None) -> list[Score]:
    """The scores of all images of a folder, with a progress bar."""
    from vdsr_core.evaluation import evaluate as scores_of
    from vdsr_core.io import read_image

    if not folder.is_dir():
        msg = f"{folder} is not a folder. Give one that holds the images."
        raise NotADirectoryError(msg)
    paths = expand(str(folder))
    images: Any = ((path.stem, read_image(path).data) for path in paths)
    scores = []
    with progress_bar("{task.completed:.0f} of {task.total:.0f}") as progress:
        task = progress.add_task(folder.name, total=2 * len(paths) * len(scales))
        for score in scores_of(model, images, scales, device=device):
            scores.append(score)
            progress.update(task, advance=1, description=f"{score.image} x{score.scale:g}")
    return scores


def pair_methods(scores: list[Score]) -> list[dict[str, Any]]:
    """One row for each image and scale, scale by scale, from scores that alternate: bicubic, network."""
    return [
        {
            "image": ours.image,
            "scale": ours.scale,
            "bicubic_psnr": bicubic.psnr,
            "psnr": ours.psnr,
            "gain": ours.psnr - bicubic.psnr,
            "bicubic_ssim": bicubic.ssim,
            "ssim": ours.ssim,
            "bicubic_seconds": bicubic.seconds,
            "seconds": ours.seconds,
        }
        for bicubic, ours in sorted(zip(scores[::2], scores[1::2], strict=True), key=lambda both: both[0].scale)
    ]


def to_table(rows: list[dict[str, Any]]) -> str:
    """Rows for people, as a Markdown table."""
    formats = {
        "image": "", "scale": "g", "bicubic_psnr": ".2f", "psnr": ".2f", "gain": "+.2f",
        "bicubic_ssim": ".4f", "ssim": ".4f", "seconds": ".2f",
    }  # fmt: skip
    head = [name.replace("_", " ") for name in formats]
    cells = [[f"{row[name]:{form}}" for name, form in formats.items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = (
        " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in (head, rule, *cells)
    )
    return "".join(f"| {line} |\n" for line in lines)


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as comma-separated values in full precision."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def to_json(rows: list[dict[str, Any]]) -> str:
    """Rows as a list of JSON objects in full precision; null for what is not finite."""

    def known(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps([{key: known(value) for key, value in row.items()} for row in rows], indent=1) + "\n"


# ------------------------------------------------------------------------------------------------ train

LOG_STEPS = 100  # steps between rows of the log
PIECES = 32  # held-out pieces that are measured, at most


@app.command(cls=SeveralScales)
def train(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Sharp images to learn from.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT", show_default=False, help="File of the network, .safetensors."),
    ],
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="MODEL", help="Train this network further.", show_default="a new network"),
    ] = None,
    preset: Annotated[
        Literal["kim2016", "default", "finetune"] | None,
        typer.Option(
            help="Recipe: that of the paper (80 epochs), a modern one, or a short one for a trained network.",
            show_default="finetune with --from, else default",
        ),
    ] = None,
    scales: Annotated[
        str | None, typer.Option(metavar="S...", help="Upscaling factors: 2 3 4 or 2,3,4.", show_default="2 3 4")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Batches to train with.", show_default="as the preset says")] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Train for so long instead: 2h, 90m, 1h30m.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Patches in a batch; 12 to 16 suit a CPU.", show_default="as the preset says")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the start.", show_default="as the preset says")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is random.", show_default="0")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished training in OUT.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    save_every: Annotated[str, typer.Option(metavar="TIME", help="Time between checkpoints.")] = "3m",
    device: Device = None,
) -> None:
    """Train a network on folders of images, a tenth of which is held out to measure the gain over bicubic.

    Prints a line per measurement. OUT is saved every few minutes, on Ctrl-C and at the end; --resume goes on from it
    as if nothing had happened. A log is written beside it (.train.csv), curves (.train.png) if matplotlib is installed.

    Several processes, each with a GPU of its own, train as one: torchrun --nproc-per-node 2 -m vdsr_core train ...

    Example: vdsr train T91 BSDS200 -o ours.safetensors --time-budget 2h
    """
    given = {
        "from": start,
        "preset": preset,
        "scales": None if scales is None else parse_scales(scales),
        "steps": steps,
        "seconds": None if time_budget is None else parse_time(time_budget, "--time-budget"),
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    pause = parse_time(save_every, "--save-every")
    if output.suffix != ".safetensors":
        msg = f"--output must end with .safetensors, got {output}."
        raise typer.BadParameter(msg)
    if steps is not None and time_budget is not None:
        msg = "--time-budget goes without --steps: one of them says how long to train."
        raise typer.BadParameter(msg)
    with plain_errors():
        from vdsr_core.checkpoint import load_trainer
        from vdsr_core.files import check_target
        from vdsr_core.training import find_rank, joined_processes

        with joined_processes(device) as place, nullcontext() if find_rank()[0] == 0 else silence():
            if resume and not output.exists():
                msg = f"{output} does not exist. Leave out --resume to begin."
                raise FileNotFoundError(msg)
            if find_rank()[0] == 0:  # which writes it, perhaps before the others are here
                check_target(output.resolve(), overwrite or resume)
            state = load_trainer(output) if resume else None
            if resume and (state is None or not isinstance(state[1].get("command"), dict)):
                msg = f"{output} must hold an unfinished training, got a finished network. "
                msg += f"Use --from {output} to train on."
                raise ValueError(msg)
            if state:
                given = continue_as(state[1]["command"], given)
            trainer, measure, record = prepare_training(folders, output, given, state, place)
            status = follow(trainer) if trainer.rank else run_training(trainer, measure, output, record, pause)
        raise typer.Exit(status)


@contextmanager
def silence() -> Iterator[None]:
    """Print nothing: the first of several processes speaks for all."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def follow(trainer: Trainer) -> int:
    """Train as one of several processes whose first logs and saves; returns the exit code."""
    with noted_signals() as signals:
        for progress in trainer.run():
            if trainer.anyone(bool(signals)) and progress.share < 1:
                return INTERRUPTED
    return 0


def parse_time(text: str, option: str) -> float:
    """``1h30m``, ``90m``, ``45s`` or ``45`` as seconds."""
    number = r"(\d+\.?\d*|\.\d+)"
    match = re.fullmatch(f"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", text)
    if not text or not match:
        msg = f"{option} must be a time, got {text!r}. Try 2h, 90m or 1h30m."
        raise typer.BadParameter(msg)
    return sum(float(part) * unit for part, unit in zip(match.groups("0"), (3600, 60, 1), strict=True))


def continue_as(begun: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The options that a training was begun with; raises if others are given now."""
    for name, value in given.items():
        if value is not None and value != begun.get(name):
            msg = f"`{name}` must be as the training was begun, {begun.get(name)}, got {value}. Leave it out to resume."
            raise ValueError(msg)
    return dict.fromkeys(given) | begun


def prepare_training(
    folders: list[Path], output: Path, given: dict[str, Any], state: Any, device: str | None
) -> tuple[Trainer, HoldOut, dict[str, Any]]:
    """The trainer, what measures its network, and what a checkpoint has to say of the command."""
    from vdsr_core.checkpoint import load_checkpoint, load_model
    from vdsr_core.engine import choose_device
    from vdsr_core.fine_tuning import HoldOut, describe, describe_recipe, split
    from vdsr_core.patches import Patches
    from vdsr_core.training import PRESETS, Trainer, make_model

    seed = given["seed"] or 0
    if state:
        model = load_checkpoint(output)
    elif given["from"]:
        model = load_model(given["from"])
    else:
        model = make_model(seed)
    scales = given["scales"] or [2.0, 3.0, 4.0]
    preset = given["preset"] or ("finetune" if given["from"] else "default")
    changes = {name: given[name] for name in ("batch_size", "learning_rate") if given[name] is not None}
    config = replace(PRESETS[preset], seconds=given["seconds"], seed=seed, **changes)
    if given["steps"] is not None:
        config = replace(config, steps=given["steps"], warmup=min(config.warmup, given["steps"] // 20))
    images: dict[str, list[tuple[None, Any]]] = {}
    for folder in folders:
        images |= read_folder(folder, scales, images)
    record = {"command": given, "images": list(images)}
    if state and state[1].get("images") != record["images"]:
        odd = sorted(set(state[1].get("images", [])) ^ set(images)) or "another order"
        msg = f"{', '.join(map(str, folders))} must hold the images of the training to resume, got {odd} missing or "
        msg += "too many."
        raise ValueError(msg)
    train_with, held = split(images, 0.1, model.halo, seed)
    where = choose_device(device)
    grid = preset == "kim2016"
    data = Patches([plane for _, plane in train_with], scales, patch=41 if grid else 48, grid=grid, device=where)
    if grid and given["steps"] is None:
        config = replace(config, steps=math.ceil(80 * len(data) / config.batch_size))
    measure = HoldOut([plane for _, plane in held], scales, pieces=PIECES, device=str(where))
    every = min(1000, max(1, config.steps // 20))
    trainer = Trainer(model, data, config, validate=measure.validate, validate_every=every)
    if state:
        trainer.restore(state)
    else:
        origin = f"from {model.card.get('name', Path(given['from']).name)}; " if given["from"] else ""
        names = ", ".join(folder.resolve().name for folder in folders)
        trainer.result.scales = tuple(scales)
        trainer.result.card = {
            "name": output.stem,
            "data": ", ".join([*describe(images, "image"), f"of {names}", "10% held out"]),
            "recipe": f"{origin}{preset}: {describe_recipe(config, data)}",
            "terms": model.card.get("terms", "") if given["from"] else "",
        }
    return trainer, measure, record


def read_folder(folder: Path, scales: list[float], taken: Container[str] = ()) -> dict[str, list[tuple[None, Any]]]:
    """The planes of all images of a folder, by name, or path if that is taken; unusable ones are named and counted."""
    from vdsr_core.fine_tuning import find_planes
    from vdsr_core.io import read_image

    if not folder.is_dir():
        msg = f"{folder} is not a folder. Give one that holds the images."
        raise NotADirectoryError(msg)
    images: dict[str, list[tuple[None, Any]]] = {}
    bad = 0
    paths = [path for path in expand(str(folder)) if not path.name.endswith(".train.png")]  # curves
    with progress_bar("{task.completed:.0f} of {task.total:.0f} images") as progress:
        for path in progress.track(paths, description=folder.name):
            try:
                image = read_image(path)
                named: Any = {str(path) if path.name in taken else path.name: image.data}
                found, skipped = find_planes(named, scales, channel_axis=image.channel_axis, rgb=image.rgb)
            except (ValueError, TypeError, OSError) as error:
                complain(error, path)
                bad += 1
                continue
            images |= found
            for why in skipped.values():
                typer.echo(f"vdsr: {path}: left out, {why}", err=True)
                bad += 1
    if bad:
        typer.echo(f"vdsr: {bad} of {len(paths)} images left out", err=True)
    if not images:
        msg = f"{folder} must hold an image to train with, got {len(paths)} that cannot be used. Check them."
        raise ValueError(msg)
    return images


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Note Ctrl-C and SIGTERM instead of stopping at once; a second one stops as usual."""
    noted: list[int] = []

    def note(number: int, _: Any) -> None:
        noted.append(number)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_training(trainer: Trainer, measure: HoldOut, output: Path, record: dict[str, Any], pause: float) -> int:
    """Train to the end or the first signal, with checkpoints and a log; returns the exit code."""
    from vdsr_core.checkpoint import save_checkpoint

    def save(*, finished: bool = False) -> None:
        tensors, state = trainer.state()
        save_checkpoint(output, trainer.result, trainer=None if finished else (tensors, state | record))

    log = Log(output, trainer.step)
    saved = time.monotonic()
    with noted_signals() as signals, log, progress_bar("{task.percentage:.1f} %") as bar:
        task = bar.add_task("training", total=1)
        if not trainer.step:
            save()  # a full disk or a wrong name shows now
        for progress in trainer.run():
            log.add(progress)
            bar.update(task, completed=progress.share, description=f"step {progress.step}  loss {log.loss:.4g}")
            if progress.gain is not None:
                score = f"{progress.psnr:.2f} dB, {progress.gain:+.2f} over bicubic"
                typer.echo(f"step {progress.step}  loss {log.loss:.4g}  {score}")
            if trainer.anyone(bool(signals)) and progress.share < 1:
                break
            if time.monotonic() - saved >= pause:
                save()
                saved = time.monotonic()
    if trainer.share < 1:
        save()
        typer.echo(f"vdsr: interrupted after step {trainer.step}; --resume goes on from {output}", err=True)
        return INTERRUPTED
    scores = measure.score(trainer.result)
    trainer.result.card["hold_out"] = {
        scale: {"bicubic": round(measure.bicubic[scale], 3), "after": round(scores[scale], 3)} for scale in scores
    }
    save(finished=True)
    log.draw()
    typer.echo(f"{output}  {trainer.step} steps, {trainer.spent:.0f} s, {measure.gain(scores):+.2f} dB over bicubic")
    return 0


class Log:
    """The rows of a CSV file beside a checkpoint, one for every 100 steps and every measurement.

    Parameters
    ----------
    output : Path
        The checkpoint.
    step : int
        Rows of an earlier run beyond this step are dropped: these steps come again.
    """

    def __init__(self, output: Path, step: int) -> None:
        self.path = output.with_suffix(".train.csv")
        self.loss, self._since, self._curves = math.nan, [0.0, 0], optional_curves(output)
        self.rows: list[dict[str, Any]] = []
        if step and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as stream:
                self.rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= step]

    def __enter__(self) -> Log:
        """Write what is kept."""
        names = ("step", "share", "learning_rate", "loss", "clipped", "patches_per_second", "psnr", "gain")
        self._stream = self.path.open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._stream, names, lineterminator="\n")
        self._writer.writeheader()
        self._writer.writerows(self.rows)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self._stream.close()
        if self._curves:
            self._curves.close()

    def add(self, progress: StepProgress) -> None:
        """Note a step; `loss` is the mean since the last row."""
        self._since = [self._since[0] + progress.loss, self._since[1] + 1]
        self.loss = self._since[0] / self._since[1]
        if progress.step % LOG_STEPS and progress.gain is None:
            return
        row = {name: getattr(progress, name) for name in self._writer.fieldnames} | {"loss": self.loss}
        self.rows.append(row)
        self._writer.writerow(row)
        self._stream.flush()
        self._since = [0.0, 0]
        for name in ("loss", "psnr", "gain", "learning_rate", "clipped") if self._curves else ():
            if row[name] is not None:
                self._curves.add_scalar(name, row[name], progress.step)

    def draw(self) -> None:
        """A PNG of the curves, if matplotlib is installed."""
        if not find_spec("matplotlib"):
            return
        figure = import_module("matplotlib.figure").Figure(figsize=(7, 7), layout="constrained")
        for axes, name in zip(figure.subplots(3, sharex=True), ("loss", "gain", "learning_rate"), strict=True):
            points = [(int(row["step"]), float(row[name])) for row in self.rows if row[name] not in ("", None)]
            axes.plot(*zip(*points, strict=True))
            axes.set(ylabel="dB over bicubic" if name == "gain" else name.replace("_", " "))
            if name != "gain":
                axes.set_yscale("log")
        axes.set(xlabel="step")
        figure.savefig(self.path.with_suffix(".png"))  # OUT's name with .train.png


def optional_curves(output: Path) -> Any:
    """A writer for TensorBoard, if that is installed."""
    if not find_spec("tensorboard"):
        return None
    return import_module("torch.utils.tensorboard").SummaryWriter(output.with_suffix(".tensorboard"))


# ----------------------------------------------------------------------------------------------- verify


@app.command()
def verify(
    target: Annotated[Path, typer.Argument(help="A .ome.zarr that `vdsr upscale` made.", show_default=False)],
    source: Annotated[Path | None, typer.Option(help="Where its source is.", show_default="where it was")] = None,
    model: Model = None,
    samples: Annotated[int, typer.Option(min=1, help="How many tiles, seams, and places of each level.")] = 8,
    seed: Annotated[int, typer.Option(help="Another number, other places.")] = 0,
    device: Device = None,
) -> None:
    """Compute random parts of a result again, among them seams between shards, and compare.

    Prints a line for each. The exit code is 1 if one differs by more than rounding.

    Example: vdsr verify cells_x2.ome.zarr
    """
    with plain_errors():
        from vdsr_core.verification import verify as run

        bad = 0
        for check in run(target, source=source, model=model, samples=samples, seed=seed, device=device):
            where = ", ".join(f"{part.start}:{part.stop}" for part in check.window)
            typer.echo(f"level {check.level}  [{where}]  {'' if check.ok else 'DIFFERS by '}{check.largest:g}")
            bad += not check.ok
        if bad:
            typer.echo(f"vdsr: {target}: {bad} places differ by more than rounding", err=True)
        raise typer.Exit(int(bad > 0))


# ------------------------------------------------------------------------------------------------- info


@app.command()
def info(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Network: the name of an embedded one, or a .safetensors or .npz file.",
            show_default="embedded",
        ),
    ] = None,
) -> None:
    """Print what is known of a network, and of this machine."""
    with plain_errors():
        from vdsr_core.checkpoint import load_model

        network = load_model(model)
        for line in (*machine_lines(), *network_lines(network)):
            typer.echo(line)


@app.command()
def doctor(model: Model = None) -> None:
    """Print what can compute here, how fast, whether it is right, and what would be faster.

    Exits with 1 if what is chosen is wrong.
    """
    with plain_errors():
        from vdsr_core.checkpoint import load_model
        from vdsr_core.doctor import advise, check_engines

        for line in machine_lines():
            typer.echo(line)
        typer.echo("\ndevice    engine    Mpx/s   difference")
        checks = []
        for check in check_engines(load_model(model)):
            checks.append(check)
            remark = check.problem or ("chosen" if check.chosen else "")
            typer.echo(
                f"{check.device:<9} {check.engine:<6} {check.speed:>8.3f}   {check.difference:<10.1e} {remark}".rstrip()
            )
        for sentence in advise(checks):
            typer.echo(f"\n{sentence}")
        raise typer.Exit(int(any(check.chosen and check.problem for check in checks)))


def machine_lines() -> Iterator[str]:
    """Versions and devices."""
    from importlib.metadata import version

    from vdsr_core import __version__
    from vdsr_core.checkpoint import model_names
    from vdsr_core.engine import choose_device, describe_devices

    yield f"vdsr      {__version__}"
    yield f"python    {platform.python_version()} on {platform.platform()}"
    yield f"torch     {version('torch')}"
    yield f"numpy     {version('numpy')}"
    yield f"devices   {', '.join(f'{name} ({text})' for name, text in describe_devices().items())}"
    yield f"chosen    {choose_device()}"
    yield f"embedded  {', '.join(model_names())}"


def network_lines(model: VDSR) -> Iterator[str]:
    """What a network is, and its card."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    yield ""
    yield f"network   depth {model.config.depth}, width {model.config.width}, {parameters} parameters"
    yield f"scales    {', '.join(f'{scale:g}' for scale in model.scales) or 'not known'}"
    yield f"halo      {model.halo} pixels"
    yield from card_lines(model.card)


def card_lines(card: dict[str, Any], indent: str = "") -> Iterator[str]:
    """A card, an entry per line, those inside another one indented."""
    for key, value in card.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{key}"
            yield from card_lines(value, f"{indent}  ")
        elif value not in ({}, [], "", None):
            yield f"{indent}{key:<{max(9 - len(indent), 0)}} {value}"
