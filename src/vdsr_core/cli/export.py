"""The command `vdsr export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vdsr_core.cli.terminal import plain_errors


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
            help="File to write; its suffix names the format: .onnx, or .safetensors, which is the format of vdsr.",
        ),
    ],
    scale: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="S",
            help="Put the bicubic interpolation by this factor inside, for programs that cannot interpolate.",
            show_default="the input is the interpolated image",
        ),
    ] = None,
    in_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="Map these intensities to 0 and 1 inside, and back at the end.",
            show_default="the input is mapped already",
        ),
    ] = None,
    rgb: Annotated[
        bool, typer.Option("--rgb", help="Take colour images: red, green and blue, for photographs.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write a network for other programs.

    If ONNX Runtime is installed, the file is compared with PyTorch on random images, and is not written if they differ.

    Example: vdsr export photo -o photo_x2.onnx --scale 2
    """
    kind = "".join(output.suffixes[-1:]).lower()
    if kind not in (".onnx", ".safetensors"):
        msg = f"must end in .onnx or .safetensors, got {output.name}."
        raise typer.BadParameter(msg, param_hint="--output")
    if kind == ".safetensors" and (scale or in_range or rgb):
        msg = f"OUT must end in .onnx with --scale, --in-range and --rgb, got {output.name}."
        raise typer.BadParameter(msg)
    with plain_errors():
        from vdsr_core.files import check_target
        from vdsr_core.network.checkpoint import load_model, save_checkpoint
        from vdsr_core.network.onnx_file import save_onnx

        check_target(output.absolute(), overwrite)
        network = load_model(model)
        if kind == ".safetensors":
            save_checkpoint(output, network)
            typer.echo(output)
            return
        difference = save_onnx(output, network, scale=scale, in_range=in_range, rgb=rgb)
        typer.echo(f"{output}  {describe_check(difference)}")


def describe_check(difference: float | None) -> str:
    """What the comparison with PyTorch has found."""
    if difference is None:
        return "not compared with PyTorch: `pip install onnxruntime` makes it possible"
    return f"ONNX Runtime differs from PyTorch by {difference:.1g} of the range"
