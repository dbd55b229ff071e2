"""Fine-tune a network on a user's own images, and say whether it helped."""

from __future__ import annotations

import copy
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vdsr_core.arguments import check_scales
from vdsr_core.dataset.hold_out import PIECES
from vdsr_core.dataset.planes import Images, Pairs, find_pairs, find_planes, named_images
from vdsr_core.images.ranges import Range
from vdsr_core.network.checkpoint import fingerprint, load_model
from vdsr_core.network.model import VDSR, check_network
from vdsr_core.training.progress import STUCK_GAIN
from vdsr_core.training.recipe import LEAST_SCALE, FineTuneConfig, describe_recipe
from vdsr_core.training.resume import RunFile, check_settings, read_begun
from vdsr_core.training.session import FineTuneProgress, Found, Session, compare, count_images


def fine_tune(
    images: Images = (),
    config: FineTuneConfig | None = None,
    *,
    model: VDSR | str | os.PathLike[str] | None = None,
    pairs: Pairs = (),
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
    device: str | None = None,
    **options: Any,
) -> VDSR:
    """Train a network further on your own sharp images, and measure on a held-out part whether that helps.

    A part of the images is not trained with: whole images, or a strip of a single one, with a gap. After every
    `validate_every` steps the network (the running mean of its weights) is measured on this part, and the best one is
    kept: that at the start, if none is better.

    Parameters
    ----------
    images : ndarray, ImageFile, sequence of them, or mapping of name to them
        Sharp images of any real dtypes and sizes, each (..., M, N). Low-resolution images are made from them by
        `degrade`. Values are mapped as in `super_resolve`. The axes of an `ImageFile` are those of the file. Images
        that are constant or too small are left out, and named in the card.
    config : FineTuneConfig, optional
        How to fine-tune.
    model : VDSR, str or path, optional
        The network to start from, which is not changed, or what `load_model` takes. The default network by default.
    pairs : sequence of (ndarray, ndarray) or of (ImageFile, ImageFile), or mapping of name to them, optional
        Pairs of a low- and a high-resolution image of the same field of view, registered and in the same intensity
        units, instead of `images` or in addition. The range of the low-resolution image is used for both.
    channel_axis, rgb, in_range, device
        As in `super_resolve`, for all images.
    **options
        Fields of `FineTuneConfig`, such as ``steps=100``, which replace those of `config`.

    Returns
    -------
    VDSR
        The best network, without a restorer. Its card describes data and recipe, and has under ``"hold_out"`` for each
        scale the PSNR in dB of bicubic interpolation, and of the network before and after the training;
        ``card["summary"]`` says in a sentence whether the training helped.

    Warns
    -----
    UserWarning
        If the network does not become better than bicubic interpolation, or becomes worse and worse; if the training
        did not help: the gain on the held-out part is less than 0.05 dB, or bicubic interpolation is still better.

    Raises
    ------
    TypeError, ValueError
        If an input is not an image, an option is invalid, or there is nothing to train with or to hold out.

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
    kinds: dict[str, Any] = {"channel_axis": channel_axis, "rgb": rgb, "in_range": in_range, "device": device}
    for progress in fine_tune_steps(network, images, config, pairs=pairs, **kinds, **options):
        if progress.step and progress.warning:
            warnings.warn(progress.warning, stacklevel=2)
    if not network.card["helped"]:
        warnings.warn(network.card["summary"], stacklevel=2)
    return network


def fine_tune_steps(
    model: VDSR,
    images: Images = (),
    config: FineTuneConfig | None = None,
    *,
    pairs: Pairs = (),
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
    device: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    stop: threading.Event | None = None,
    **options: Any,
) -> Iterator[FineTuneProgress]:
    """Fine-tune step by step, as `fine_tune` does; `model` holds the best weights so far, and their card.

    Arguments are checked at the call, before the first step. Closing the iterator cancels the rest; the best network
    so far stays in `model`. A resumed run gives the same result as an uninterrupted one.

    Parameters
    ----------
    model : VDSR
        The network to start from; it becomes the result.
    images, config, pairs, channel_axis, rgb, in_range, device, **options
        As in `fine_tune`.
    checkpoint : path, optional
        A file, ``*.safetensors``, for the best network so far and what is needed to resume. It is written at the start,
        at each validation, every half minute, and when the iterator is closed. In the end it holds only the network and
        the options.
    resume : bool, optional
        Resume the unfinished run in `checkpoint`. Images, `model` and the options that are given must be those that it
        was begun with; other options are taken from the file. If the run is finished, `model` becomes its network
        at once, without a step.
    stop : Event, optional
        If another thread sets it, the iterator ends within a step, as if it were closed.

    Yields
    ------
    FineTuneProgress
        First for step 0, then after each step. Its `gain` is over bicubic on the held-out part, if it was measured.

    Raises
    ------
    TypeError, ValueError
        As in `fine_tune`; if `checkpoint` holds another run, or a network that no run has written.
    OSError
        If `checkpoint` cannot be written or read; at the first step, if another running process is writing it.

    Examples
    --------
    >>> from vdsr_core import VDSRConfig
    >>> image = np.random.default_rng(0).random((64, 64))
    >>> run = fine_tune_steps(VDSR(VDSRConfig(depth=3, width=4)), image, scales=[2], steps=2, batch_size=2)
    >>> with warnings.catch_warnings(action="ignore"):  # noise cannot be learnt
    ...     [progress.step for progress in run]
    [0, 1, 2]
    """
    check_network(model)
    config = replace(config or FineTuneConfig(), **options)
    if resume:
        if checkpoint is None:
            msg = "`checkpoint` must name the file to resume, got None."
            raise ValueError(msg)
        config = resume_config(config, options, checkpoint)
    named = named_images(images)
    scales = choose_scales(config, model) if named else ()
    kinds: dict[str, Any] = {"channel_axis": channel_axis, "rgb": rgb, "in_range": in_range}
    sources, skipped = find_planes(named, scales, **kinds)
    couples, ratios, left_out = find_pairs(pairs, **kinds)
    material = Material(sources, couples, scales, tuple(ratios.values()), skipped | left_out)
    return fine_tune_planes(model, material, config, device=device, checkpoint=checkpoint, resume=resume, stop=stop)


def resume_config(config: FineTuneConfig, given: Iterable[str], checkpoint: str | os.PathLike[str]) -> FineTuneConfig:
    """The config of the run in a file, with which the `given` fields of another must agree."""
    begun = read_begun(checkpoint)
    values = config.to_json()
    check_settings(begun, {name: values[name] for name in given}, checkpoint)
    return FineTuneConfig(**{name: begun[name] for name in values})


@dataclass(frozen=True)
class Material:
    """What to fine-tune with: planes of images and of pairs, as `find_planes` and `find_pairs` return them.

    `scales` are those of the images, `ratios` those of the pairs; `skipped` tells why images were left out.
    """

    sources: dict[str, list[Any]]
    couples: dict[str, list[Any]] = field(default_factory=dict)
    scales: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)


def choose_scales(config: FineTuneConfig, model: VDSR) -> tuple[float, ...]:
    """The scales that images are reduced by."""
    return tuple(check_scales(config.scales or model.scales or (2.0, 3.0, 4.0), least=LEAST_SCALE))


def fine_tune_planes(
    model: VDSR,
    material: Material,
    config: FineTuneConfig,
    *,
    name: str = "fine-tuned",
    device: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    stop: threading.Event | None = None,
) -> Iterator[FineTuneProgress]:
    """What `fine_tune_steps` does, with planes; `name` is for the card."""
    sources, couples, skipped = material.sources, material.couples, material.skipped
    if not (sources or couples):
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items()) or "none"
        msg = f"`images` must hold an image to train with, got {reasons}. Add larger images with detail."
        raise ValueError(msg)
    session = Session(
        copy.deepcopy(model).float().requires_grad_(True),
        sources,
        couples,
        material.scales,
        config.to_train_config(),
        hold_out=config.hold_out,
        pieces=PIECES,
        validate_every=config.validate_every,
        strips=config.strips,
        blur=config.blur,
        added_noise=config.added_noise,
        patch=config.patch,
        device=device,
        stop=stop,
    )
    tuned = tuple(sorted({round(scale, 3) for scale in (*material.scales, *material.ratios) if scale >= LEAST_SCALE}))
    words = count_images(sources, "image") + count_images(couples, "pair") + [f"{config.hold_out:.0%} held out"]
    recipe = describe_recipe(session.trainer.config, session.trainer.data.patch, tuned)
    if config.blur or config.added_noise:
        recipe += f"; blur {config.blur:g} pixels, noise {config.added_noise:.3g} of the range"
    card = {
        "name": name,
        "data": ", ".join(words + [f"{image} left out: {why}" for image, why in skipped.items()]),
        "recipe": f"from {model.card.get('name', 'a network')}; {recipe}",
        "terms": model.card.get("terms", ""),
    }

    def describe(found: Found) -> dict[str, Any]:
        """The card."""
        return card | verdict(session.hold_out.bicubic, found.before, found.after, session.trainer.step)

    settings = config.to_json() | {"model": fingerprint(model)[:8]}
    file = RunFile(checkpoint, settings, tells_run=True) if checkpoint is not None else None
    found = None
    if file is not None and resume:
        check_settings(read_begun(file.path), settings, file.path)
        if file.is_finished(session.images):
            return file.finished(model)
        found = session.resume(file)
    return session.run(model, describe, scales=tuned or model.scales, patience=config.patience, file=file, found=found)


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
