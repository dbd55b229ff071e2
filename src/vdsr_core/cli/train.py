"""The command `vdsr train`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vdsr_core.cli.terminal import INTERRUPTED, Device, parse_scales, plain_errors, refuse, say
from vdsr_core.cli.training import Images, check_output, follow, read_planes, typed_options
from vdsr_core.training.recipe import NETWORK, PRESETS, TrainConfig, describe_recipe, shorten_warmup

if TYPE_CHECKING:  # PyTorch takes a second to load: the help does without
    from vdsr_core.network.model import VDSR
    from vdsr_core.training.resume import RunFile
    from vdsr_core.training.session import Session


PIECES = 32  # held-out pieces that are measured, at most
HOLD_OUT = 0.1  # fraction of the images
EPOCHS = 80  # of the paper's recipe
LUMA_RANGE = 16 / 255, 235 / 255  # black and white
of_network, of_images, of_recipe, of_run = (  # groups of options
    partial(typer.Option, rich_help_panel=group) for group in ("Network", "Images", "Recipe", "Run")
)
of_preset = partial(of_recipe, show_default="that of the preset")
PASSED = "scale_range", "blur", "added_noise", "gain", "offset", "low_contrast"  # to `Session`
LATER = "folders", "output", "resume", "overwrite", "save_every", "device"  # what a resumed run may change


def train(
    context: typer.Context,
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
            help="Recipe: the paper's (kim2016, 80 epochs), ours (default), or a short one for a trained network "
            "(finetune).",
            show_default="finetune with --from, else default",
        ),
    ] = None,
    depth: Annotated[int, of_network(help="Layers of a new network.")] = 20,
    width: Annotated[int, of_network(help="Filters of each of its layers.")] = 64,
    fold: Annotated[
        int | None,
        of_network(
            help="Side of the square of pixels that its layers treat as one position: 2 is four times as fast as 1.",
            show_default="2, with kim2016 1",
        ),
    ] = None,
    blocks: Annotated[
        bool | None,
        of_network(
            "--blocks/--no-blocks",
            help="Join its hidden layers in pairs, and add the input of each pair to its output.",
            show_default="yes, with kim2016 no",
        ),
    ] = None,
    maps: Annotated[
        bool | None,
        of_network(
            "--maps",
            help="Tell the network how noisy and how compressed each image is, and train it with such images, too; "
            "with --from, MODEL gets these inputs.",
            show_default="no, with --from as MODEL",
        ),
    ] = None,
    initial: Annotated[
        Literal["he", "identity"] | None,
        of_network(
            help="Its first weights: random as in the paper (he), or such that layers pass on their input (identity).",
            show_default="identity, with kim2016 he",
        ),
    ] = None,
    scales: Annotated[str | None, of_images(metavar="S...", help="Upscaling factors.", show_default="2 3 4")] = None,
    scale_range: Annotated[
        tuple[float, float] | None,
        of_images(
            metavar="LOW HIGH", help="Also random scales between these, four for each image.", show_default=False
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        of_images(
            metavar="CSV",
            help="Table with the columns file and source: images of one source are held out together.",
            show_default=False,
        ),
    ] = None,
    patch: Annotated[
        int | None, of_images(min=1, help="Side of a patch in pixels.", show_default="48, with kim2016 41")
    ] = None,
    blur: Annotated[
        float, of_images(help="Blur of low-resolution images: standard deviation in pixels of the sharp images.")
    ] = 0.0,
    added_noise: Annotated[
        float, of_images(help="Noise of low-resolution images, as a fraction of the range of intensities.")
    ] = 0.0,
    gain: Annotated[
        tuple[float, float] | None,
        of_images(
            metavar="LOW HIGH", help="Multiply each patch by a random number between these.", show_default="none"
        ),
    ] = None,
    offset: Annotated[
        tuple[float, float] | None,
        of_images(
            metavar="LOW HIGH",
            help="Add to each patch a random number between these, as a fraction of the range of intensities.",
            show_default="none",
        ),
    ] = None,
    low_contrast: Annotated[
        float,
        of_images(help="Fraction of the patches whose contrast is reduced, so that faint images stay faint."),
    ] = 0.0,
    clip_luma: Annotated[
        bool,
        of_images(
            "--clip-luma/--no-clip-luma",
            help="Clip the interpolated image of every other patch to 16..235: for photographs.",
        ),
    ] = False,
    steps: Annotated[int | None, of_preset(help="Training steps.")] = None,
    time_budget: Annotated[
        str | None,
        of_recipe(
            metavar="TIME",
            help="Instead of --steps, the time to train: 2h, 90m, 1h30m. Validating and saving take extra time.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int | None, of_preset(help="Patches in a batch.")] = None,
    optimizer: Annotated[Literal["sgd", "adamw", "muon"] | None, of_preset(help="Optimiser.")] = None,
    learning_rate: Annotated[float | None, of_preset(help="Learning rate after the warm-up, before it falls.")] = None,
    decay: Annotated[
        float | None,
        of_preset(help="Last fraction of the training, in which the learning rate falls: 0 keeps it constant."),
    ] = None,
    theta: Annotated[
        float | None,
        of_recipe(
            help="Clip each element of the gradient to theta / learning rate, as the paper does; not with muon.",
            show_default="1e-4 with kim2016, else none",
        ),
    ] = None,
    loss: Annotated[
        Literal["l2", "l1", "psnr"] | None,
        of_preset(help="Error to reduce: squared as in the paper, absolute, or squared in dB for each patch."),
    ] = None,
    average: Annotated[
        float | None,
        of_preset(help="Decay of the running mean of the weights: 0.9999 averages about the last tenth of a training."),
    ] = None,
    seed: Annotated[int, of_recipe(help="Random seed.")] = 0,
    resume: Annotated[bool, of_run("--resume", help="Resume the unfinished training in OUT.")] = False,
    overwrite: Annotated[bool, of_run("--overwrite", help="Replace OUT if it exists.")] = False,
    save_every: Annotated[str, of_run(metavar="TIME", help="Time between checkpoints.")] = "3m",
    device: Device = None,
) -> None:
    """Train a network on folders of images; a tenth of them is held out to measure the gain over bicubic.

    Prints a line per validation. OUT is saved every few minutes, on Ctrl-C and at the end; --resume continues, with
    the same result as without the interruption. A log is written beside OUT (.train.csv), and curves (.train.png) if
    matplotlib is installed.

    A training at a constant learning rate (--decay 0) needs no end. Whenever you want a network, start another training
    --from its OUT with --preset default --decay 1, for about a third as many steps.

    Several processes, each with its own GPU, train one network: torchrun --nproc-per-node 2 -m vdsr_core train ...

    Example: vdsr train photographs -o ours.safetensors --time-budget 2h
    """
    given: dict[str, Any] = {name: value for name, value in typed_options(context).items() if name not in LATER}
    given |= {name: list(value) for name, value in given.items() if isinstance(value, tuple)}  # as JSON has them
    if groups is not None:
        given["groups"] = str(groups)
    if scales is not None:
        given["scales"] = parse_scales(scales)
    if time_budget is not None:
        given["time_budget"] = parse_time(time_budget, "--time-budget")
    pause = parse_time(save_every, "--save-every")
    if start and (odd := {"depth", "width", "fold", "blocks", "initial"} & set(given)):
        refuse(f"--{min(odd)} cannot be used with --from: it is for a new network.")
    if steps is not None and time_budget is not None:
        refuse("--time-budget cannot be used with --steps. Leave one of them out.")
    with plain_errors():
        from vdsr_core.files import check_target
        from vdsr_core.training.processes import find_rank, joined_processes
        from vdsr_core.training.resume import RunFile, check_settings, read_settings

        with joined_processes(device) as place, ExitStack() as stack:
            first = find_rank()[0] == 0  # of several processes, the one that speaks and writes
            if not first:
                stack.enter_context(silence())
            check_output(output, resume)
            if first:  # perhaps before the others are here
                check_target(output.resolve(), overwrite or resume)
            begun, config = read_settings(output) if resume else (given, None)
            check_settings(begun, given, output)
            session, images = prepare(folders, output, begun, config, place)
            card = begun.get("card") or make_card(session, images, folders, output.stem, begun)
            file = RunFile(output, begun | {"card": card}, pause=pause)
            if not train_on(session, card, file, resume):
                raise typer.Exit(INTERRUPTED)


@contextmanager
def silence() -> Iterator[None]:
    """Print nothing: the first of several processes speaks for all."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def parse_time(text: str, option: str) -> float:
    """``1h30m``, ``90m``, ``45s`` or ``45`` as seconds."""
    number = r"(\d+\.?\d*|\.\d+)"
    match = re.fullmatch(f"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", text)
    if not text or not match:
        refuse(f"{option} must be a time, got {text!r}. Try 2h, 90m or 1h30m.")
    return sum(float(part) * unit for part, unit in zip(match.groups("0"), (3600, 60, 1), strict=True))


