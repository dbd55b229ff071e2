"""The `vdsr` command."""

from __future__ import annotations

import atexit
import gc
import io
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vdsr_core.cli.doctor import doctor, info
from vdsr_core.cli.evaluate import evaluate
from vdsr_core.cli.export import export
from vdsr_core.cli.fine_tune import fine_tune
from vdsr_core.cli.terminal import Command, Device, Model, plain_errors, say
from vdsr_core.cli.train import train
from vdsr_core.cli.upscale import upscale

atexit.register(gc.freeze)  # else the interpreter looks for garbage in all of PyTorch at its end, for a second
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all is well, 1 an image or another file is bad, 2 the command line is bad, "
    "130 interrupted. Set VDSR_DEBUG=1 to see the traceback of an error.",
)


def show_version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        from vdsr_core import __version__

        say(f"vdsr {__version__}")
        raise typer.Exit


@app.callback()
def vdsr(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Upscale images with a very deep residual network (VDSR), train it, and measure how well it does."""
    if not os.environ.get("VDSR_DEBUG"):  # what it has to say of a damaged file, the error says
        logging.getLogger("tifffile").addHandler(logging.NullHandler())
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")


def verify(
    target: Annotated[
        Path, typer.Argument(help="A .ome.zarr or .ome.tif that `vdsr upscale` made.", show_default=False)
    ],
    source: Annotated[
        str | None, typer.Option(metavar="IN", help="Its source, if that was moved.", show_default="where it was")
    ] = None,
    model: Model = None,
    samples: Annotated[
        int, typer.Option(min=1, help="How many tiles to compare, how many seams, and how many places of each level.")
    ] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the random places.")] = 0,
    device: Device = None,
) -> None:
    """Compute random parts of a result again, also at the seams between shards, and compare them with the result.

    Prints a line for each part. The exit code is 1 if a part differs by more than rounding. Give the --model that the
    result was made with. Verify the result of a GPU on a GPU, which computes in half precision.

    Example: vdsr verify cells_x2.ome.zarr
    """
    with plain_errors():
        from vdsr_core.formats.io import image_names
        from vdsr_core.streaming.verify import verify as run

        bad = 0
        for name in image_names(target):
            if name:
                say(target / name)
            options: dict[str, Any] = {"samples": samples, "seed": seed, "device": device}
            for check in run(target / name, source=source and f"{source}/{name}".rstrip("/"), model=model, **options):
                where = ", ".join(f"{part.start}:{part.stop}" for part in check.window)
                say(f"level {check.level}  [{where}]  {'' if check.ok else 'DIFFERS by '}{check.largest:g}")
                bad += not check.ok
        if bad:
            say(f"vdsr: {target}: {bad} places differ by more than rounding", err=True)
        raise typer.Exit(int(bad > 0))


for command in (upscale, verify, evaluate, train, fine_tune, export, info, doctor):
    app.command(command.__name__.replace("_", "-"), cls=Command)(command)
