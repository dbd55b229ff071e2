"""What the commands share: options, images by name, errors, and progress on a terminal."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:  # PyTorch takes a second to load: the help does without
    from rich.console import Console
    from rich.progress import Progress as Bar

    from vdsr_core.training.progress import Progress


EXPECTED = (ValueError, TypeError, OSError, MemoryError, FloatingPointError, ImportError)
FIGURES = "step", "loss", "PSNR, dB", "over bicubic", "rate", "clipped", "patches/s", "left"  # of a training
SHOW_CURSOR = b"\x1b[?25h"
INTERRUPTED = 130  # what shells expect after Ctrl-C
_options: ContextVar[dict[str, str]] = ContextVar("_options")  # of the running command, by name

Model = Annotated[
    str | None, typer.Option(help="Network: photo, fast, microscopy, restore, vdsr, or a file.", show_default="photo")
]
Device = Annotated[
    str | None, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.", show_default="the fastest that works")
]


def plain(text: object) -> str:
    """Text as one line without control characters, by which a file could deceive or disturb a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def say(text: object = "", *, err: bool = False) -> None:
    """Print a line on stdout or stderr, without control characters."""
    typer.echo(plain(text), err=err)


def name_options(text: str) -> str:
    """A message of the library with --options instead of the `arguments` that the running command has as options."""

    def option(match: re.Match[str]) -> str:
        name = _options.get({}).get(match[1])
        return match[0] if name is None else f"{name} {match[2] or ''}".rstrip()

    return re.sub(r"`([a-z_]+)(?:='([a-z]+)')?`", option, text)


def print_error(error: BaseException, source: object = "") -> None:
    """Print an error as one line on stderr, with the name of the file it is about."""
    if os.environ.get("VDSR_DEBUG"):
        for line in "".join(traceback.format_exception(error)).splitlines():
            say(line, err=True)
    message = name_options(" ".join(str(error).split()))
    if not (message and isinstance(error, EXPECTED)):  # of a decoder, or a fault of ours
        message = f"{type(error).__name__}: {message}".rstrip(": ")
    where = f"{source}: " if source and str(source) not in message else ""
    say(f"vdsr: {where}{message}", err=True)


def interrupt(number: int, _: Any = None) -> None:
    """Ctrl-C: end orderly, but leave it to the system to end the process at once if it comes again."""
    end_at_next(number)
    raise KeyboardInterrupt


