"""Fine-tune a network on a user's own images, and say whether it helped."""

from __future__ import annotations

import copy
import math
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.arguments import check_number, check_scales, check_whole
from vdsr_core.dataset.hold_out import HoldOut, Preview, split_with_pairs
from vdsr_core.dataset.patches import Patches
from vdsr_core.dataset.planes import Images, Pairs, find_pairs, find_planes, make_degrade, named_images
from vdsr_core.images.ranges import Range
from vdsr_core.network.checkpoint import fingerprint as network_fingerprint
from vdsr_core.network.checkpoint import load_model
from vdsr_core.network.devices import choose_device
from vdsr_core.network.model import VDSR, check_network
from vdsr_core.stopping import Stopped
from vdsr_core.training.progress import STUCK_GAIN, Progress
from vdsr_core.training.recipe import PRESETS, TrainConfig
from vdsr_core.training.resume import Found, Unfinished, fingerprint
from vdsr_core.training.trainer import Trainer

LEAST_SCALE = 1.1  # below, the interpolated image is all but the sharp one
FEW_PATCHES = 50  # fewer do not overlap: too little to rely on


@dataclass(frozen=True)
class FineTuneProgress(Progress):
    """What a step of fine-tuning did.

    Attributes
    ----------
    scores : dict or None
        For each scale, the PSNR in dB on the held-out part: ``"bicubic"``, ``"before"``, and ``"after"`` as of now;
        None where it was not measured.
    preview : Preview or None
        A held-out part, where it was measured.
    warning : str
        What is wrong, where that is new: too little data, stuck at bicubic, or worse and worse on the held-out part.
    """

    scores: dict[str, dict[str, float]] | None = None
    preview: Preview | None = None


def fine_tune(
    images: Images = (),
    *,
    model: VDSR | str | os.PathLike[str] | None = None,
    scales: float | Sequence[float] | None = None,
    pairs: Pairs = (),
    blur: float = 0.0,
    noise: float = 0.0,
    steps: int = 1000,
    seconds: float | None = None,
    learning_rate: float = 1e-4,
    theta: float | None = None,
    batch_size: int = 16,
    patch: int = 48,
    hold_out: float = 0.2,
    strips: bool = False,
    validate_every: int = 50,
    patience: int = 5,
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
    device: str | None = None,
    seed: int = 0,
) -> VDSR:
    """Train a network further on your own sharp images, and measure on a part held out whether that helps.

    A part of the images never enters the training: whole images, or a strip of a single one, with a gap. After every
    `validate_every` steps the network is measured there; the best weights, the running mean of those of the training
    or those of the start, are kept.

    Parameters
    ----------
    images : ndarray, ImageFile, sequence of them, or mapping of name to them
        Sharp images of any real dtypes and sizes, each (..., M, N): low ones are made from them by `degrade`. Values
        are mapped as `super_resolve` does; an `ImageFile` says itself what its axes are. Images that are constant or
        too small are left out and named in the card.
    model : VDSR, str or path, optional
        Where to start: a network, which stays as it is, or what `load_model` takes. The default network by default.
    scales : float or sequence of float, optional
        To train for with `images`, at least 1.1 each; those of the network by default.
    pairs : sequence of (ndarray, ndarray) or of (ImageFile, ImageFile), or mapping of name to them, optional
        Registered low and sharp images of one field of view, in the same intensity units, instead of or beside
        `images`. Both are mapped by the range of the low one.
    blur : float, optional
        Standard deviation, in pixels of `images`, of a Gaussian blur before the reduction.
    noise : float, optional
        Standard deviation of the noise that low images get, as a share of the range of intensities.
    steps : int, optional
        Most batches to train with.
    seconds : float, optional
        Train for so long instead.
    learning_rate : float, optional
        At the start; it falls as a cosine.
    theta : float, optional
        Clip each element of the gradient to [-theta / learning_rate, theta / learning_rate]; not clipped by default.
    batch_size, patch : int, optional
        Patches in a batch, and pixels of their sides; less where the smallest image is smaller.
    hold_out : float, optional
        The share that is held out, at least one image, or some rows or columns.
    strips : bool, optional
        Hold out a strip of each image, with a gap, also when there are several: for images of one field of view, such
        as channels.
    validate_every, patience : int, optional
        Steps between validations, and after how many without a better one to stop.
    channel_axis, rgb, in_range, device
        As in `super_resolve`, for all images.
    seed : int, optional
        Of the choice of held-out images and of patches.

    Returns
    -------
    VDSR
        Its card tells data and recipe, and under ``"hold_out"`` for each scale the PSNR in dB of bicubic
        interpolation, and of the network before and after; ``card["summary"]`` says in a sentence whether it helped.

    Warns
    -----
    UserWarning
        If it does not get better than bicubic interpolation, or gets worse and worse; if it did not help in the end:
        less than 0.05 dB on the held-out part, or bicubic interpolation is still better there.

    Raises
    ------
    TypeError, ValueError
        If an image is none, or an option has no such value; if there is nothing to train with, or to hold out.

    See Also
    --------
    fine_tune_steps : The same, one step at a time.

    Examples
    --------
    >>> from vdsr_core import VDSRConfig
    >>> image = np.random.default_rng(0).random((64, 64))
    >>> start = VDSR(VDSRConfig(depth=3, width=4))
    >>> with warnings.catch_warnings(action="ignore"):  # noise cannot be learnt
    ...     tuned = fine_tune(image, model=start, scales=[2], steps=2, batch_size=2)
    >>> sorted(tuned.card["hold_out"]["2"])
    ['after', 'before', 'bicubic']
    """
    network = copy.deepcopy(model) if isinstance(model, VDSR) else load_model(model)
    run = fine_tune_steps(
        network,
        images,
        scales=scales,
        pairs=pairs,
        blur=blur,
        noise=noise,
        steps=steps,
        seconds=seconds,
        learning_rate=learning_rate,
        theta=theta,
        batch_size=batch_size,
        patch=patch,
        hold_out=hold_out,
        strips=strips,
        validate_every=validate_every,
        patience=patience,
        channel_axis=channel_axis,
        rgb=rgb,
        in_range=in_range,
        device=device,
        seed=seed,
    )
    for progress in run:
        if progress.step and progress.warning:
            warnings.warn(progress.warning, stacklevel=2)
    if not network.card["helped"]:
        warnings.warn(network.card["summary"], stacklevel=2)
    return network


