"""Fine-tune a network on a user's own images, and say whether it helped."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vdsr_core.arguments import check_number, check_scales, check_whole
from vdsr_core.checkpoint import load_model
from vdsr_core.degradation import crop_to_scale
from vdsr_core.engine import Engine, choose_device
from vdsr_core.evaluation import psnr, restore
from vdsr_core.inference import Range, find_range, network_planes
from vdsr_core.model import VDSR, check_network
from vdsr_core.patches import Patches, check_pairs, interpolate_back, interpolate_low
from vdsr_core.resampling import scale_pair
from vdsr_core.training import PRESETS, STUCK_GAIN, Progress, TrainConfig, Trainer

LEAST_SCALE = 1.1  # below, the interpolated image is all but the sharp one
PIECE, PIECES = 192, 8  # the side of a held-out piece in pixels, and how many `fine_tune` measures, at most

Plane = NDArray[np.float32]
Pair = tuple[Plane, Plane]
Images = ArrayLike | Sequence[ArrayLike] | Mapping[str, ArrayLike]


def fine_tune(
    images: Images = (),
    *,
    model: VDSR | str | os.PathLike[str] | None = None,
    scales: float | Sequence[float] | None = None,
    pairs: Sequence[tuple[ArrayLike, ArrayLike]] = (),
    steps: int = 1000,
    seconds: float | None = None,
    learning_rate: float = 1e-4,
    batch_size: int = 16,
    patch: int = 48,
    hold_out: float = 0.2,
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
    images : ndarray, sequence of ndarray, or mapping of name to ndarray
        Sharp images of any real dtypes and sizes, each (..., M, N): low ones are made from them by `degrade`. Values
        are mapped as `super_resolve` does. Images that are constant or too small are left out and named in the card.
    model : VDSR, str or path, optional
        Where to start: a network, which stays as it is, or what `load_model` takes. The default network by default.
    scales : float or sequence of float, optional
        To train for with `images`, at least 1.1 each; those of the network by default.
    pairs : sequence of (ndarray, ndarray), optional
        Registered low and sharp images of one field of view, in the same intensity units, instead of or beside
        `images`. Both are mapped by the range of the low one.
    steps : int, optional
        Most batches to train with.
    seconds : float, optional
        Train for so long instead.
    learning_rate : float, optional
        At the start; it falls as a cosine.
    batch_size, patch : int, optional
        Patches in a batch, and pixels of their sides; less where the smallest image is smaller.
    hold_out : float, optional
        The share that is held out, at least one image, or some rows or columns.
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
        If it did not help: less than 0.05 dB on the held-out part, or bicubic interpolation is still better there.

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
        steps=steps,
        seconds=seconds,
        learning_rate=learning_rate,
        batch_size=batch_size,
        patch=patch,
        hold_out=hold_out,
        validate_every=validate_every,
        patience=patience,
        channel_axis=channel_axis,
        rgb=rgb,
        in_range=in_range,
        device=device,
        seed=seed,
    )
    for _ in run:
        pass
    if not network.card["helped"]:
        warnings.warn(network.card["summary"], stacklevel=2)
    return network


def fine_tune_steps(
    model: VDSR,
    images: Images = (),
    *,
    scales: float | Sequence[float] | None = None,
    pairs: Sequence[tuple[ArrayLike, ArrayLike]] = (),
    steps: int = 1000,
    seconds: float | None = None,
    learning_rate: float = 1e-4,
    batch_size: int = 16,
    patch: int = 48,
    hold_out: float = 0.2,
    validate_every: int = 50,
    patience: int = 5,
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
    device: str | None = None,
    seed: int = 0,
) -> Iterator[Progress]:
    """Fine-tune step by step, as `fine_tune` does; `model` holds the best weights so far, and their card.

    Arguments are checked at the call, before the first step. Closing the iterator cancels the rest; what has been
    found by then stays in `model`.

    Parameters
    ----------
    model : VDSR
        Where to start and where the result goes.
    images, scales, pairs, steps, seconds, learning_rate, batch_size, patch, hold_out, validate_every, patience
        As in `fine_tune`.
    channel_axis, rgb, in_range, device, seed
        As in `fine_tune`.

    Yields
    ------
    Progress
        After each step; its `gain` is over bicubic on the held-out part, where it was measured.

    Raises
    ------
    TypeError, ValueError
        As in `fine_tune`.
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
    train, held = split(sources, hold_out, model.halo, seed)
    train_pairs, held_pairs = split(couples, hold_out, model.halo, seed)
    where = choose_device(device)
    measure = HoldOut([high for _, high in held], factors, held_pairs, device=str(where))
    data = Patches([high for _, high in train], factors, pairs=train_pairs, patch=patch, device=where)
    words = describe(sources, "image") + describe(couples, "pair")
    words.append(f"{hold_out:.0%} held out")
    words += [f"{name} left out: {why}" for name, why in (skipped | left_out).items()]
    card = {
        "name": "fine-tuned",
        "data": ", ".join(words),
        "recipe": f"from {model.card.get('name', 'a network')}; {describe_recipe(config, data)}",
        "terms": model.card.get("terms", ""),
    }
    tuned = tuple(sorted({round(factor, 3) for factor in data.factors}))
    return _run(model, data, config, measure, validate_every, patience, tuned, card)