def end_at_next(number: int) -> None:
    """Let the next signal of this number end the process, at once; a bar may have hidden the cursor."""
    signal.signal(number, signal.SIG_DFL)
    if os.isatty(2):
        os.write(2, SHOW_CURSOR)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn errors, Ctrl-C and warnings into one line on stderr each, and an exit code; a second Ctrl-C ends at once."""
    shown: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in shown:  # once, however many images it is true of
            say(f"vdsr: warning: {message}", err=True)
        shown.add(str(message))

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not ignored, as in the background of a shell
        signal.signal(signal.SIGINT, interrupt)
    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        except KeyboardInterrupt:
            say("vdsr: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):  # the last of `vdsr ... | head`
            raise
        except Exception as error:  # decoders raise anything on damaged files
            print_error(error)
            raise typer.Exit(1) from None
        finally:
            if signal.getsignal(signal.SIGINT) is interrupt:  # it was not interrupted
                signal.signal(signal.SIGINT, before)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn errors that name an `argument` into usage errors that name an --option."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(plain(name_options(str(error)))) from None


def check_options(
    scales: Iterable[float | tuple[float, float]], in_range: tuple[float, float] | None = None, **options: Any
) -> None:
    """Raise a usage error if `super_resolve` does not take these options, before any image is read."""
    import numpy as np

    from vdsr_core.images.intensity import Rescale
    from vdsr_core.upscaling.inference import super_resolve

    with usage_errors():
        for scale in scales:
            super_resolve(np.zeros((1, 1), np.uint8), scale, **options)  # constant: the network does not run
        if in_range is not None:
            Rescale(*in_range)


def refuse(problem: str, option: str | None = None) -> NoReturn:
    """Raise a usage error about an option, or an argument."""
    raise typer.BadParameter(problem, param_hint=option)


def read_numbers(text: str, option: str, hint: str) -> float | tuple[float, float]:
    """One number, or two with a colon between them."""
    numbers = [read_number(part, option, hint) for part in text.split(":")]
    if len(numbers) > 2:
        refuse(f"must be one or two numbers, got {text!r}. {hint}", option)
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def read_number(text: str, option: str, hint: str = "Try 2.5.") -> float:
    """A number that was typed; a decimal comma is refused, and never taken for two numbers."""
    try:
        return float(text)
    except ValueError:
        rule = "must have a decimal point, not a comma" if "," in text else "must be a number"
        msg = f"{rule}, got {text!r}. {hint}"
        raise typer.BadParameter(msg, param_hint=option) from None


@contextmanager
def progress_bar(*columns: str) -> Iterator[Bar]:
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


@contextmanager
def training_table(console: Console | None = None) -> Iterator[Callable[[Progress, float], None]]:
    """Yield what shows the figures of a training, to be called after each step with its progress and the mean loss.

    On a terminal they are a table, with a row for each validation and a last one that follows the steps. Elsewhere each
    validation is a line on stdout.
    """
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    console = console or Console(stderr=True)
    rows: list[tuple[str, ...]] = []
    alive: tuple[str, ...] = ()
    share = 0.0

    def draw(shown: list[tuple[str, ...]]) -> Table:
        table = Table(*FIGURES, box=None, pad_edge=False)
        for column in table.columns:
            column.justify = "right"
        for row in shown:
            table.add_row(*row)
        return table

    def show(progress: Progress, loss: float) -> None:
        nonlocal alive, share
        share, alive = progress.share, describe_step(progress, loss)
        if progress.gain is None:
            return
        rows.append(alive)
        if not (console.is_terminal and sys.stdout.isatty()):
            words = "" if math.isnan(loss) else f"loss {loss:.4g}  "
            say(f"step {progress.step}  {words}{progress.psnr:.2f} dB, {progress.gain:+.2f} over bicubic")

    def picture() -> Group:
        shown = rows if rows[-1:] == [alive] else [*rows, alive]
        return Group(draw(shown[3 - console.height :]), ProgressBar(total=1, completed=share, width=60))

    if not console.is_terminal:
        yield show
        return
    with Live(get_renderable=picture, console=console, transient=True, redirect_stdout=False):
        yield show
    console.print(draw(rows))


def describe_step(progress: Progress, loss: float) -> tuple[str, ...]:
    """A row of `FIGURES`."""
    measured = ("", "") if progress.gain is None else (f"{progress.psnr:.2f}", f"{progress.gain:+.2f}")
    left = "" if math.isnan(progress.seconds_left) else str(timedelta(seconds=round(progress.seconds_left)))
    figures = f"{loss:.4g}", *measured, f"{progress.learning_rate:.2g}", f"{progress.clipped:.0%}"
    return tuple(
        "" if text == "nan" else text
        for text in (f"{progress.step}", *figures, f"{progress.patches_per_second:.3g}", left)
    )


class Command(TyperCommand):
    """A command that names decimal commas, and takes the words after ``--scales`` as one.

    An option of click has a fixed number of words.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run, and let `name_options` know the options."""
        _options.set({option.name: max(option.opts, key=len) for option in self.params if option.opts[0][0] == "-"})
        return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the numbers that follow ``--scales`` by spaces, then parse as usual."""
        start = args.index("--scales") + 1 if "--scales" in args else len(args)
        stop = start
        while stop < len(args) and re.fullmatch(r"[\d.,]*\d[\d.,]*", args[stop]):
            stop += 1
        joined = [" ".join(args[start:stop])] if start < stop else []
        try:
            return super().parse_args(ctx, [*args[:start], *joined, *args[stop:]])
        except typer.BadParameter as error:
            if any(re.fullmatch(r"(.*=)?[-+]?\d*,\d+", word) for word in args):
                error.message = f"{error.message}. Numbers have a decimal point and no comma, such as 2.5 or 1000."
            raise


def parse_scales(text: str) -> list[float]:
    """``2 2.5 3`` as numbers."""
    hint = "Try --scales 2 2.5 3."
    words = text.split()
    if not words:
        refuse(f"must be numbers, got {text!r}. {hint}", "--scales")
    return [read_number(word, "--scales", hint) for word in words]