def choose_preset(given: dict[str, Any]) -> str:
    """The name of the recipe."""
    return str(given.get("preset") or ("finetune" if "start" in given else "default"))


def choose_start(given: dict[str, Any]) -> str:
    """The first weights of a new network."""
    return given.get("initial") or ("he" if choose_preset(given) == "kim2016" else "identity")


def start_network(given: dict[str, Any]) -> VDSR:
    """The network to train."""
    from vdsr_core.network.checkpoint import load_model
    from vdsr_core.network.model import MAPS, QUALITY, VDSRConfig, add_maps, make_model

    if "start" in given:
        model = load_model(given["start"])
        told = set(QUALITY).issubset(model.config.maps)
        return add_maps(model) if given.get("maps") and not told else model
    shape = {} if choose_preset(given) == "kim2016" else dict(NETWORK)
    shape |= {name: given[name] for name in ("depth", "width", "fold", "blocks") if name in given}
    shape |= {"maps": MAPS} if given.get("maps") else {}
    return make_model(given.get("seed", 0), VDSRConfig(**shape), start=choose_start(given))


def make_config(given: dict[str, Any]) -> TrainConfig:
    """The recipe that the options ask for."""
    names = "batch_size", "optimizer", "learning_rate", "decay", "loss", "average", "seed", "steps"
    changes = {name: given[name] for name in names if name in given}
    if "theta" in given:
        changes |= {"theta": given["theta"], "clip": "value"}
    config = replace(PRESETS[choose_preset(given)], seconds=given.get("time_budget"), **changes)
    return shorten_warmup(config) if "steps" in given else config


