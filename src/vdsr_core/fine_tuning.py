"""Fine-tune a network on a user's own images, and say whether it helped."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vdsr_core.arguments import check_number, check_scales, check_whole
from vdsr_core.checkpoint import load_checkpoint, load_model, load_trainer, save_checkpoint
from vdsr_core.degradation import crop_to_scale, degrade
from vdsr_core.engine import Engine, choose_device
from vdsr_core.evaluation import psnr, restore
from vdsr_core.inference import find_range, network_planes
from vdsr_core.io import ImageFile
from vdsr_core.model import VDSR, check_network
from vdsr_core.patches import Degrade, Patches, check_pairs, interpolate_back, interpolate_low
from vdsr_core.ranges import Range
from vdsr_core.resampling import scale_pair
from vdsr_core.training import PRESETS, STUCK_GAIN, Progress, TrainConfig, Trainer

LEAST_SCALE = 1.1  # below, the interpolated image is all but the sharp one
PIECE, PIECES = 192, 8  # the side of a held-out piece in pixels, and how many `fine_tune` measures, at most
REGISTERED = 512  # the side of the part of a pair that is looked at for a shift
FEW_PATCHES = 50  # fewer do not overlap: too little to rely on
SAVE_SECONDS = 30.0  # between checkpoints, at least

Plane = NDArray[np.float32]
Pair = tuple[Plane, Plane]
Image = ArrayLike | ImageFile
Images = Image | Sequence[Image] | Mapping[str, Image]


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
        What is wrong, where something new is: too little data, stuck at bicubic, or worse and worse on the held-out
        part.
    """

    scores: dict[str, dict[str, float]] | None = None
    preview: Preview | None = None
    warning: str = ""


@dataclass(frozen=True)
class Preview:
    """A held-out part of an image as it is restored, (M, N) each, 0 to 1 for the range.

    Attributes
    ----------
    scale : str
        By which it was reduced, or ``"pairs"``.
    ilr, before, sr, hr : (M, N) ndarray
        Interpolated, by the network before, by that of now, and sharp.
    """

    scale: str
    ilr: NDArray[np.float64]
    before: NDArray[np.float64]
    sr: NDArray[np.float64]
    hr: NDArray[np.float64]


