"""The command `vdsr upscale`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vdsr_core.cli.dry_run import estimate_files
from vdsr_core.cli.pipes import PIPE, piped
from vdsr_core.cli.terminal import (
    Device,
    Model,
    check_options,
    plain,
    plain_errors,
    print_error,
    progress_bar,
    read_number,
    read_numbers,
    refuse,
    say,
    usage_errors,
)

if TYPE_CHECKING:  # PyTorch takes a second to load: the help does without
    from vdsr_core.streaming.files import FileProgress

of_size, of_files, of_pieces = (  # groups of options
    partial(typer.Option, rich_help_panel=group) for group in ("How large", "Files", "Results larger than memory")
)
of_size = partial(of_size, show_default=False)


def upscale(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IN...",
            help="Image files, folders, patterns such as 'plate/*.tif', URLs of OME-Zarr; - for standard input.",
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
            help="For one image, the file to write: its suffix chooses the format, .tif, .ome.tif, .png, .jpg, .webp, "
            ".zarr or .ome.zarr; .tif and .ome.zarr may be larger than memory. Or a folder, made if missing, where "
            "cells.tif becomes cells_x2.tif. Or - for standard output.",
        ),
    ],
    scale: Annotated[
        str | None,
        of_size(
            metavar="S",
            help="Output pixels per input pixel, such as 2 or 2.5, or ROWS:COLUMNS; 1 only removes noise.",
        ),
    ] = None,
    size: Annotated[
        str | None,
        of_size(
            metavar="COLUMNSxROWS",
            help="Instead of a scale, the pixels of the result: 4096x (columns), x2048 (rows), or 4096x2048 for both.",
        ),
    ] = None,
    pixel_size: Annotated[
        str | None,
        of_size(
            metavar="LENGTH",
            help="Instead of a scale, the pixel size of the result, such as 0.1um, for files that state theirs.",
        ),
    ] = None,
    model: Model = None,
    tile: Annotated[
        int, typer.Option(min=1, help="Side of a tile, in output pixels: smaller tiles need less memory.")
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
    noise: Annotated[
        str,
        typer.Option(
            metavar="NOISE",
            help="Noise to remove: auto (what is found in the image), none, its standard deviation (such as 5 in the "
            "image's own units, or 3% of the range), or GAIN:OFFSET of its variance. Networks without maps and "
            "restorer remove no noise.",
        ),
    ] = "auto",
    compression: Annotated[
        str,
        typer.Option(
            metavar="C",
            help="JPEG artefacts to remove: auto (as strong as the tables in the file say), or from 0 (none) to 1.",
        ),
    ] = "auto",
    nan: Annotated[
        Literal["raise", "keep"],
        typer.Option(
            help="What NaN means: an error (raise), or a pixel without a value, which stays NaN in the result (keep)."
        ),
    ] = "raise",
    self_ensemble: Annotated[
        bool,
        typer.Option(
            "--self-ensemble", help="Take the mean over eight flips and rotations: a little better, 8 times slower."
        ),
    ] = False,
    axes: Annotated[
        str | None,
        of_files(
            metavar="LETTERS",
            help="Order of the axes, such as CYX: T time, C channels, Z planes, Y rows, X columns, S colour samples.",
            show_default="as each file says",
        ),
    ] = None,
    format: Annotated[
        Literal["tif", "ome.tif", "png", "jpg", "webp", "zarr", "ome.zarr"] | None,
        of_files(help="Format of the files in the folder OUT, or of standard output.", show_default="as each image"),
    ] = None,
    pattern: Annotated[
        str,
        of_files(
            metavar="TEXT",
            help="Names of the files in the folder OUT: {name} is the image's name, {scale} is x2 or 4096x.",
        ),
    ] = "{name}_{scale}",
    jpeg_quality: Annotated[int, of_files(min=1, max=100, metavar="Q", help="Quality of JPEG files, 1 to 100.")] = 95,
    recursive: Annotated[
        bool, of_files("--recursive", help="Search subfolders, too; OUT gets the same subfolders.")
    ] = False,
    overwrite: Annotated[bool, of_files("--overwrite", help="Replace outputs that exist.")] = False,
    dry_run: Annotated[
        bool,
        of_pieces("--dry-run", help="Print the size, the time and the number of shards of each result; write nothing."),
    ] = False,
    part: Annotated[
        str | None,
        of_pieces(metavar="I/N", help="Compute part I of N; each part is a process of its own.", show_default="all"),
    ] = None,
    cluster: Annotated[
        str | None,
        of_pieces(
            metavar="ADDRESS",
            help="Compute on a dask cluster: the address of its scheduler, or local:4 for four processes here.",
            show_default="in this process",
        ),
    ] = None,
    shard: Annotated[
        int, of_pieces(help="Side of a shard, the piece that a process computes at a time, in output pixels.")
    ] = 2048,
) -> None:
    """Upscale images: data type, intensities, channels and metadata are kept, pixels get smaller.

    Prints a line per image. An output that exists is kept. If an image cannot be upscaled, the command names it and
    continues with the others.

    An OUT that ends in .ome.zarr, or in .tif if it is large (1 GiB), is written piece by piece as a pyramid: an image
    with coarser levels. After an interruption, the same command resumes it. --dry-run, --part, --cluster and --shard
    are for such results.

    Example: vdsr upscale cells.tif -o cells_x2.tif --scale 2
    """
    hint = "Try 2, or 2:1.5 for rows and columns."
    wanted: dict[str, Any] = {
        "scale": None if scale is None else read_numbers(scale, "--scale", hint),
        "size": None if size is None else parse_size(size),
        "pixel_size": None if pixel_size is None else parse_length(pixel_size),
    }
    share = None if part is None else parse_part(part)
    strength, artefacts = parse_noise(noise), parse_compression(compression)
    with plain_errors():
        from vdsr_core.network.checkpoint import load_model
        from vdsr_core.streaming.cluster import connect
        from vdsr_core.streaming.files import upscale_files
        from vdsr_core.streaming.goal import Goal
        from vdsr_core.streaming.outputs import is_folder, list_jobs

        with usage_errors():
            goal = Goal.of(**wanted)
        network = load_model(model)
        options: dict[str, Any] = {
            "model": network, "tile": tile, "device": device, "in_range": in_range, "nan": nan,
            "self_ensemble": self_ensemble, "noise": strength, "compression": artefacts,
        }  # fmt: skip
        # A part of the range counts as a number here: the range is that of each image.
        one = {"noise": 1.0 if isinstance(strength, str) and strength != "auto" else strength}
        check_options([wanted["scale"] or 2], **options | one)
        names: dict[str, Any] = {"pattern": pattern, "recursive": recursive}
        pieces: dict[str, Any] = {"axes": axes, "shard": shard}
        with piped(images, output, format) as (inputs, target, names["format"]):
            if dry_run:
                with usage_errors():
                    jobs = list_jobs(inputs, target, goal.label, **names)
                raise typer.Exit(estimate_files(jobs, goal, options | pieces, is_folder(target)))
            with connect(cluster) as client:
                files: dict[str, Any] = {"overwrite": overwrite, "jpeg_quality": jpeg_quality}
                with usage_errors():
                    run = upscale_files(
                        inputs, target, **wanted, **names, **options, **pieces, **files, part=share, client=client
                    )
                status = show_files(run, images, output)
        raise typer.Exit(status)


def show_files(run: Iterator[FileProgress], images: list[str], output: str) -> int:
    """Show the images that are upscaled, a line each when it is done; returns the exit code."""
    failed = False
    with progress_bar("{task.percentage:.0f} %") as bar:
        task = bar.add_task("", total=1)
        for step in run:
            what = step.name or step.source.name
            bar.update(task, completed=step.fraction, description=plain(f"{what} ({step.number} of {step.count})"))
            if step.error is not None:
                print_error(step.error, step.source)
                failed = True
            elif step.outcome:
                kept = step.outcome == "kept"
                message = "kept: it exists (--overwrite replaces it)" if kept else step.message
                source, target = PIPE if images == [PIPE] else step.source, PIPE if output == PIPE else step.target
                line = f"{source}{f', {step.name}' if step.name else ''} -> {target}  {message}"
                say(line, err=output == PIPE)
                bar.reset(task)
    return int(failed)


def parse_size(text: str) -> tuple[int | None, int | None]:
    """``4096x``, ``x2048`` or ``4096x2048`` (columns, rows) as (rows, columns)."""
    match = re.fullmatch(r"(\d*)x(\d*)", text.strip())
    if not match or not (match[1] or match[2]):
        refuse(f"must be COLUMNSxROWS, one of which may be left out, got {text!r}. Try 4096x.", "--size")
    columns, rows = (int(digits) if digits else None for digits in match.groups())
    return rows, columns


def parse_length(text: str) -> tuple[float, str]:
    """``0.1um`` as a number and a unit."""
    number, unit = re.fullmatch(r"(.*?)\s*([^\W\d_]*)", text.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
    return read_number(number, "--pixel-size", "Try 0.1um."), unit


def parse_noise(text: str) -> str | float | tuple[float, float]:
    """``auto``, ``none``, ``5``, ``3%`` or ``GAIN:OFFSET``, as `upscale_files` takes it."""
    hint = "Try auto, none, 5, 3%, or 2:100 for a gain and an offset."
    words = text.strip().lower()
    if words in ("auto", "none"):
        return "auto" if words == "auto" else 0.0
    if words.endswith("%"):
        percent = read_number(words[:-1], "--noise", hint)
        if not 0 <= percent <= 100:
            refuse(f"must be from 0% to 100% of the range, got {text!r}. {hint}", "--noise")
        return f"{percent:g}%" if percent else 0.0
    return read_numbers(words, "--noise", hint)


def parse_compression(text: str) -> str | float:
    """``auto`` or a number."""
    word = text.strip().lower()
    return word if word == "auto" else read_number(word, "--compression", "Try auto, or 0.1.")


def parse_part(text: str) -> tuple[int, int]:
    """``2/8`` as numbers."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        refuse(f"must be a number from 1 to N, a slash and N, got {text!r}. Try 1/8.", "--part")
    return number, count
