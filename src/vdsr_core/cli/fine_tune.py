"""``vdsr fine-tune``: what `fine_tune` does, on files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from vdsr_core.cli.terminal import INTERRUPTED, Device, parse_scales, plain_errors, refuse, say
from vdsr_core.cli.training import check_output, follow, read_planes, typed_options
from vdsr_core.training.recipe import NETWORK, FineTuneConfig

of_images, of_recipe, of_run = (  # groups of options
    partial(typer.Option, rich_help_panel=group) for group in ("Images", "Recipe", "Run")
)


def fine_tune(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="IN...", help="Sharp images, folders of them, or patterns.", show_default=False),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT", show_default=False, help="File of the network, .safetensors."),
    ],
    start: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Network to start from.", show_default="photo")
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Start with a new network.")] = False,
    scales: Annotated[
        str | None, of_images(metavar="S...", help="Upscaling factors, such as 2 3 4.", show_default="those of MODEL")
    ] = None,
    blur: Annotated[
        float, of_images(help="Blur of low-resolution images: standard deviation in pixels of IN.")
    ] = FineTuneConfig.blur,
    added_noise: Annotated[
        float, of_images(help="Noise of low-resolution images, as a fraction of the range of intensities.")
    ] = FineTuneConfig.added_noise,
    hold_out: Annotated[
        float, of_images(help="Fraction of the images that is held out to measure the gain.")
    ] = FineTuneConfig.hold_out,
    strips: Annotated[
        bool, of_images("--strips", help="Hold out a strip of each image, instead of whole images.")
    ] = FineTuneConfig.strips,
    steps: Annotated[int, of_recipe(help="Maximum number of training steps.")] = FineTuneConfig.steps,
    optimizer: Annotated[Literal["muon", "adamw"], of_recipe(help="Optimiser.")] = FineTuneConfig.optimizer,  # type: ignore[assignment]
    learning_rate: Annotated[
        float, of_recipe(help="Learning rate after the warm-up; from there it falls as a cosine.")
    ] = FineTuneConfig.learning_rate,
    theta: Annotated[
        float | None,
        of_recipe(help="Clip each element of the gradient to theta / learning rate; for adamw.", show_default="none"),
    ] = FineTuneConfig.theta,
    batch_size: Annotated[int, of_recipe(help="Patches in a batch.")] = FineTuneConfig.batch_size,
    patch: Annotated[int, of_recipe(help="Side of a patch in pixels.")] = FineTuneConfig.patch,
    validate_every: Annotated[int, of_recipe(help="Steps between two validations.")] = FineTuneConfig.validate_every,
    patience: Annotated[
        int, of_recipe(help="End after this many validations without a better result.")
    ] = FineTuneConfig.patience,
    seed: Annotated[int, of_recipe(help="Random seed.")] = FineTuneConfig.seed,
    device: Device = None,
    resume: Annotated[
        bool, of_run("--resume", help="Resume the unfinished run in OUT, with the same images and MODEL.")
    ] = False,
    overwrite: Annotated[bool, of_run("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Train a network further on your own images, and measure on a part that is held out whether that helped.

    Gives the same weights as `vdsr_core.fine_tune`, and as the widget in napari for a folder. Prints a line per
    validation, and the gain. OUT has the best network, also after Ctrl-C; --resume continues. A log is written
    beside OUT (.train.csv), and curves (.train.png) if matplotlib is installed.

    Example: vdsr fine-tune cells/ -o cells.safetensors --scales 2
    """
    if new and start:
        refuse("--new cannot be used with --from. Leave one of them out.")
    given = typed_options(context)
    if scales is not None:
        given["scales"] = parse_scales(scales)
    given = {name: value for name, value in given.items() if name in FineTuneConfig.__dataclass_fields__}
    with plain_errors():
        import torch

        from vdsr_core.files import check_target
        from vdsr_core.network.checkpoint import load_model, load_trainer
        from vdsr_core.network.model import VDSRConfig, make_model
        from vdsr_core.training.fine_tune import Material, choose_scales, fine_tune_planes, resume_config

        check_output(output, resume)
        check_target(output.resolve(), overwrite or resume)
        config = FineTuneConfig(**given)
        if resume:
            config = resume_config(config, given, output)
        network = make_model(config.seed, VDSRConfig(**NETWORK), start="identity") if new else load_model(start)
        factors = choose_scales(config, network)
        images = read_planes(paths, factors)
        material = Material(images.planes, scales=factors, skipped=images.skipped)
        state = load_trainer(output) if resume else None
        run = fine_tune_planes(
            network, material, config, name=output.stem, device=device, checkpoint=output, resume=resume
        )
        if not follow(run, output, state[1]["step"] if state else 0, torch.device("cpu")):
            raise typer.Exit(INTERRUPTED)
    for scale, found in network.card["hold_out"].items():
        figures = ", ".join(f"{name} {found[name]:.2f}" for name in ("bicubic", "before", "after"))
        say(f"scale {scale}  {figures} dB")
    say(f"{output}  {network.card['summary']}")
