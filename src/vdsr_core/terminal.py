"""What the commands share: options, images by name, errors, and progress on a terminal."""

from __future__ import annotations

import glob
import os
import re
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from rich.progress import Progress


SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".zarr")
EXPECTED = (ValueError, TypeError, OSError, MemoryError, FloatingPointError, ImportError)
INTERRUPTED = 130  # what shells expect after Ctrl-C

Model = Annotated[
    str | None,
    typer.Option(help="Network: the name of an embedded one, or a .safetensors or .npz file.", show_default="embedded"),
]
Device = Annotated[
    str | None,
    typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.", show_default="the fastest that works"),
]


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
