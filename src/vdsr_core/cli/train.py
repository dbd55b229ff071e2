"""The command `vdsr train`."""

from __future__ import annotations

import itertools
import math
import os
import re
import signal
import time
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vdsr_core.cli.log import TrainingLog
from vdsr_core.cli.terminal import (
    INTERRUPTED,
    Device,
    complain,
    expand,
    parse_scales,
    plain,
    plain_errors,
    progress_bar,
    say,
    training_table,
)
from vdsr_core.files import locked

if TYPE_CHECKING:  # PyTorch takes a second to load: the help does without
    from vdsr_core.dataset.hold_out import HoldOut
    from vdsr_core.training.trainer import Trainer


PIECES = 32  # held-out pieces that are measured, at most
LUMA = 16 / 255, 235 / 255  # black and white


def train(
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
            help="Recipe: that of the paper (80 epochs), a modern one, or a short one for a trained network.",
            show_default="finetune with --from, else default",
        ),
    ] = None,
    scales: Annotated[
        str | None, typer.Option(metavar="S...", help="Upscaling factors, such as 2 2.5 3.", show_default="2 3 4")
    ] = None,
    scale_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH", help="And any factors between these, four drawn for each image.", show_default=False
        ),
    ] = None,
    blur: Annotated[
        float | None,
        typer.Option(help="Blur of low images: standard deviation in pixels of the sharp ones.", show_default="none"),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(help="Noise of low images, as a share of the range of intensities.", show_default="none"),
    ] = None,
    gain: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH", help="Multiply each patch by a random number between these.", show_default="none"
        ),
    ] = None,
    offset: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="And add one between these, as a share of the range of intensities.",
            show_default="none",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Batches to train with.", show_default="as the preset says")] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Train for so long instead: 2h, 90m, 1h30m. Measuring and saving come on top.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Patches in a batch; 12 to 16 suit a CPU.", show_default="as the preset says")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the start.", show_default="as the preset says")
    ] = None,
    theta: Annotated[
        float | None,
        typer.Option(
            help="Clip gradients to theta / learning rate, as the paper does.",
            show_default="1e-4 with kim2016, else none",
        ),
    ] = None,
    loss: Annotated[
        Literal["l2", "l1"] | None,
        typer.Option(
            help="Error to reduce: squared as in the paper, or absolute.",
            show_default="as the preset says",
        ),
    ] = None,
    patch: Annotated[
        int | None,
        typer.Option(min=1, help="Side of a patch in pixels.", show_default="48, with kim2016 41"),
    ] = None,
    clip_luma: Annotated[
        bool | None,
        typer.Option(
            "--clip-luma/--no-clip-luma",
            help="Clip the interpolated image of every other patch to 16..235: for photographs.",
            show_default="no",
        ),
    ] = None,
    average: Annotated[
        float | None,
        typer.Option(
            help="Decay of the running mean of the weights: 0.9999 looks back over a tenth of any long training.",
            show_default="as the preset says",
        ),
    ] = None,
    initial: Annotated[
        Literal["he", "identity"] | None,
        typer.Option(
            help="First weights of a new network: random as the paper's, or layers that pass on what they are given.",
            show_default="he with kim2016, else identity",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is random.", show_default="0")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished training in OUT.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    save_every: Annotated[str, typer.Option(metavar="TIME", help="Time between checkpoints.")] = "3m",
    device: Device = None,
) -> None:
    """Train a network on folders of images, a tenth of which is held out to measure the gain over bicubic.

    Prints a line per measurement. OUT is saved every few minutes, on Ctrl-C and at the end; --resume goes on from it
    as if nothing had happened. A log is written beside it (.train.csv), curves (.train.png) if matplotlib is installed.

    Several processes, each with a GPU of its own, train as one: torchrun --nproc-per-node 2 -m vdsr_core train ...

    Example: vdsr train T91 BSDS200 -o ours.safetensors --time-budget 2h
    """
    given = {
        "from": start,
        "preset": preset,
        "scales": None if scales is None else parse_scales(scales),
        "scale_range": scale_range and list(scale_range),
        "blur": blur,
        "noise": noise,
        "gain": gain and list(gain),
        "offset": offset and list(offset),
        "steps": steps,
        "seconds": None if time_budget is None else parse_time(time_budget, "--time-budget"),
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "theta": theta,
        "loss": loss,
        "patch": patch,
        "clip_luma": clip_luma,
        "average": average,
        "initial": initial,
        "seed": seed,
    }
    pause = parse_time(save_every, "--save-every")
    if output.suffix != ".safetensors":
        msg = f"--output must end with .safetensors, got {output}."
        raise typer.BadParameter(msg)
    if start and initial:
        msg = "--initial goes without --from: it is for a new network."
        raise typer.BadParameter(msg)
    if steps is not None and time_budget is not None:
        msg = "--time-budget goes without --steps: one of them says how long to train."
        raise typer.BadParameter(msg)
    with plain_errors():
        from vdsr_core.files import check_target
        from vdsr_core.network.checkpoint import load_trainer
        from vdsr_core.training.processes import find_rank, joined_processes

        with joined_processes(device) as place, ExitStack() as stack:
            first = find_rank()[0] == 0  # of several processes, the one that speaks and writes
            stack.enter_context(nullcontext() if first else silence())
            if resume and not output.exists():
                msg = f"{output} does not exist. Leave out --resume to begin."
                raise FileNotFoundError(msg)
            if first:  # perhaps before the others are here
                check_target(output.resolve(), overwrite or resume)
            stack.enter_context(hold(output) if first else nullcontext())
            state = load_trainer(output) if resume else None
            if resume and (state is None or not isinstance(state[1].get("command"), dict)):
                msg = f"{output} must hold an unfinished training, got a finished network. "
                msg += f"Use --from {output} to train on."
                raise ValueError(msg)
            if state:
                given = continue_as(state[1]["command"], given)
            trainer, measure, record = prepare_training(folders, output, given, state, place)
            status = follow(trainer) if trainer.rank else run_training(trainer, measure, output, record, pause)
        raise typer.Exit(status)


def hold(output: Path) -> AbstractContextManager[None]:
    """A lock: two trainings must not write one file."""
    msg = f"--output must be written by one training, got {output}, which another one is writing. "
    return locked(output.with_name(f".{output.name}.lock"), msg + "Wait for that one, or choose another name.")


@contextmanager
def silence() -> Iterator[None]:
    """Print nothing: the first of several processes speaks for all."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def follow(trainer: Trainer) -> int:
    """Train as one of several processes whose first logs and saves; returns the exit code."""
    from vdsr_core.training.processes import anyone

    with noted_signals() as signals:
        for progress in trainer.run():
            if anyone(bool(signals), trainer.data.device) and progress.share < 1:
                return INTERRUPTED
    return 0


def parse_time(text: str, option: str) -> float:
    """``1h30m``, ``90m``, ``45s`` or ``45`` as seconds."""
    number = r"(\d+\.?\d*|\.\d+)"
    match = re.fullmatch(f"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", text)
    if not text or not match:
        msg = f"{option} must be a time, got {text!r}. Try 2h, 90m or 1h30m."
        raise typer.BadParameter(msg)
    return sum(float(part) * unit for part, unit in zip(match.groups("0"), (3600, 60, 1), strict=True))


def continue_as(begun: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The options that a training was begun with; raises if others are given now."""
    for name, value in given.items():
        if value is not None and value != begun.get(name):
            msg = f"`{name}` must be as the training was begun, {begun.get(name)}, got {value}. Leave it out to resume."
            raise ValueError(msg)
    return dict.fromkeys(given) | begun


def prepare_training(
    folders: list[Path], output: Path, given: dict[str, Any], state: Any, device: str | None
) -> tuple[Trainer, HoldOut, dict[str, Any]]:
    """The trainer, what measures its network, and what a checkpoint has to say of the command."""
    from vdsr_core.dataset.hold_out import HoldOut, split
    from vdsr_core.dataset.patches import Patches
    from vdsr_core.dataset.planes import make_degrade
    from vdsr_core.network.checkpoint import load_checkpoint, load_model
    from vdsr_core.network.devices import choose_device
    from vdsr_core.network.model import make_model
    from vdsr_core.training.fine_tune import describe, describe_recipe
    from vdsr_core.training.recipe import PRESETS
    from vdsr_core.training.resume import fingerprint
    from vdsr_core.training.trainer import Trainer

    seed = given["seed"] or 0
    initial = given["initial"] or ("he" if given["preset"] == "kim2016" else "identity")
    if state:
        model = load_checkpoint(output)
    elif given["from"]:
        model = load_model(given["from"])
    else:
        model = make_model(seed, start=initial)
    scales = given["scales"] or [2.0, 3.0, 4.0]
    preset = given["preset"] or ("finetune" if given["from"] else "default")
    settings = "batch_size", "learning_rate", "loss", "average"
    changes = {name: given[name] for name in settings if given[name] is not None}
    if given["theta"] is not None:
        changes |= {"theta": given["theta"], "clip": "value"}
    config = replace(PRESETS[preset], seconds=given["seconds"], seed=seed, **changes)
    if given["steps"] is not None:
        config = replace(config, steps=given["steps"], warmup=min(config.warmup, given["steps"] // 20))
    each = sorted({*scales, *(given["scale_range"] or ())})
    images: dict[str, list[tuple[None, Any]]] = {}
    for folder in folders:
        images |= read_folder(folder, each, images)
    record: dict[str, Any] = {"command": given, "images": list(images)}
    if state and state[1].get("images") != record["images"]:
        odd = sorted(set(state[1].get("images", [])) ^ set(images)) or "another order"
        msg = f"{', '.join(map(str, folders))} must hold the images of the training to resume, got {odd} missing or "
        msg += "too many."
        raise ValueError(msg)
    train_with, held = split(images, 0.1, model.halo, seed)
    where = choose_device(device)
    grid = preset == "kim2016"
    blur, noise, gain, offset = (given[name] for name in ("blur", "noise", "gain", "offset"))
    lower = [make_degrade(blur or 0, noise or 0, (seed, number)) for number in (3, 4)]
    data = Patches(
        [plane for _, plane in train_with],
        scales,
        scale_range=given["scale_range"],
        degrade=lower[1],
        gain=gain or (1, 1),
        offset=offset or (0, 0),
        patch=given["patch"] or (41 if grid else 48),
        grid=grid,
        clip=LUMA if given["clip_luma"] else None,
        seed=seed,
        device=where,
    )
    if grid and given["steps"] is None:
        config = replace(config, steps=math.ceil(80 * len(data) / config.batch_size))
    measure = HoldOut([plane for _, plane in held], each, degrade=lower[0], pieces=PIECES, device=str(where))
    record["pixels"] = fingerprint(data, measure)
    if state and state[1].get("pixels") != record["pixels"]:
        msg = f"{', '.join(map(str, folders))} must hold the images of the training to resume, got other pixels under "
        msg += "their names."
        raise ValueError(msg)
    every = None if config.seconds else min(1000, max(1, config.steps // 20))
    trainer = Trainer(model, data, config, validate=measure.validate, validate_every=every)
    if state:
        trainer.restore(state)
    else:
        origin = f"from {model.card.get('name', Path(given['from']).name)}; " if given["from"] else f"{initial} start; "
        names = ", ".join(folder.resolve().name for folder in folders)
        trainer.result.scales = tuple(each)
        trainer.result.card = {
            "name": output.stem,
            "data": ", ".join([*describe(images, "image"), f"of {names}", "10% held out"]),
            "recipe": "; ".join(
                [f"{origin}{preset}: {describe_recipe(config, data.patch, scales)}", *describe_data(given)]
            ),
            "terms": model.card.get("terms", "") if given["from"] else "",
        }
    return trainer, measure, record


def describe_data(given: dict[str, Any]) -> Iterator[str]:
    """What options do to the images, in words."""
    if given["scale_range"]:
        low, high = given["scale_range"]
        yield f"and any scale from {low:g} to {high:g}"
    if given["blur"] or given["noise"]:
        yield f"blur {given['blur'] or 0:g} pixels, noise {given['noise'] or 0:.3g} of the range"
    for name in ("gain", "offset"):
        if given[name]:
            yield "{} from {:g} to {:g}".format(name, *given[name])
    if given["clip_luma"]:
        yield "every other patch clipped to 16..235"


def read_folder(folder: Path, scales: list[float], taken: Container[str] = ()) -> dict[str, list[tuple[None, Any]]]:
    """The planes of all images of a folder, by names that are not `taken` yet; unusable ones are named and counted."""
    from vdsr_core.dataset.planes import find_planes
    from vdsr_core.formats.io import read_image

    if not folder.is_dir():
        msg = f"{folder} is not a folder. Give one that holds the images."
        raise NotADirectoryError(msg)
    images: dict[str, list[tuple[None, Any]]] = {}
    bad = 0
    paths = [path for path in expand(str(folder)) if not path.name.endswith(".train.png")]  # curves
    with progress_bar("{task.completed:.0f} of {task.total:.0f} images") as progress:
        for path in progress.track(paths, description=plain(folder.name)):
            try:
                image = read_image(path)
                names = itertools.chain([path.name, str(path)], (f"{path} ({n})" for n in itertools.count(3)))
                named: Any = {next(name for name in names if name not in taken): image.data}
                found, skipped = find_planes(named, scales, channel_axis=image.channel_axis, rgb=image.rgb)
            except (ValueError, TypeError, OSError, RuntimeError) as error:  # of damaged chunks, too
                complain(error, path)
                bad += 1
                continue
            images |= found
            for why in skipped.values():
                say(f"vdsr: {path}: left out, {why}", err=True)
                bad += 1
    if bad:
        say(f"vdsr: {bad} of {len(paths)} images left out", err=True)
    if not images:
        msg = f"{folder} must hold an image to train with, got {len(paths)} that cannot be used. Check them."
        raise ValueError(msg)
    return images


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Note Ctrl-C and SIGTERM instead of stopping at once; a second one stops as usual."""
    noted: list[int] = []

    def note(number: int, _: Any) -> None:
        noted.append(number)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_training(trainer: Trainer, measure: HoldOut, output: Path, record: dict[str, Any], pause: float) -> int:
    """Train to the end or the first signal, with checkpoints and a log; returns the exit code."""
    from vdsr_core.network.checkpoint import save_checkpoint
    from vdsr_core.training.processes import anyone

    def save(*, finished: bool = False) -> None:
        tensors, state = trainer.state()
        save_checkpoint(output, trainer.result, trainer=None if finished else (tensors, state | record))

    told: set[str] = set()

    def attempt(work: Callable[[], None]) -> None:
        """Do what a full disk refuses, if it does: it is said once, and tried again later."""
        try:
            work()
        except OSError as error:
            if str(error) not in told:
                complain(error, output)
            told.add(str(error))

    log = TrainingLog(output, trainer.step)
    saved = time.monotonic()
    with noted_signals() as signals, log, training_table() as show:
        if not trainer.step:
            save()  # a full disk or a wrong name shows now
        for progress in trainer.run():
            attempt(partial(log.add, progress))
            show(progress, log.loss)
            if progress.warning:
                say(f"vdsr: warning: {progress.warning}", err=True)
            if anyone(bool(signals), trainer.data.device) and progress.share < 1:
                break
            if time.monotonic() - saved >= pause:
                attempt(save)
                saved = time.monotonic()
    if trainer.share < 1:
        save()
        say(f"vdsr: interrupted after step {trainer.step}; --resume goes on from {output}", err=True)
        return INTERRUPTED
    scores = measure.score(trainer.result)
    trainer.result.card["recipe"] += f"; {trainer.step} steps, {trainer.spent:.0f} s"
    trainer.result.card["hold_out"] = {
        scale: {"bicubic": round(measure.bicubic[scale], 3), "after": round(scores[scale], 3)} for scale in scores
    }
    save(finished=True)
    attempt(log.draw)
    say(f"{output}  {trainer.step} steps, {trainer.spent:.0f} s, {measure.gain(scores):+.2f} dB over bicubic")
    return 0
