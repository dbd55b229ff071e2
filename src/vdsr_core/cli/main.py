"""The `vdsr` command."""

from __future__ import annotations

import io
import logging
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from vdsr_core.cli.evaluate import evaluate
from vdsr_core.cli.export import export
from vdsr_core.cli.fine_tune import fine_tune
from vdsr_core.cli.terminal import Device, Model, SeveralScales, plain_errors
from vdsr_core.cli.train import train
from vdsr_core.cli.upscale import upscale

if TYPE_CHECKING:  # PyTorch takes a second to load: the help does without
    from vdsr_core.network.model import VDSR


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


app.command()(upscale)
app.command(cls=SeveralScales)(evaluate)
app.command(cls=SeveralScales)(train)
app.command("fine-tune", cls=SeveralScales)(fine_tune)
app.command()(export)


@app.command()
def verify(
    target: Annotated[
        Path, typer.Argument(help="A .ome.zarr or .ome.tif that `vdsr upscale` made.", show_default=False)
    ],
    source: Annotated[Path | None, typer.Option(help="Where its source is.", show_default="where it was")] = None,
    model: Model = None,
    samples: Annotated[int, typer.Option(min=1, help="How many tiles, seams, and places of each level.")] = 8,
    seed: Annotated[int, typer.Option(help="Another number, other places.")] = 0,
    device: Device = None,
) -> None:
    """Compute random parts of a result again, among them seams between shards, and compare.

    Prints a line for each. The exit code is 1 if one differs by more than rounding. What a GPU made is to be verified
    on one: it computes in half precision. Give the --model that the result was made with.

    Example: vdsr verify cells_x2.ome.zarr
    """
    with plain_errors():
        from vdsr_core.formats.io import image_names
        from vdsr_core.streaming.verify import verify as run

        bad = 0
        for name in image_names(target):
            if name:
                typer.echo(target / name)
            options: dict[str, Any] = {"samples": samples, "seed": seed, "device": device}
            for check in run(target / name, source=source and source / name, model=model, **options):
                where = ", ".join(f"{part.start}:{part.stop}" for part in check.window)
                typer.echo(f"level {check.level}  [{where}]  {'' if check.ok else 'DIFFERS by '}{check.largest:g}")
                bad += not check.ok
        if bad:
            typer.echo(f"vdsr: {target}: {bad} places differ by more than rounding", err=True)
        raise typer.Exit(int(bad > 0))


@app.command()
def info(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Network: photo, microscopy, or a file.",
            show_default="photo",
        ),
    ] = None,
) -> None:
    """Print what is known of a network, and of this machine."""
    with plain_errors():
        from vdsr_core.network.checkpoint import load_model

        network = load_model(model)
        for line in (*machine_lines(), *network_lines(network)):
            typer.echo(line)


@app.command()
def doctor(model: Model = None) -> None:
    """Print what can compute here, how fast, whether it is right, and what would be faster.

    Exits with 1 if what is chosen is wrong.
    """
    with plain_errors():
        from vdsr_core.cli.doctor import advise, check_engines
        from vdsr_core.network.checkpoint import load_model

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
    from vdsr_core.cli.doctor import describe_build
    from vdsr_core.network.engine import choose_device, has_ncnn, list_devices
    from vdsr_core.network.pretrained import model_names

    yield f"vdsr      {__version__}"
    yield f"python    {platform.python_version()} on {platform.platform()}"
    yield f"torch     {version('torch')}, {describe_build()}"
    if has_ncnn():
        yield f"ncnn      {version('ncnn')}"
    yield f"numpy     {version('numpy')}"
    yield f"devices   {', '.join(f'{name} ({text})' for name, text in list_devices().items())}"
    yield f"chosen    {choose_device()}"
    yield f"embedded  {', '.join(model_names())}"


def network_lines(model: VDSR) -> Iterator[str]:
    """What a network is, and its card."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    yield ""
    config = model.config
    more = f", fold {config.fold}" * (config.fold > 1) + ", blocks" * config.blocks
    yield f"network   depth {config.depth}, width {config.width}{more}, {parameters} parameters"
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
