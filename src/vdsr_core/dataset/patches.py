"""Draw multi-scale batches of training patches from images that lie on the training device."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsr_core.arguments import check_integer, check_number, check_scales, check_span
from vdsr_core.dataset.interpolation import Degrade, draw_scales, interpolate_groups
from vdsr_core.dataset.store import find_room, find_starts, join
from vdsr_core.images.degradation import degrade
from vdsr_core.images.intensity import check_pixels
from vdsr_core.network.devices import choose_device
from vdsr_core.network.model import Condition

Augment = Literal["none", "flips", "dihedral"]

LEAST_CONTRAST = 0.02  # of a patch of low contrast, as a fraction of what it was


@dataclass(frozen=True)
class Choice:
    """Which patches make a batch: one row for each, in small tensors on the CPU."""

    pair: Tensor  # (B,) of int64, number of the pair of images (hr, ilr)
    row: Tensor  # (B,) of int64, of the first pixel
    column: Tensor
    flips: Tensor  # (B, 3) of bool: flip rows, flip columns, and transpose
    intensity: Tensor  # (B, 2) of float32, gain and offset
    clipped: Tensor  # (B,) of bool: clip the interpolated image, if that is asked for
    estimated: Tensor  # (B,) of bool: tell the network what is estimated of an image, else what was done to it

    def part(self, number: int, count: int) -> Choice:
        """Every `count`-th patch, from `number` on."""
        return Choice(*(getattr(self, field.name)[number::count] for field in fields(self)))


class Patches:
    """Pairs of sharp and interpolated images on a device, and batches of patches that are cut out of them.

    Each sharp image is kept once, with one interpolated image for each scale.

    For each patch, a group is drawn first: one of `scales`, one draw from `scale_range`, or the registered pairs, all
    equally likely. Then a place in an image of that group is drawn.

    Parameters
    ----------
    images : sequence of (M, N) ndarray
        Sharp gray or luma images in [0, 1].
    scales : float or sequence of float, optional
        Each image is reduced and interpolated by each of them.
    scale_range : (low, high), optional
        Each image is also reduced by `draws` random scales: this range is divided into `draws` equal parts, and a scale
        is drawn from each.
    draws : int, optional
        How many scales are drawn from `scale_range` for each image.
    pairs : sequence of ((m, n) ndarray, (M, N) ndarray), optional
        Pairs of a low- and a high-resolution image of the same field of view, registered and in the same intensities,
        instead of `images` or in addition. Their scale is the ratio of their shapes; a low-resolution image as large as
        the sharp one is taken as interpolated.
    ratios : sequence of float, optional
        The scale of each pair, needed if its low-resolution image is interpolated already.
    degrade : callable, optional
        ``degrade(image, scale)`` gives the low-resolution image, of floor(n / scale) pixels; bicubic by default. For
        blur and noise, `functools.partial` of `vdsr_core.degrade`. It is called once for each image and scale.
    patch : int, optional
        Side of a patch in pixels; less if the smallest image is smaller.
    grid : bool, optional
        Use patches that do not overlap, each once per epoch, as the paper does, instead of random ones.
    augment : {"dihedral", "flips", "none"}, optional
        Flips and right-angle rotations, flips only, or nothing.
    gain, offset : (low, high), optional
        The intensities of each patch become ``gain * values + offset``, with a gain (uniform in its logarithm) and an
        offset that are drawn from these ranges.
    clip : (low, high), optional
        Clip the interpolated image of half of the patches, at random, to this range: interpolation goes beyond black
        and white, which files and the protocol of `evaluate` cut off.
    degraded : int, optional
        How many degraded versions each image has at each scale, in addition to the clean one: noisy, compressed, or
        reduced by another kernel, at random. `conditions` says what a network with maps is told of them.
    low_contrast : float, optional
        Fraction of the patches whose contrast is reduced, to between 2 and 100 %. So a network learns to leave smooth
        and faint images as they are.
    seed : int, optional
        Seed of the draws from `scale_range` and of the degraded versions.
    store : path, optional
        Folder for temporary files of images that fit neither the device nor the memory. Only the patches of a batch
        are read from them, and they are deleted with this object. By default, arrays that need more than half of the
        free memory of the device are kept in main memory, and those that need more than half of that in the system's
        folder for temporary files, with a warning.
    device : torch.device, optional
        Where the batches are, and the arrays if they fit.

    Raises
    ------
    TypeError, ValueError
        If there are no images, one is not finite or too small for a scale, the images of a pair do not belong
        together, or the value of an option is not allowed.

    Examples
    --------
    >>> image = np.random.default_rng(0).random((64, 48))
    >>> patches = Patches([image], [2, 3], scale_range=(1.5, 4), patch=32)
    >>> ilr, hr = patches.gather(patches.choose(step=0, count=16))
    >>> ilr.shape, len(patches.factors)
    (torch.Size([16, 1, 32, 32]), 6)
    """

    def __init__(
        self,
        images: Sequence[NDArray[Any]] = (),
        scales: float | Sequence[float] = (2, 3, 4),
        *,
        scale_range: tuple[float, float] | None = None,
        draws: int = 4,
        pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]] = (),
        ratios: Sequence[float] | None = None,
        degrade: Degrade = degrade,
        patch: int = 41,
        grid: bool = False,
        augment: Augment = "dihedral",
        gain: tuple[float, float] = (1.0, 1.0),
        offset: tuple[float, float] = (0.0, 0.0),
        clip: tuple[float, float] | None = None,
        degraded: int = 0,
        low_contrast: float = 0.0,
        seed: int = 0,
        store: str | os.PathLike[str] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        patch = check_integer("patch", patch, 1)
        images, pairs = check_images(images), check_pairs(pairs)
        sharp = [*images, *(high for _, high in pairs)]
        _check(sharp, [low for low, _ in pairs], augment)
        gain = check_span("gain", gain, "Use (1, 1) for none.", above=0)
        offset = check_span("offset", offset, "Use (0, 0) for none.")
        self.clip = None if clip is None else check_span("clip", clip, "Leave it out for none.")
        self.scales = check_scales(scales)
        degraded = check_integer("degraded", degraded, 0)
        rule, hint = "a number from 0 to 1", "Leave it out for none."
        self.low_contrast = check_number("low_contrast", low_contrast, rule, hint, lambda part: 0 <= part <= 1)
        given: Any = degrade
        if not callable(given):
            msg = f"`degrade` must be callable, got {degrade!r}. Leave it out for bicubic."
            raise TypeError(msg)
        self.grid, self.augment, self.gain, self.offset = grid, augment, gain, offset
        self.device = choose_device(device)
        drawn = draw_scales(len(images), scale_range, draws, seed)
        groups = [*([scale] * len(images) for scale in self.scales), *drawn] * (1 + degraded)
        if images and not groups:
            msg = "`scales` must hold at least one scale, got none. Give some, or a `scale_range`."
            raise ValueError(msg)
        shapes: list[tuple[int, ...]] = []
        where, store = find_room(4 * (len(groups) + 1) * sum(image.size for image in sharp), self.device, store)

        told: list[tuple[Condition, Condition]] = []  # what was done, and what is estimated

        def note() -> Iterator[NDArray[np.float32]]:
            for ilr, both in interpolate_groups(images, groups, pairs, degrade, degraded, seed):
                told.append(both)
                yield ilr

        ilr = join(note(), store, shapes)
        number = [*range(len(images))] * len(groups) + [*range(len(images), len(sharp))]  # of the sharp image
        self.factors = [s for factors in groups for s in factors]
        self.factors += [high.shape[0] / low.shape[0] for low, high in pairs] if ratios is None else ratios
        self.told = torch.tensor(told)  # (pairs, 2, 4)
        self.told[..., -1] = torch.tensor(self.factors)[:, None]
        self.group = torch.tensor([g for g, fs in enumerate(groups) for _ in fs] + [len(groups)] * len(pairs))
        self.shape = torch.tensor(shapes)  # (pairs, 2)
        self.patch = min(patch, int(self.shape.min()))
        small = self.shape.min(1).values < patch
        if small.any() and not small.all():
            share = f"{int(small.sum())} of {len(small)} images, each counted at each scale, are smaller"
            warnings.warn(
                f"all patches shrink from {patch} to {self.patch} pixels: {share}. Leave these out.", stacklevel=2
            )
        hr_start = find_starts([image.size for image in sharp])[number]
        hr_stride = [sharp[n].shape[1] for n in number]
        ilr_start, ilr_stride = find_starts([math.prod(shape) for shape in shapes]), [shape[1] for shape in shapes]
        self.layout = torch.from_numpy(np.stack([hr_start, hr_stride, ilr_start, ilr_stride]))  # (4, pairs)
        self.hr, self.ilr = (torch.from_numpy(flat).to(where) for flat in (join(sharp, store), ilr))

    def __len__(self) -> int:
        """How many patches an epoch has: those of all images and scales that do not overlap."""
        return int((self.shape // self.patch).prod(1).sum())

    def choose(self, step: int, count: int, seed: int = 0) -> Choice:
        """Draw the patches of a step: each its own scale, image, place, orientation, gain and offset.

        The same step, count and seed give the same patches, independently of what was drawn before.

        Parameters
        ----------
        step, count : int
            Number of the step, and how many patches to draw.
        seed : int, optional
            Seed of all steps.

        Returns
        -------
        Choice
            What `gather` and `conditions` take.
        """
        check_integer("count", count, 1, "Try 64.")
        generator = make_generator(seed, step)
        pair, row, column = self._grid(step, count, seed) if self.grid else self._crops(count, generator)
        flips = torch.rand(count, 3, generator=generator) < 0.5
        if self.augment != "dihedral":
            flips[:, 2 if self.augment == "flips" else 0 :] = False
        (low, high), (least, most) = self.gain, self.offset
        u, v = torch.rand(count, 2, generator=generator).unbind(1)
        intensity = torch.stack([low * (high / low) ** u, least + (most - least) * v], 1)  # (B, 2)
        clipped = torch.rand(count, generator=generator) < 0.5
        estimated = torch.rand(count, generator=generator) < 0.5
        if self.low_contrast:
            faint, u, v = torch.rand(count, 3, generator=generator).unbind(1)
            gain = LEAST_CONTRAST**u
            reduced = torch.stack([gain, (1 - gain) * v], 1)  # anywhere between 0 and 1
            intensity = torch.where(faint[:, None] < self.low_contrast, reduced, intensity)
        return Choice(pair, row, column, flips, intensity, clipped, estimated)

    def _crops(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Random places: all groups are equally likely, then all places within their images."""
        places = self.shape - self.patch + 1  # (pairs, 2)
        weight = places.prod(1).double()
        total = torch.zeros(int(self.group.max()) + 1, dtype=torch.float64)  # of each group
        total.index_add_(0, self.group, weight)
        pair = torch.multinomial(weight / total[self.group], count, True, generator=generator)
        where = torch.rand(count, 2, generator=generator, dtype=torch.float64)
        row, column = (where * places[pair]).long().unbind(1)
        return pair, row, column

    def _grid(self, step: int, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Places that do not overlap: an epoch takes each once, in an order of its own."""
        number = torch.arange(step * count, (step + 1) * count)
        epoch, place = number // len(self), number % len(self)
        orders = {
            e: torch.randperm(len(self), generator=make_generator(seed, -1 - e))
            for e in range(int(epoch[0]), int(epoch[-1]) + 1)
        }
        place = torch.stack([orders[e][p] for e, p in zip(epoch.tolist(), place, strict=True)])
        cells = self.shape // self.patch  # (pairs, 2)
        ends = cells.prod(1).cumsum(0)
        pair = torch.searchsorted(ends, place, right=True)
        cell = place - (ends - cells.prod(1))[pair]
        return pair, cell // cells[pair, 1] * self.patch, cell % cells[pair, 1] * self.patch

    def gather(self, choice: Choice) -> tuple[Tensor, Tensor]:
        """The patches of a choice.

        Returns
        -------
        ilr, hr : (B, 1, P, P) Tensor
            On the device, float32.
        """
        # What goes to the device is a few numbers for each patch.
        table = torch.stack([choice.row, choice.column, *choice.flips.T, *self.layout[:, choice.pair]])
        top, left, *flips, hr_start, hr_stride, ilr_start, ilr_stride = table.to(self.hr.device)[:, :, None, None]
        flip_rows, flip_columns, transpose = (flip.bool() for flip in flips)  # (B, 1, 1)
        side = torch.arange(self.patch, device=self.hr.device)
        row, column = side[None, :, None], side[None, None, :]
        row, column = torch.where(transpose, column, row), torch.where(transpose, row, column)  # (B, P, P)
        row = top + torch.where(flip_rows, self.patch - 1 - row, row)
        column = left + torch.where(flip_columns, self.patch - 1 - column, column)
        ilr = self.ilr[ilr_start + row * ilr_stride + column].to(self.device)
        hr = self.hr[hr_start + row * hr_stride + column].to(self.device)
        if self.clip:
            clipped = choice.clipped.to(self.device)[:, None, None]  # (B, 1, 1)
            ilr = torch.where(clipped, ilr.clamp(*self.clip), ilr)
        if self.low_contrast or [*self.gain, *self.offset] != [1, 1, 0, 0]:
            gain, offset = choice.intensity.to(self.device).T[:, :, None, None]  # (B, 1, 1)
            ilr, hr = ilr * gain + offset, hr * gain + offset
        return ilr[:, None], hr[:, None]

    def conditions(self, choice: Choice) -> Tensor:
        """What a network with maps is told of the patches of a choice: a `Condition` each.

        Returns
        -------
        (B, 4) Tensor
            On the device, float32.
        """
        done, estimated = self.told[choice.pair].unbind(1)  # (B, 4)
        gain, offset, compression, scale = torch.where(choice.estimated[:, None], estimated, done).unbind(1)
        a, b = choice.intensity.unbind(1)
        # Variance of a * x + b, of which the noise of x has the variance gain * x + offset.
        return torch.stack([a * gain, a * a * offset - a * b * gain, a * compression, scale], 1).to(self.device)


def make_generator(seed: int, number: int) -> torch.Generator:
    """A random generator of its own for each (seed, number)."""
    entropy = np.random.SeedSequence((seed, number % 2**64)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(entropy[0] >> np.uint64(1)))


def check_images(images: Any) -> list[NDArray[Any]]:
    """A list of images, checked to be one and not a single image."""
    if hasattr(images, "dtype") or not isinstance(images, Iterable) or isinstance(images, str):
        what = f"an array of shape {images.shape}" if hasattr(images, "shape") else type(images).__name__
        msg = f"`images` must be a list of images, got {what}. Use [image] for one."
        raise TypeError(msg)
    return [np.asarray(image) for image in images]


def check_pairs(pairs: Any) -> list[tuple[Any, Any]]:
    """A list of registered pairs, checked to be one and not a single pair; the images may be of any kind."""
    if hasattr(pairs, "dtype") or not isinstance(pairs, Iterable) or isinstance(pairs, str):
        msg = f"`pairs` must be a list of (low, sharp) images, got {type(pairs).__name__}. Use [(low, sharp)] for one."
        raise TypeError(msg)
    found = list(pairs)
    for pair in found:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            what = f"an array of shape {pair.shape}" if hasattr(pair, "shape") else f"{type(pair).__name__}"
            msg = f"`pairs` must hold two images each, (low, sharp), got {what}. Use [(low, sharp)] for one."
            raise TypeError(msg)
    return found


def _check(sharp: Sequence[NDArray[Any]], low: Sequence[NDArray[Any]], augment: str) -> None:
    """Raise unless these images and options make patches."""
    if not sharp:
        msg = "`images` must hold at least one image, got none. Check the folder."
        raise ValueError(msg)
    for image in (*sharp, *low):
        check_pixels(image.dtype, image.shape, "images")
        if image.dtype.kind != "f":
            msg = f"`images` must be floats in [0, 1], got {image.dtype}. Use `Rescale.forward`, or `image / 255`."
            raise TypeError(msg)
        if image.ndim != 2 or not np.isfinite(image).all():
            what = f"shape {image.shape}" if image.ndim != 2 else "NaN or infinity"
            msg = f"`images` must be finite arrays of rows and columns, got {what}. Split into planes, replace pixels."
            raise ValueError(msg)
    if augment not in get_args(Augment):
        msg = f"`augment` must be one of {', '.join(get_args(Augment))}, got {augment!r}. Leave it out for 'dihedral'."
        raise ValueError(msg)