def prepare(
    folders: list[Path], output: Path, given: dict[str, Any], resumed: dict[str, Any] | None, device: str | None
) -> tuple[Session, Images]:
    """Read the images and begin; `resumed` is the `TrainConfig` of a training to resume."""
    from vdsr_core.dataset.split import read_groups
    from vdsr_core.network.checkpoint import load_checkpoint
    from vdsr_core.training.session import Session

    scales = given.get("scales", [2.0, 3.0, 4.0])
    for folder in folders:
        if not folder.is_dir():
            msg = f"{folder} is not a folder. Give one that holds the images."
            raise NotADirectoryError(msg)
    images = read_planes(map(str, folders), sorted({*scales, *given.get("scale_range", ())}))
    if not images.planes:
        msg = f"{', '.join(map(str, folders))} must hold an image to train with, got none. Check them."
        raise ValueError(msg)
    grid = choose_preset(given) == "kim2016"
    config = TrainConfig(**resumed) if resumed else make_config(given)
    session = Session(
        load_checkpoint(output) if resumed else start_network(given),
        images.planes,
        {},
        scales,
        config,
        hold_out=HOLD_OUT,
        pieces=PIECES,
        epochs=EPOCHS if grid and not resumed and "steps" not in given else None,
        groups=read_groups(Path(given["groups"]), images.files) if "groups" in given else None,
        device=device,
        patch=given.get("patch", 41 if grid else 48),
        grid=grid,
        clip=LUMA_RANGE if given.get("clip_luma") else None,
        seed=config.seed,
        **{name: given[name] for name in PASSED if name in given},
    )
    return session, images


def make_card(
    session: Session, images: Images, folders: list[Path], name: str, given: dict[str, Any]
) -> dict[str, Any]:
    """What is known about the network before the training."""
    from vdsr_core.training.session import count_images

    start, trainer = session.trainer.result, session.trainer
    origin = f"{choose_start(given)} start"
    if "start" in given:
        origin = f"from {start.card.get('name', Path(given['start']).name)}"
    recipe = describe_recipe(trainer.config, trainer.data.patch, given.get("scales", (2, 3, 4)))
    names = ", ".join(folder.resolve().name for folder in folders)
    return {
        "name": name,
        "data": ", ".join([*count_images(images.planes, "image"), f"of {names}", f"{HOLD_OUT:.0%} held out"]),
        "recipe": "; ".join([origin, f"{choose_preset(given)}: {recipe}", *describe_data(given)]),
        "terms": start.card.get("terms", "") if "start" in given else "",
    }


def describe_data(given: dict[str, Any]) -> Iterator[str]:
    """What options do to the images, in words."""
    if "scale_range" in given:
        yield "and any scale from {:g} to {:g}".format(*given["scale_range"])
    if given.get("blur") or given.get("added_noise"):
        yield f"blur {given.get('blur', 0):g} pixels, noise {given.get('added_noise', 0):.3g} of the range"
    for name in ("gain", "offset"):
        if name in given:
            yield "{} from {:g} to {:g}".format(name, *given[name])
    if given.get("low_contrast"):
        yield f"low contrast in {given['low_contrast']:.0%} of the patches"
    if given.get("maps"):
        yield "half of the patches noisy, compressed, or reduced by another kernel"
    if given.get("clip_luma"):
        yield "every other patch clipped to 16..235"


def train_on(session: Session, card: dict[str, Any], file: RunFile, resume: bool) -> bool:
    """Train to the end or the first signal, and say what was gained; whether it came to its end."""
    from vdsr_core.training.session import Found, compare

    trainer, hold_out = session.trainer, session.hold_out
    network = trainer.result

    def describe(found: Found) -> dict[str, Any]:
        """The card as of now."""
        recipe = f"{card['recipe']}; {trainer.step} steps, {trainer.spent:.0f} s"
        return card | {"recipe": recipe, "hold_out": compare(hold_out.bicubic, found.before, found.after)}

    found = session.resume(file) if resume else None
    network.scales = session.scales
    run = session.run(network, describe, scales=session.scales, file=None if trainer.rank else file, found=found)
    if not follow(run, file.path, trainer.step, trainer.data.device):
        return False
    scores = network.card["hold_out"].values()
    gain = sum(row["after"] - row["bicubic"] for row in scores) / len(scores)
    say(f"{file.path}  {trainer.step} steps, {trainer.spent:.0f} s, {gain:+.2f} dB over bicubic")
    return True