def fine_tune_steps(
    model: VDSR,
    images: Images = (),
    *,
    scales: float | Sequence[float] | None = None,
    pairs: Pairs = (),
    blur: float = 0.0,
    noise: float = 0.0,
    steps: int = 1000,
    seconds: float | None = None,
    learning_rate: float = 1e-4,
    theta: float | None = None,
    batch_size: int = 16,
    patch: int = 48,
    hold_out: float = 0.2,
    strips: bool = False,
    validate_every: int = 50,
    patience: int = 5,
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
    device: str | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    stop: threading.Event | None = None,
) -> Iterator[FineTuneProgress]:
    """Fine-tune step by step, as `fine_tune` does; `model` holds the best weights so far, and their card.

    Arguments are checked at the call, before the first step. Closing the iterator cancels the rest; what has been
    found by then stays in `model`. A run that is gone on with from its `checkpoint` gives what it would have given
    without the interruption.

    Parameters
    ----------
    model : VDSR
        Where to start and where the result goes.
    images, scales, pairs, blur, noise, steps, seconds, learning_rate, theta, batch_size, patch, hold_out, strips
        As in `fine_tune`.
    validate_every, patience, channel_axis, rgb, in_range, device, seed
        As in `fine_tune`.
    checkpoint : path, optional
        A file, ``*.safetensors``, that is written at the start, at each validation, every half minute, and when the
        iterator is closed: the best network so far, and what is needed to go on. In the end it holds the network only.
    resume : bool, optional
        Go on with the unfinished run in `checkpoint`; all other arguments must be those that it was begun with.
    stop : Event, optional
        Set by another thread, it ends the iterator within a step, as if it were closed.

    Yields
    ------
    FineTuneProgress
        First for step 0, then after each step. Its `gain` is over bicubic on the held-out part, where it was measured.

    Raises
    ------
    TypeError, ValueError
        As in `fine_tune`; if `checkpoint` holds another run, or a finished one.
    OSError
        If `checkpoint` cannot be written or read; at the first step, if another run is writing it: a run that was
        killed does not count.
    """
    check_network(model)
    config = replace(
        PRESETS["finetune"],
        steps=steps,
        seconds=seconds,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
    )
    config = replace(config, warmup=min(config.warmup, steps // 20))
    if theta is not None:
        config = replace(config, clip="value", theta=theta)
    for name, value in (("validate_every", validate_every), ("patience", patience), ("patch", patch)):
        check_whole(name, value, 1)
    hint = "Try 0.2."
    check_number("hold_out", hold_out, "a number between 0 and 1", hint, lambda share: 0 < share < 1)
    named = named_images(images)
    factors = check_scales((model.scales or (2, 3, 4)) if scales is None else scales, least=LEAST_SCALE)
    if not factors:
        msg = "`scales` must hold at least one scale, got none. Leave it out for those of the network."
        raise ValueError(msg)
    factors = factors if named else ()
    options: dict[str, Any] = {"channel_axis": channel_axis, "rgb": rgb, "in_range": in_range}
    sources, skipped = find_planes(named, factors, **options)
    couples, ratios, left_out = find_pairs(pairs, **options)
    if not (sources or couples):
        reasons = "; ".join(f"{name}: {why}" for name, why in (skipped | left_out).items()) or "none at all"
        msg = f"`images` must hold one to train with, got {reasons}. Add larger images with detail."
        raise ValueError(msg)
    parts = split_with_pairs(sources, couples, hold_out, model.halo, seed, strips=strips)
    (train, train_pairs), (held, held_pairs) = (
        ([high for low, high in part if low is None], [both for both in part if both[0] is not None]) for part in parts
    )
    where = choose_device(device)
    lower = [make_degrade(blur, noise, (seed, number)) for number in (3, 4)]
    measure = HoldOut(held, factors, held_pairs, degrade=lower[0], device=str(where))
    data = Patches(train, factors, pairs=train_pairs, degrade=lower[1], patch=patch, device=where)
    words = describe(sources, "image") + describe(couples, "pair")
    words.append(f"{hold_out:.0%} held out")
    words += [f"{name} left out: {why}" for name, why in (skipped | left_out).items()]
    low_side = f"; blur {blur:g} pixels, noise {noise:.3g} of the range" if blur or noise else ""
    tuned = tuple(sorted({round(factor, 3) for factor in (*factors, *ratios.values()) if factor >= LEAST_SCALE}))
    card = {
        "name": "fine-tuned",
        "data": ", ".join(words),
        "recipe": f"from {model.card.get('name', 'a network')}; {describe_recipe(config, data.patch, tuned)}{low_side}",
        "terms": model.card.get("terms", ""),
    }
    learner = copy.deepcopy(model).float().requires_grad_(True)
    trainer = Trainer(learner, data, config, validate=measure.validate, validate_every=validate_every, stop=stop)
    begun: dict[str, Any] = {"patch": patch, "validate_every": validate_every, "patience": patience}
    begun["model"] = network_fingerprint(model)[:8]
    file = Unfinished(checkpoint, trainer, fingerprint(data, measure), begun) if checkpoint is not None else None
    if resume and file is None:
        msg = "`checkpoint` must name the file to resume, got None."
        raise ValueError(msg)
    found = file.load() if file is not None and resume else None
    run = _run(model, trainer, measure, patience, tuned or model.scales, card, file, found)
    return run if file is None else _holding(file, run)


def _holding(file: Unfinished, run: Iterator[FineTuneProgress]) -> Iterator[FineTuneProgress]:
    """A run while its checkpoint is locked."""
    with file.held():
        yield from run


def _run(
    model: VDSR,
    trainer: Trainer,
    hold_out: HoldOut,
    patience: int,
    scales: tuple[float, ...],
    card: dict[str, Any],
    file: Unfinished | None,
    found: Found | None,
) -> Iterator[FineTuneProgress]:
    """Train a copy of `model`, which gets the weights that are best on the held-out part."""
    before = hold_out.restore(model)
    if found is None:
        scores = hold_out.means(before)
        found = Found(before=scores, after=scores)
        model.card = card | verdict(hold_out.bicubic, scores, scores, 0)
        if file is not None:
            file.save(model, found)
        yield describe_start(trainer, hold_out, before)
    elif found.best is not None:
        model.load_state_dict(found.best.state_dict())
        model.scales, model.card = found.best.scales, found.best.card
    try:
        for progress in trainer.run():
            if progress.gain is None:
                yield FineTuneProgress(**vars(progress))
            else:
                now = hold_out.means(hold_out.last)
                found.waited += 1
                if progress.gain > hold_out.gain(found.after):
                    found.after, found.waited = now, 0
                    model.load_state_dict(trainer.result.state_dict())
                    model.scales = scales
                model.card = card | verdict(hold_out.bicubic, found.before, found.after, trainer.step)
                warning = progress.warning or warn_of_overfitting(progress, hold_out, found)
                yield FineTuneProgress(
                    **vars(progress) | {"warning": warning},
                    scores=compare(hold_out.bicubic, found.before, now),
                    preview=hold_out.preview(before, hold_out.last),
                )
            if found.waited >= patience:
                break
            if file is not None and (progress.gain is not None or file.is_due()):
                file.save(model, found)
    except (GeneratorExit, Stopped) as reason:
        if file is not None:
            file.save(model, found)
        if isinstance(reason, GeneratorExit):
            raise
        return
    if file is not None:
        file.save(model, found, finished=True)


def describe_start(trainer: Trainer, hold_out: HoldOut, before: list[NDArray[np.float64]]) -> FineTuneProgress:
    """The record of step 0."""
    scores = hold_out.means(before)
    patches = trainer.data.hr.numel() / trainer.data.patch**2
    return FineTuneProgress(
        step=0,
        share=0.0,
        learning_rate=trainer.config.learning_rate,
        loss=math.nan,
        clipped=0.0,
        patches_per_second=math.nan,
        seconds_left=math.nan,
        psnr=float(np.mean(list(scores.values()))),
        gain=hold_out.gain(scores),
        scores=compare(hold_out.bicubic, scores, scores),
        preview=hold_out.preview(before, before),
        warning=f"There is little to train with, {patches:.0f} patches: what the held-out part says of other images is "
        "uncertain. Add images."
        if patches < FEW_PATCHES
        else "",
    )


def warn_of_overfitting(progress: Progress, hold_out: HoldOut, found: Found) -> str:
    """That the held-out part gets worse and worse, once; else nothing."""
    gain, best = progress.gain or 0, hold_out.gain(found.after)
    if "worse" in found.warned or found.waited < 3 or gain >= best - STUCK_GAIN:
        return ""
    found.warned.append("worse")
    return (
        f"overfitting: {gain:+.2f} dB over bicubic on the held-out part, {best:+.2f} dB earlier. The best network "
        "is kept. Add images, or lower `learning_rate`."
    )


def compare(
    bicubic: Mapping[str, float], before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """The three figures of each scale, as a card has them."""
    return {
        scale: {"bicubic": round(bicubic[scale], 3), "before": round(before[scale], 3), "after": round(after[scale], 3)}
        for scale in bicubic
    }


def verdict(
    bicubic: Mapping[str, float], before: Mapping[str, float], after: Mapping[str, float], steps: int
) -> dict[str, Any]:
    """What a card says of the result: PSNR for each scale, and a sentence that agrees with the figures as shown."""
    scores = compare(bicubic, before, after)
    names = ("bicubic", "before", "after")
    plain, old, new = (float(np.mean([found[name] for found in scores.values()])) for name in names)
    gain, lead = round(new - old, 2), round(new - plain, 2)
    helped = gain >= STUCK_GAIN and lead >= 0
    if helped:
        words = f"Fine-tuning helped, by {gain:.2f} dB"
    elif gain >= STUCK_GAIN:
        words = f"Fine-tuning gained {gain:.2f} dB, but not enough"
    elif gain > 0:
        words = f"Fine-tuning hardly helped, by {gain:.2f} dB (less than {STUCK_GAIN:.2f} dB does not count)"
    else:
        words = "Fine-tuning did not help"
    words += f": {new:.2f} dB on the held-out part after {steps} steps, {old:.2f} before, {plain:.2f} by bicubic "
    words += "interpolation."
    if new <= old:
        words += " The weights are those of the start."
    if lead < 0:
        words += f" Plain bicubic interpolation is better here, by {-lead:.2f} dB: train longer, or with other images, "
        words += "or start from another network."
    return {"summary": words, "helped": helped, "hold_out": scores}


def describe(sources: Mapping[str, Sequence[Any]], what: str) -> list[str]:
    """How many images or pairs there are, in words; nothing if there are none."""
    planes = sum(len(source) for source in sources.values())
    plural = "s" if len(sources) > 1 else ""
    return [f"{len(sources)} {what}{plural} ({planes} plane{'s' if planes > 1 else ''})"] if sources else []


def describe_recipe(config: TrainConfig, patch: int, scales: Sequence[float]) -> str:
    """The settings of a training in words."""
    length = f"{config.steps} steps" if config.seconds is None else f"{config.seconds:g} s"
    clip = "" if config.clip == "none" else f"; gradients clipped by {config.clip}, theta {config.theta:g}"
    learnt = ", ".join(f"{scale:.3g}" for scale in scales) or "as before"
    return (
        f"at most {length} of {config.batch_size} patches of {patch} x {patch}, scales {learnt}; "
        f"{config.loss}; {config.optimizer}, rate {config.learning_rate:g}, {config.schedule} schedule{clip}; "
        f"weight average {config.average:g}; seed {config.seed}"
    )