def _run(
    model: VDSR,
    data: Patches,
    config: TrainConfig,
    hold_out: HoldOut,
    validate_every: int,
    patience: int,
    scales: tuple[float, ...],
    card: dict[str, Any],
) -> Iterator[Progress]:
    """Train a copy of `model`, which gets the weights that are best on the held-out part."""
    before = hold_out.score(model)
    best, after, waited = hold_out.gain(before), before, 0
    last: dict[str, float] = {}

    def validate(network: VDSR) -> float:
        last.update(hold_out.score(network))
        return hold_out.gain(last)

    learner = copy.deepcopy(model).float().requires_grad_(True)
    trainer = Trainer(learner, data, config, validate=validate, validate_every=validate_every)
    model.card = card | verdict(hold_out.bicubic, before, after, trainer.step)
    for progress in trainer.run():
        if progress.gain is not None:
            waited += 1
            if progress.gain > best:
                best, after, waited = progress.gain, dict(last), 0
                model.load_state_dict(trainer.result.state_dict())
                model.scales = scales
            model.card = card | verdict(hold_out.bicubic, before, after, trainer.step)
        yield progress
        if waited >= patience:
            return


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
    scores = {
        scale: {"bicubic": round(bicubic[scale], 3), "before": round(before[scale], 3), "after": round(after[scale], 3)}
        for scale in bicubic
    }
    return {"summary": words, "helped": helped, "hold_out": scores}


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


def _named(images: Any) -> dict[str, Any]:
    """The images by name; an ndarray is one image."""
    if hasattr(images, "shape") and hasattr(images, "dtype"):
        return {"image 0": images}
    if isinstance(images, str | os.PathLike) or not isinstance(images, Iterable):
        msg = f"`images` must be an array, a list of arrays or a mapping, got {type(images).__name__}. "
        msg += "Read files with `read_image`."
        raise TypeError(msg)
    named = dict(images) if isinstance(images, Mapping) else {f"image {n}": image for n, image in enumerate(images)}
    for name, image in named.items():
        if not hasattr(image, "shape") and (isinstance(image, str | os.PathLike) or not _is_plane(image)):
            msg = f"`images` must hold arrays of rows and columns, got {type(image).__name__} as {name}. "
            msg += "Use `numpy.asarray(images)` for one image, `read_image` for files."
            raise TypeError(msg)
    return named


def _is_plane(image: Any) -> bool:
    """Whether nested lists have rows and columns."""
    return isinstance(image, Sequence) and len(image) > 0 and isinstance(image[0], Sequence)


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
            planes = [plane for plane in network_planes(image, **options) if plane is not None and np.ptp(plane)]
        except (TypeError, ValueError) as error:
            error.args = (f"{name}: {error}",)
            raise
        if planes and min(planes[0].shape) >= least:
            sources[name] = [(None, plane) for plane in planes]
        else:
            skipped[name] = f"smaller than {least} x {least} pixels" if planes else "constant"
    return sources, skipped