def fine_tune(
    images: Images = (),
    *,
    model: VDSR | str | os.PathLike[str] | None = None,
    scales: float | Sequence[float] | None = None,
    pairs: Sequence[tuple[Image, Image]] = (),
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
    pairs : sequence of (ndarray, ndarray) or of (ImageFile, ImageFile), optional
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
    pairs: Sequence[tuple[Image, Image]] = (),
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

    Yields
    ------
    FineTuneProgress
        First for step 0, then after each step. Its `gain` is over bicubic on the held-out part, where it was measured.

    Raises
    ------
    TypeError, ValueError
        As in `fine_tune`; if `checkpoint` holds another run, or a finished one.
    OSError
        If `checkpoint` cannot be written or read.
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
    if not 0 < check_number("hold_out", hold_out, "a number between 0 and 1", hint) < 1:
        msg = f"`hold_out` must be a number between 0 and 1, got {hold_out}. {hint}"
        raise ValueError(msg)
    named = _named(images)
    factors = check_scales((model.scales or (2, 3, 4)) if scales is None else scales, least=LEAST_SCALE)
    if not factors:
        msg = "`scales` must hold at least one scale, got none. Leave it out for those of the network."
        raise ValueError(msg)
    factors = factors if named else ()
    options: dict[str, Any] = {"channel_axis": channel_axis, "rgb": rgb, "in_range": in_range}
    sources, skipped = find_planes(named, factors, **options)
    couples, left_out = find_pairs(pairs, **options)
    if not (sources or couples):
        reasons = "; ".join(f"{name}: {why}" for name, why in (skipped | left_out).items()) or "none at all"
        msg = f"`images` must hold one to train with, got {reasons}. Add larger images with detail."
        raise ValueError(msg)
    train, held = split(sources, hold_out, model.halo, seed, strips=strips)
    train_pairs, held_pairs = split(couples, hold_out, model.halo, seed, strips=strips)
    where = choose_device(device)
    lower = [make_degrade(blur, noise, (seed, number)) for number in (3, 4)]
    measure = HoldOut([high for _, high in held], factors, held_pairs, degrade=lower[0], device=str(where))
    data = Patches([high for _, high in train], factors, pairs=train_pairs, degrade=lower[1], patch=patch, device=where)
    words = describe(sources, "image") + describe(couples, "pair")
    words.append(f"{hold_out:.0%} held out")
    words += [f"{name} left out: {why}" for name, why in (skipped | left_out).items()]
    low_side = f"; blur {blur:g} pixels, noise {noise:.3g} of the range" if blur or noise else ""
    card = {
        "name": "fine-tuned",
        "data": ", ".join(words),
        "recipe": f"from {model.card.get('name', 'a network')}; {describe_recipe(config, data)}{low_side}",
        "terms": model.card.get("terms", ""),
    }
    tuned = tuple(sorted({round(factor, 3) for factor in data.factors}))
    learner = copy.deepcopy(model).float().requires_grad_(True)
    trainer = Trainer(learner, data, config, validate=measure.validate, validate_every=validate_every)
    file = Unfinished(checkpoint, trainer, fingerprint(data, measure)) if checkpoint is not None else None
    if resume and file is None:
        msg = "`checkpoint` must name the file to resume, got None."
        raise ValueError(msg)
    found = file.load() if file is not None and resume else None
    return _run(model, trainer, measure, patience, tuned, card, file, found)


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
    trainer.warned = True  # the records say it instead
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
                yield FineTuneProgress(
                    **vars(progress),
                    scores=compare(hold_out.bicubic, found.before, now),
                    preview=hold_out.preview(before, hold_out.last),
                    warning=find_warning(trainer, progress, hold_out, found),
                )
            if found.waited >= patience:
                break
            if file is not None and (progress.gain is not None or file.is_due()):
                file.save(model, found)
    except GeneratorExit:
        if file is not None:
            file.save(model, found)
        raise
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


def find_warning(trainer: Trainer, progress: Progress, hold_out: HoldOut, found: Found) -> str:
    """What is wrong after a validation, once each."""
    if "stuck" not in found.warned and (words := trainer.find_trouble(progress)):
        found.warned.append("stuck")
        return words
    gain, best = progress.gain or 0, hold_out.gain(found.after)
    if "worse" not in found.warned and found.waited >= 3 and gain < best - STUCK_GAIN:
        found.warned.append("worse")
        return (
            f"overfitting: {gain:+.2f} dB over bicubic on the held-out part, {best:+.2f} dB earlier. The best network "
            "is kept. Add images, or lower `learning_rate`."
        )
    return ""


def compare(
    bicubic: Mapping[str, float], before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """The three figures of each scale, as a card has them."""
    return {
        scale: {"bicubic": round(bicubic[scale], 3), "before": round(before[scale], 3), "after": round(after[scale], 3)}
        for scale in bicubic
    }


# ------------------------------------------------------------------------------------------- checkpoint


@dataclass
class Found:
    """What a run has found so far, beside the state of its trainer.

    Attributes
    ----------
    before, after : dict
        PSNR of the start and of the best network, for each scale.
    waited : int
        Validations since the best one.
    best : VDSR or None
        The best network, from a checkpoint.
    warned : list of str
        What has been warned of.
    """

    before: dict[str, float]
    after: dict[str, float]
    waited: int = 0
    best: VDSR | None = None
    warned: list[str] = field(default_factory=list)


KEPT = ("before", "after", "waited", "warned")


class Unfinished:
    """The file of a run that can be gone on with.

    Parameters
    ----------
    path : path
        The file.
    trainer : Trainer
        Whose state it holds.
    mark : str
        From `fingerprint`.
    """

    def __init__(self, path: str | os.PathLike[str], trainer: Trainer, mark: str) -> None:
        self.path, self.trainer, self.mark = path, trainer, mark
        self.saved = -math.inf

    def is_due(self) -> bool:
        """Whether the last checkpoint is old."""
        return time.monotonic() - self.saved >= SAVE_SECONDS

    def save(self, model: VDSR, found: Found, *, finished: bool = False) -> None:
        """Write the best network and, unless finished, what is needed to go on."""
        tensors, record = self.trainer.state()
        record |= {"images": self.mark} | {name: getattr(found, name) for name in KEPT}
        save_checkpoint(self.path, model, trainer=None if finished else (tensors, record))
        self.saved = time.monotonic()

    def load(self) -> Found:
        """Bring the trainer to where the run was left."""
        state = load_trainer(self.path)
        if state is None or "waited" not in state[1]:
            msg = f"`checkpoint` must hold an unfinished run, got {self.path}, which holds none. Begin anew."
            raise ValueError(msg)
        record = state[1]
        if record["images"] != self.mark:
            msg = f"`images` must be those that the run in {self.path} was begun with, got others. Begin anew."
            raise ValueError(msg)
        self.trainer.restore(state)
        return Found(best=load_checkpoint(self.path), **{name: record[name] for name in KEPT})


def fingerprint(data: Patches, hold_out: HoldOut) -> str:
    """A number that tells the images of a run from others."""
    found = hashlib.blake2b(digest_size=16)
    for array in (data.hr.cpu().numpy(), data.ilr.cpu().numpy(), *(p.hr for p in hold_out.pieces)):
        found.update(array.data)
    return found.hexdigest()


# ---------------------------------------------------------------------------------------------- verdict


def verdict(
    bicubic: Mapping[str, float], before: Mapping[str, float], after: Mapping[str, float], steps: int
) -> dict[str, Any]:
    """What a card says of the result: PSNR for each scale, and a sentence."""
    plain, old, new = (float(np.mean(list(scores.values()))) for scores in (bicubic, before, after))
    helped = new - old >= STUCK_GAIN and new >= plain
    words = f"Fine-tuning {'helped' if helped else 'did not help'}: {new:.2f} dB on the held-out part after {steps} "
    words += f"steps, {old:.2f} before, {plain:.2f} by bicubic interpolation."
    if new <= old:
        words += " The weights are those of the start."
    if new < plain:
        words += f" Plain bicubic interpolation is better here, by {plain - new:.2f} dB: train longer, or with other "
        words += "images, or start from another network."
    return {"summary": words, "helped": helped, "hold_out": compare(bicubic, before, after)}


def describe(sources: Mapping[str, Sequence[Any]], what: str) -> list[str]:
    """How many images or pairs there are, in words; nothing if there are none."""
    planes = sum(len(source) for source in sources.values())
    plural = "s" if len(sources) > 1 else ""
    return [f"{len(sources)} {what}{plural} ({planes} plane{'s' if planes > 1 else ''})"] if sources else []


def describe_recipe(config: TrainConfig, data: Patches) -> str:
    """The settings of a training in words."""
    length = f"{config.steps} steps" if config.seconds is None else f"{config.seconds:g} s"
    scales = ", ".join(dict.fromkeys(f"{factor:.3g}" for factor in data.factors))
    return (
        f"at most {length} of {config.batch_size} patches of {data.patch} x {data.patch}, scales {scales}; "
        f"{config.loss}; {config.optimizer}, rate {config.learning_rate:g}, {config.schedule} schedule; "
        f"weight average {config.average:g}; seed {config.seed}"
    )


# ------------------------------------------------------------------------------------------------- data


def make_degrade(blur: float, noise: float, seed: tuple[int, int]) -> Degrade:
    """`degrade` with blur and with noise that differs from image to image."""
    if not (blur or noise):
        return degrade
    return partial(degrade, blur=blur, read_noise=noise, seed=np.random.default_rng(seed))


def _named(images: Any) -> dict[str, Any]:
    """The images by name; an ndarray is one image."""
    if isinstance(images, ImageFile) or (hasattr(images, "shape") and hasattr(images, "dtype")):
        return {"image 0": images}
    if isinstance(images, str | os.PathLike) or not isinstance(images, Iterable):
        msg = f"`images` must be an array, a list of arrays or a mapping, got {type(images).__name__}. "
        msg += "Read files with `read_image`."
        raise TypeError(msg)
    named = dict(images) if isinstance(images, Mapping) else {f"image {n}": image for n, image in enumerate(images)}
    for name, image in named.items():
        if not _is_image(image):
            msg = f"`images` must hold arrays of rows and columns, got {type(image).__name__} as {name}. "
            msg += "Use `numpy.asarray(images)` for one image, `read_image` for files."
            raise TypeError(msg)
    return named


def _is_image(image: Any) -> bool:
    """Whether this is an array, an `ImageFile`, or nested lists with rows and columns."""
    rows = isinstance(image, Sequence) and not isinstance(image, str) and len(image) > 0
    return hasattr(image, "shape") or isinstance(image, ImageFile) or (rows and isinstance(image[0], Sequence))


def _opened(image: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The pixels of an image, and the options for it."""
    if isinstance(image, ImageFile):
        return image.data, options | {"channel_axis": image.channel_axis, "rgb": image.rgb}
    return image, options


def find_planes(
    images: Images, scales: Sequence[float], **options: Any
) -> tuple[dict[str, list[tuple[None, Plane]]], dict[str, str]]:
    """The planes of each image, as the network sees them, and why images were left out.

    `options` are those of `super_resolve` that say what the axes and values mean.
    """
    sources, skipped = {}, {}
    least = math.ceil(4 * max(scales, default=1))
    for name, image in _named(images).items():
        try:
            pixels, axes = _opened(image, options)
            planes = [plane for plane in network_planes(pixels, **axes) if plane is not None and np.ptp(plane)]
        except (TypeError, ValueError) as error:
            error.args = (f"{name}: {error}",)
            raise
        if planes and min(planes[0].shape) >= least:
            sources[name] = [(None, plane) for plane in planes]
        else:
            skipped[name] = f"smaller than {least} x {least} pixels" if planes else "constant"
    return sources, skipped


def find_pairs(
    pairs: Sequence[tuple[Image, Image]], *, in_range: Range | Sequence[Range] | None = None, **options: Any
) -> tuple[dict[str, list[Pair]], dict[str, str]]:
    """The planes of each pair, interpolated and sharp, by the range of the low one; and why pairs were left out."""
    sources, skipped = {}, {}
    for number, pair in enumerate(check_pairs(pairs)):
        name = f"pair {number}"
        (low, its), (high, others) = (_opened(image, options) for image in pair)
        try:
            found = find_range(low, **its)
            flat = any(least == most for least, most in (found if isinstance(found, list) else [found]))
            ranges = found if in_range is None else in_range
            planes: list[list[Any]] = [[], []]
            if not flat:
                opened = ((low, its), (high, others))
                planes = [list(network_planes(pixels, in_range=ranges, **axes)) for pixels, axes in opened]
        except (TypeError, ValueError) as error:
            error.args = (f"{name}: {error}",)
            raise
        if len(planes[0]) != len(planes[1]):
            msg = f"`pairs` must hold images with as many planes, got {len(planes[0])} and {len(planes[1])} in {name}."
            raise ValueError(msg)
        both = [(a, b) for a, b in zip(*planes, strict=True) if a is not None and b is not None and np.ptp(b)]
        if both and min(both[0][1].shape) >= 8:
            sources[name] = [(interpolate_low(a, b, name), b) for a, b in both]
            check_registered(*sources[name][0], name)
        else:
            skipped[name] = "smaller than 8 x 8 pixels" if both else "constant"
    return sources, skipped


def check_registered(ilr: Plane, hr: Plane, name: str) -> None:
    """Raise if the images of a pair match clearly better when one is shifted.

    Raises
    ------
    ValueError
        Telling the shift.
    """
    from skimage.registration import phase_cross_correlation

    ilr, hr = _centre(ilr, REGISTERED), _centre(hr, REGISTERED)
    found = phase_cross_correlation(hr, ilr, normalization=None)[0]  # type: ignore[no-untyped-call]
    rows, columns = (round(shift) for shift in found)
    if max(abs(rows), abs(columns)) <= 1 or max(abs(rows), abs(columns)) >= min(hr.shape) // 2:
        return
    moved, there = _overlap(ilr, -rows, -columns), _overlap(hr, rows, columns)
    if _correlation(moved, there) > _correlation(ilr, hr) + 0.02:
        msg = f"`pairs` must be registered, got a sharp image that is shifted by {rows} rows and {columns} columns in "
        msg += f"{name}. Register the images first."
        raise ValueError(msg)


def _overlap(plane: Plane, rows: int, columns: int) -> Plane:
    """What is left of a plane when so many rows and columns are cut from its near (positive) or far edges."""
    cuts = (slice(max(n, 0), length + min(n, 0)) for n, length in zip((rows, columns), plane.shape, strict=True))
    return plane[tuple(cuts)]


def _correlation(first: Plane, second: Plane) -> float:
    if not (np.ptp(first) and np.ptp(second)):
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def split(
    sources: Mapping[str, list[Any]], hold_out: float, gap: int, seed: int = 0, *, strips: bool = False
) -> tuple[list[Any], list[Any]]:
    """What to train with and what to hold out: whole images, or of a single one the far end of its longer axis.

    Images that share a plane are held out together. Where all do, each gives its far end.

    Parameters
    ----------
    sources : mapping of name to list of (ndarray or None, ndarray)
        The planes of each image; both of a pair on one grid.
    hold_out : float
        The share, between 0 and 1.
    gap : int
        Pixels that are used for neither at a cut; at most an eighth.
    seed : int, optional
        Of the choice among several images.
    strips : bool, optional
        Take the far end of each, also of several.

    Returns
    -------
    train, held : list of (ndarray or None, ndarray)
    """
    names = list(sources)
    if len(names) > 1 and not strips:
        count = min(max(1, round(hold_out * len(names))), len(names) - 1)
        held = set(np.random.default_rng((seed, 2)).permutation(len(names))[:count].tolist())
        parts: tuple[list[Any], list[Any]] = ([], [])
        contents = [{hash_plane(hr) for _, hr in sources[name]} for name in names]
        seen = set().union(*(contents[number] for number in held))
        for name, content in zip(names, contents, strict=True):
            parts[bool(content & seen)].extend(sources[name])
        if parts[0]:
            return parts
    pieces = [cut(both, hold_out, gap) for source in sources.values() for both in source]
    return [train for train, _ in pieces], [held for _, held in pieces]


def hash_plane(plane: Plane) -> bytes:
    """A digest of the pixels: images of one content are held out together, whatever they are called."""
    return hashlib.sha256(repr(plane.shape).encode() + plane.tobytes()).digest()


def cut(both: Any, hold_out: float, gap: int) -> tuple[Any, Any]:
    """One plane, or the two of a pair, in a part to train with and one to hold out, at most a half."""
    shape = both[1].shape
    axis, length = int(np.argmax(shape)), max(shape)
    held = min(max(round(hold_out * length), min(16, length // 3)), length // 2)
    stop = length - held - min(gap, length // 8)
    parts = []
    for part in (slice(0, stop), slice(length - held, length)):
        window = (part, slice(None)) if axis == 0 else (slice(None), part)
        parts.append(tuple(None if plane is None else plane[window] for plane in both))
    return parts[0], parts[1]


# ------------------------------------------------------------------------------------------------ score


@dataclass(frozen=True)
class Piece:
    """A held-out part of an image.

    Attributes
    ----------
    scale : str
        Its factor.
    ilr, hr : (M, N) ndarray
        Interpolated and sharp, in [0, 1].
    border : int
        Pixels at each edge that do not count.
    """

    scale: str
    ilr: NDArray[np.float64]
    hr: NDArray[np.float64]
    border: int

    def psnr(self, sr: NDArray[np.float64]) -> float:
        """Peak signal-to-noise ratio of a restored piece in dB, at most 120."""
        return min(120.0, psnr(self.hr, sr, data_range=1, crop_border=self.border))


class HoldOut:
    """Parts of images that are not trained with, and how well a network restores them.

    Parameters
    ----------
    planes : sequence of (M, N) ndarray
        Sharp images in [0, 1]. A few pieces of them are measured, up to 192 x 192 pixels each.
    scales : sequence of float
        By which they are reduced.
    pairs : sequence of (ndarray, ndarray), optional
        Interpolated and sharp images.
    degrade : callable, optional
        Makes the low images, as in `Patches`.
    pieces : int, optional
        How many, at most, and as many of the pairs.
    device : str, optional
        Where networks run.

    Attributes
    ----------
    bicubic : dict
        PSNR of bicubic interpolation for each scale.
    last : list of ndarray
        The pieces as the network restored them that was validated last.

    Raises
    ------
    ValueError
        If there is nothing to measure: no images, or flat ones.
    """

    def __init__(
        self,
        planes: Sequence[Plane],
        scales: Sequence[float],
        pairs: Sequence[Pair] = (),
        *,
        degrade: Degrade = degrade,
        pieces: int = PIECES,
        device: str | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.pieces = [
            make_piece(scale, interpolate_back(hr, scale, degrade), crop_to_scale(hr, scale_pair(scale))[0])
            for hr in _some([_centre(plane) for plane in planes], pieces)
            for scale in scales
        ]
        crops = _some([(_centre(ilr), _centre(hr)) for ilr, hr in pairs], pieces)
        self.pieces += [make_piece(0, ilr, hr) for ilr, hr in crops]
        self.pieces = [piece for piece in self.pieces if np.ptp(piece.hr)]
        if not self.pieces:
            msg = (
                "the held-out part must have detail, got a flat one: nothing can be measured there. Of a single image "
            )
            msg += "it is the end of the longer axis: crop the image, raise `hold_out`, or add images."
            raise ValueError(msg)
        self.bicubic = self.means([piece.ilr for piece in self.pieces])
        self.last: list[NDArray[np.float64]] = []

    def restore(self, model: VDSR) -> list[NDArray[np.float64]]:
        """The pieces as a network restores them."""
        engine = Engine(model, self.device, half=False)
        return [restore(piece.ilr * 255, engine) / 255 for piece in self.pieces]

    def means(self, restored: Sequence[NDArray[np.float64]]) -> dict[str, float]:
        """The mean PSNR of restored pieces in dB, for each scale."""
        groups: dict[str, list[float]] = {}
        for piece, sr in zip(self.pieces, restored, strict=True):
            groups.setdefault(piece.scale, []).append(piece.psnr(sr))
        return {scale: float(np.mean(group)) for scale, group in groups.items()}

    def score(self, model: VDSR) -> dict[str, float]:
        """The mean PSNR of a network in dB, for each scale."""
        return self.means(self.restore(model))

    def gain(self, scores: Mapping[str, float]) -> float:
        """The mean over the scales of what `score` gave, less that of bicubic interpolation."""
        return float(np.mean([scores[scale] - self.bicubic[scale] for scale in self.bicubic]))

    def validate(self, model: VDSR) -> tuple[float, float]:
        """The mean PSNR of a network and its gain over bicubic interpolation in dB, as `Trainer` asks for them."""
        self.last = self.restore(model)
        scores = self.means(self.last)
        return float(np.mean(list(scores.values()))), self.gain(scores)

    def preview(self, before: Sequence[NDArray[np.float64]], now: Sequence[NDArray[np.float64]]) -> Preview:
        """The piece that interpolation restores worst, as two networks restore it."""
        number = int(np.argmin([piece.psnr(piece.ilr) for piece in self.pieces]))
        piece = self.pieces[number]
        return Preview(piece.scale, piece.ilr, before[number], now[number], piece.hr)


def make_piece(scale: float, ilr: Plane, hr: Plane) -> Piece:
    """A piece in double precision; `scale` 0 is that of registered pairs."""
    border = min(math.ceil(scale) or 4, (min(hr.shape) - 1) // 4)
    return Piece(f"{scale:.3g}" if scale else "pairs", ilr.astype(np.float64), hr.astype(np.float64), border)


def _centre(plane: Plane, side: int = PIECE) -> Plane:
    """The middle of a plane, up to `side` pixels a side."""
    rows, columns = (slice(max(0, n - side) // 2, max(0, n - side) // 2 + side) for n in plane.shape)
    return plane[rows, columns]


def _some(items: list[Any], count: int) -> list[Any]:
    """Up to `count` of the items, evenly spread."""
    return items[:: math.ceil(len(items) / count)] if items else []
