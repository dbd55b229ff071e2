"""``vdsr fine-tune``: what `fine_tune` does, on files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vdsr_core.cli.log import TrainingLog
from vdsr_core.cli.terminal import (
    INTERRUPTED,
    Device,
    complain,
    expand,
    parse_scales,
    plain_errors,
    say,
    training_table,
)
from vdsr_core.cli.train import noted_signals

if TYPE_CHECKING:  # PyTorch takes a second to load: the help does without
    from vdsr_core.formats.image_file import ImageFile
    from vdsr_core.network.model import VDSR
    from vdsr_core.training.fine_tune import FineTuneProgress


def fine_tune(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="IN...", help="Sharp images, folders of them, or patterns.", show_default=False),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT", show_default=False, help="File of the network, .safetensors."),
    ],
    start: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Where to start.", show_default="photo")
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Start with a new network.")] = False,
    scales: Annotated[
        str | None,
        typer.Option(metavar="S...", help="Upscaling factors, such as 2 2.5 3.", show_default="those of MODEL"),
    ] = None,
    blur: Annotated[float, typer.Option(help="Blur of low images: standard deviation in pixels of IN.")] = 0.0,
    noise: Annotated[float, typer.Option(help="Noise of low images, as a share of the range of intensities.")] = 0.0,
    steps: Annotated[int, typer.Option(help="Most batches to train with.")] = 1000,
    learning_rate: Annotated[float, typer.Option(help="At the start; it falls as a cosine.")] = 1e-4,
    theta: Annotated[
        float | None, typer.Option(help="Clip gradients to theta / learning rate.", show_default="none")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Patches in a batch.")] = 16,
    patch: Annotated[int, typer.Option(help="Pixels of a patch's sides.")] = 48,
    hold_out: Annotated[float, typer.Option(help="The share that is held out to measure on.")] = 0.2,
    strips: Annotated[
        bool, typer.Option("--strips", help="Hold out a strip of each image, instead of whole images.")
    ] = False,
    validate_every: Annotated[int, typer.Option(help="Steps between two measurements.")] = 50,
    patience: Annotated[int, typer.Option(help="Measurements without a better one, after which it ends.")] = 5,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    device: Device = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished run in OUT; all else as it was begun.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Train a network further on your own images, and say whether that helped on a part held out.

    Gives the weights of `vdsr_core.fine_tune`, and of the widget in napari for a folder. Prints a line per
    measurement, and what was gained. OUT has the best network, also on Ctrl-C; --resume goes on. A log is written
    beside it (.train.csv), curves (.train.png) if matplotlib is installed.

    Example: vdsr fine-tune cells/ -o cells.safetensors --scales 2
    """
    if output.suffix != ".safetensors":
        msg = f"--output must end with .safetensors, got {output}."
        raise typer.BadParameter(msg)
    if new and start:
        msg = "--new goes without --from: a new network, or that one."
        raise typer.BadParameter(msg)
    options: dict[str, Any] = {
        "scales": None if scales is None else parse_scales(scales),
        "blur": blur,
        "noise": noise,
        "steps": steps,
        "learning_rate": learning_rate,
        "theta": theta,
        "batch_size": batch_size,
        "patch": patch,
        "hold_out": hold_out,
        "strips": strips,
        "validate_every": validate_every,
        "patience": patience,
        "seed": seed,
        "device": device,
        "resume": resume,
    }
    with plain_errors():
        from vdsr_core.files import check_target
        from vdsr_core.network.checkpoint import load_model, load_trainer
        from vdsr_core.network.model import make_model
        from vdsr_core.training.fine_tune import fine_tune_steps

        if resume and not output.exists():
            msg = f"{output} does not exist. Leave out --resume to begin."
            raise FileNotFoundError(msg)
        check_target(output.resolve(), overwrite or resume)
        network = make_model(seed) if new else load_model(start)
        run = fine_tune_steps(network, read_images(paths), checkpoint=output, **options)
        state = load_trainer(output) if resume else None
        raise typer.Exit(follow_run(network, run, output, state[1]["step"] if state else 0))


def read_images(inputs: Iterable[str]) -> dict[str, ImageFile]:
    """The images by name, or path if that is taken; those that cannot be read are named and counted."""
    from vdsr_core.dataset.planes import find_planes
    from vdsr_core.formats.io import read_image

    images: dict[str, ImageFile] = {}
    paths = [path for text in inputs for path in expand(text) if not path.name.endswith(".train.png")]  # curves
    bad = 0
    for path in paths:
        try:
            image = read_image(path)
            find_planes({path.name: image}, ())  # NaN, unknown colours and damaged chunks are found by looking
            images[str(path) if path.name in images else path.name] = image
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            complain(error, path)
            bad += 1
    if bad:
        say(f"vdsr: {bad} of {len(paths)} images left out", err=True)
    return images


def follow_run(network: VDSR, run: Iterator[FineTuneProgress], output: Path, step: int) -> int:
    """Show a run to its end or the first signal; returns the exit code."""
    from vdsr_core.network.checkpoint import save_checkpoint

    with ExitStack() as stack:
        signals = stack.enter_context(noted_signals())
        show = stack.enter_context(training_table())
        stack.enter_context(closing(run))  # type: ignore[type-var]
        first = list(islice(run, 1))  # locks OUT, or raises: only then its log may be touched
        log = stack.enter_context(TrainingLog(output, step))
        for progress in chain(first, run):
            if progress.step:
                log.add(progress)
            show(progress, log.loss)
            if progress.warning:
                say(f"vdsr: warning: {progress.warning}", err=True)
            if signals:
                say(f"vdsr: interrupted after step {progress.step}; --resume goes on from {output}", err=True)
                return INTERRUPTED
    network.card["name"] = output.stem
    save_checkpoint(output, network)
    log.draw()
    for scale, found in network.card["hold_out"].items():
        figures = ", ".join(f"{name} {found[name]:.2f}" for name in ("bicubic", "before", "after"))
        say(f"scale {scale}  {figures} dB")
    say(f"{output}  {network.card['summary']}")
    return 0
