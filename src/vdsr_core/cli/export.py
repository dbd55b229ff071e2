"""The command `vdsr export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vdsr_core.cli.terminal import plain_errors, refuse, say

OPTIONS = {  # what goes with each format
    ".onnx": ("--scale", "--in-range", "--rgb"),
    ".bioimageio.zip": ("--scale", "--in-range", "--author", "--license"),
    ".safetensors": (),
}


def export(
    model: Annotated[
        str, typer.Argument(help="Network: a name or a file, as `vdsr info` takes it.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            show_default=False,
            help="File to write; its suffix chooses the format: .onnx, .bioimageio.zip (of the BioImage Model Zoo, for "
            "Fiji, QuPath and ilastik), or .safetensors (of vdsr).",
        ),
    ],
    scale: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="S",
            help="Put bicubic interpolation by this factor into the file, for programs that cannot interpolate.",
            show_default="the input is the interpolated image",
        ),
    ] = None,
    in_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="Let the file map these intensities to 0 and 1, and back at the end.",
            show_default="the input is mapped already",
        ),
    ] = None,
    rgb: Annotated[
        bool, typer.Option("--rgb", help="Take colour images: red, green and blue, for photographs.")
    ] = False,
    author: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Who trained it, for .bioimageio.zip; once for each author."),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(
            metavar="SPDX",
            help="Licence of the weights, for .bioimageio.zip, such as CC-BY-4.0.",
            show_default="the card's terms",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write a network for other programs.

    If ONNX Runtime is installed, the file is compared with PyTorch on random images, and is not written if they differ.

    Example: vdsr export photo -o photo_x2.onnx --scale 2
    """
    kind = ".bioimageio.zip" if output.name.lower().endswith(".bioimageio.zip") else output.suffix.lower()
    options = {"--scale": scale, "--in-range": in_range, "--rgb": rgb, "--author": author, "--license": license}
    if kind not in OPTIONS:
        refuse(f"must end in {', '.join(OPTIONS)}, got {output.name}.", "--output")
    for name, value in options.items():
        if value and name not in OPTIONS[kind]:
            refuse(f"cannot be used for {kind}. Leave it out.", name)
    with plain_errors():
        from vdsr_core.files import check_target
        from vdsr_core.network.bioimageio_file import save_bioimageio
        from vdsr_core.network.checkpoint import load_model, save_checkpoint
        from vdsr_core.network.onnx_file import save_onnx

        check_target(output.absolute(), overwrite)
        network = load_model(model)
        if kind == ".safetensors":
            save_checkpoint(output, network)
            say(output)
            return
        if kind == ".onnx":
            difference = save_onnx(output, network, scale=scale, in_range=in_range, rgb=rgb)
        else:
            difference = save_bioimageio(
                output, network, scale=scale, in_range=in_range, authors=author or (), license=license
            )
        say(f"{output}  {describe_check(difference)}")


def describe_check(difference: float | None) -> str:
    """What the comparison with PyTorch has found."""
    if difference is None:
        return "not compared with PyTorch: `pip install onnxruntime` makes it possible"
    return f"ONNX Runtime differs from PyTorch by {difference:.1g} of the range"
