"""Draw multi-scale batches of training patches from images that lie on the training device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsr_core.degradation import crop_to_scale, degrade
from vdsr_core.resampling import resize, scale_pair

Augment = Literal["none", "flips", "dihedral"]


@dataclass(frozen=True)
class Choice:
    """Which patches make a batch: one row for each, in small tensors on the CPU.

    Attributes
    ----------
    pair : (B,) Tensor of int64
        Number of the pair of images (hr, ilr).
    row, column : (B,) Tensor of int64
        Of the first pixel.
    flips : (B, 3) Tensor of bool
        Whether to flip rows, flip columns, and transpose.
    """

    pair: Tensor
    row: Tensor
    column: Tensor
    flips: Tensor


class Patches:
    """Pairs of sharp and interpolated images as flat arrays on a device, and batches of patches from them.

    Each image is kept once, its interpolated images, one for each scale, beside it. A batch is one gather from each
    array; only the numbers of its patches come from the host.

    Parameters
    ----------
    images : sequence of (M, N) ndarray
        Sharp gray or luma images in [0, 1].
    scales : sequence of float
        A patch draws one of them, all being equally likely.
    patch : int, optional
        Side of a patch in pixels; less where the smallest image is smaller.
    grid : bool, optional
        Take patches that do not overlap, each once an epoch, as the paper does, instead of random ones.
    augment : {"dihedral", "flips", "none"}, optional
        Flips and right-angle rotations, flips only, or nothing.
    device : torch.device, optional
        Where the arrays lie.

    Raises
    ------
    ValueError
        If there are no images, or none is large enough for a scale.
    """

    def __init__(
        self,
        images: Sequence[NDArray[Any]],
        scales: Sequence[float] = (2, 3, 4),
        *,
        patch: int = 41,
        grid: bool = False,
        augment: Augment = "dihedral",
        device: torch.device | str = "cpu",
    ) -> None:
        if not images:
            msg = "`images` must hold at least one image, got none. Check the folder."
            raise ValueError(msg)
        self.scales = tuple(float(scale) for scale in scales)
        self.grid, self.augment = grid, augment
        self.device = torch.device(device)
        pairs = [(image, scale) for scale in self.scales for image in images]
        shapes = [crop_to_scale(image, scale_pair(scale))[0].shape for image, scale in pairs]
        self.patch = min(patch, *(min(shape) for shape in shapes))
        self.shape = torch.tensor(shapes)  # (pairs, 2)
        hr_start = np.tile(_starts([image.size for image in images]), len(self.scales))
        ilr_start = _starts([rows * columns for rows, columns in shapes])
        hr_stride, ilr_stride = [image.shape[1] for image, _ in pairs], [columns for _, columns in shapes]
        self.layout = torch.from_numpy(np.stack([hr_start, hr_stride, ilr_start, ilr_stride]))  # (4, pairs)
        self.hr = torch.from_numpy(np.concatenate([np.ravel(image) for image in images]).astype(np.float32))
        self.ilr = torch.from_numpy(np.concatenate([interpolate_back(*pair).ravel() for pair in pairs]))
        self.hr, self.ilr = self.hr.to(self.device), self.ilr.to(self.device)

    def __len__(self) -> int:
        """How many patches an epoch has: those of all images and scales that do not overlap."""
        return int((self.shape // self.patch).prod(1).sum())

    def choose(self, step: int, count: int, seed: int = 0) -> Choice:
        """Draw the patches of a step: each its own scale, image, place and orientation.

        The same step, count and seed give the same patches, whatever was drawn before.
        """
        generator = make_generator(seed, step)
        pair, row, column = self._grid(step, count, seed) if self.grid else self._crops(count, generator)
        flips = torch.rand(count, 3, generator=generator) < 0.5
        if self.augment != "dihedral":
            flips[:, 2 if self.augment == "flips" else 0 :] = False
        return Choice(pair, row, column, flips)

    def _crops(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Random places: all scales are equally likely, then all places within their images."""
        places = self.shape - self.patch + 1  # (pairs, 2)
        weight = places.prod(1).double().reshape(len(self.scales), -1)
        pair = torch.multinomial((weight / weight.sum(1, True)).ravel(), count, True, generator=generator)
        where = torch.rand(count, 2, generator=generator, dtype=torch.float64)
        row, column = (where * places[pair]).long().unbind(1)
        return pair, row, column

    def _grid(self, step: int, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Places that do not overlap: an epoch takes each once, in an order of its own."""
        number = torch.arange(step * count, (step + 1) * count)
        epoch, place = number // len(self), number % len(self)
        orders = {e: torch.randperm(len(self), generator=make_generator(seed, -1 - e)) for e in epoch.unique().tolist()}
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
        top, left, *flips, hr_start, hr_stride, ilr_start, ilr_stride = table.to(self.device)[:, :, None, None]
        flip_rows, flip_columns, transpose = (flip.bool() for flip in flips)  # (B, 1, 1)
        side = torch.arange(self.patch, device=self.device)
        row, column = side[None, :, None], side[None, None, :]
        row, column = torch.where(transpose, column, row), torch.where(transpose, row, column)  # (B, P, P)
        row = top + torch.where(flip_rows, self.patch - 1 - row, row)
        column = left + torch.where(flip_columns, self.patch - 1 - column, column)
        ilr = self.ilr[ilr_start + row * ilr_stride + column]
        hr = self.hr[hr_start + row * hr_stride + column]
        return ilr[:, None], hr[:, None]


def make_generator(seed: int, number: int) -> torch.Generator:
    """A random generator of its own for each (seed, number)."""
    entropy = np.random.SeedSequence((seed, number % 2**64)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(entropy[0] >> np.uint64(1)))


def _starts(sizes: Sequence[int]) -> NDArray[np.int64]:
    """Where arrays of these sizes begin when they lie one behind another."""
    return np.cumsum([0, *sizes])[:-1]


def interpolate_back(image: NDArray[Any], scale: float) -> NDArray[np.float32]:
    """The interpolated image that belongs to a sharp one: reduced and enlarged again, in floating point."""
    hr, _ = crop_to_scale(np.asarray(image, np.float64), scale_pair(scale))
    return resize(degrade(hr, scale), scale, output_shape=(hr.shape[-2], hr.shape[-1])).astype(np.float32)