def find_pairs(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]], *, in_range: Range | Sequence[Range] | None = None, **options: Any
) -> tuple[dict[str, list[Pair]], dict[str, str]]:
    """The planes of each pair, interpolated and sharp, by the range of the low one; and why pairs were left out."""
    sources, skipped = {}, {}
    for number, (low, high) in enumerate(check_pairs(pairs)):
        name = f"pair {number}"
        try:
            found = find_range(low, **options)
            flat = any(least == most for least, most in (found if isinstance(found, list) else [found]))
            ranges = found if in_range is None else in_range
            planes: list[list[Any]] = (
                [[], []] if flat else [list(network_planes(x, in_range=ranges, **options)) for x in (low, high)]
            )
        except (TypeError, ValueError) as error:
            error.args = (f"{name}: {error}",)
            raise
        if len(planes[0]) != len(planes[1]):
            msg = f"`pairs` must hold images with as many planes, got {len(planes[0])} and {len(planes[1])} in {name}."
            raise ValueError(msg)
        both = [(a, b) for a, b in zip(*planes, strict=True) if a is not None and b is not None and np.ptp(b)]
        if both and min(both[0][1].shape) >= 8:
            sources[name] = [(interpolate_low(a, b, name), b) for a, b in both]
        else:
            skipped[name] = "smaller than 8 x 8 pixels" if both else "constant"
    return sources, skipped


def split(sources: Mapping[str, list[Any]], hold_out: float, gap: int, seed: int = 0) -> tuple[list[Any], list[Any]]:
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

    Returns
    -------
    train, held : list of (ndarray or None, ndarray)
    """
    names = list(sources)
    if len(names) > 1:
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
    pieces : int, optional
        How many, at most, and as many of the pairs.
    device : str, optional
        Where networks run.

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
        pieces: int = PIECES,
        device: str | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.pieces = [
            make_piece(scale, interpolate_back(hr, scale), crop_to_scale(hr, scale_pair(scale))[0])
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
        self.bicubic = self._means(piece.psnr(piece.ilr) for piece in self.pieces)

    def score(self, model: VDSR) -> dict[str, float]:
        """The mean PSNR of a network in dB, for each scale."""
        engine = Engine(model, self.device, half=False)
        return self._means(piece.psnr(restore(piece.ilr * 255, engine) / 255) for piece in self.pieces)

    def gain(self, scores: Mapping[str, float]) -> float:
        """The mean over the scales of what `score` gave, less that of bicubic interpolation."""
        return float(np.mean([scores[scale] - self.bicubic[scale] for scale in self.bicubic]))

    def validate(self, model: VDSR) -> float:
        """The gain of a network over bicubic interpolation in dB, as `Trainer` asks for it."""
        return self.gain(self.score(model))

    def _means(self, values: Iterable[float]) -> dict[str, float]:
        """The mean for each scale of a value for each piece."""
        groups: dict[str, list[float]] = {}
        for piece, value in zip(self.pieces, values, strict=True):
            groups.setdefault(piece.scale, []).append(value)
        return {scale: float(np.mean(group)) for scale, group in groups.items()}


def make_piece(scale: float, ilr: Plane, hr: Plane) -> Piece:
    """A piece in double precision; `scale` 0 is that of registered pairs."""
    border = min(math.ceil(scale) or 4, (min(hr.shape) - 1) // 4)
    return Piece(f"{scale:.3g}" if scale else "pairs", ilr.astype(np.float64), hr.astype(np.float64), border)


def _centre(plane: Plane) -> Plane:
    """The middle of a plane, up to PIECE pixels a side."""
    rows, columns = (slice(max(0, n - PIECE) // 2, max(0, n - PIECE) // 2 + PIECE) for n in plane.shape)
    return plane[rows, columns]


def _some(items: list[Any], count: int) -> list[Any]:
    """Up to `count` of the items, evenly spread."""
    return items[:: math.ceil(len(items) / count)] if items else []
