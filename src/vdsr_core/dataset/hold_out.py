"""Measure how well a network restores parts of images that are held out of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.dataset.degraded import degrade_at_random, estimate_condition
from vdsr_core.dataset.interpolation import Degrade, enlarge, reduce_image
from vdsr_core.dataset.planes import Pair, Plane
from vdsr_core.dataset.registration import busiest_window
from vdsr_core.evaluation import psnr, restore
from vdsr_core.images.degradation import crop_to_scale, degrade
from vdsr_core.images.resampling import scale_pair
from vdsr_core.network.devices import choose_device
from vdsr_core.network.engine import Engine
from vdsr_core.network.model import VDSR, Condition

# The side of a held-out piece in pixels, how many `fine_tune` measures, and how many of one plane, at most.
PIECE, PIECES, OF_PLANE = 192, 8, 4
SEED = 7  # of the degraded versions of the pieces


@dataclass(frozen=True)
class Preview:
    """A held-out part of an image and how it is restored; 0 to 1 is the range of the image.

    Attributes
    ----------
    scale : str
        The scale by which it was reduced, or ``"pairs"``.
    ilr, before, sr, hr : (M, N) ndarray
        The part as interpolated, restored by the network before the training and after this step, and sharp.
    """

    scale: str
    ilr: NDArray[np.float64]
    before: NDArray[np.float64]
    sr: NDArray[np.float64]
    hr: NDArray[np.float64]


@dataclass(frozen=True)
class Piece:
    """A held-out part of an image, interpolated and sharp: (M, N) each, in [0, 1]."""

    scale: str  # its factor, and whether it is degraded
    ilr: NDArray[np.float64]
    hr: NDArray[np.float64]
    border: int  # pixels at each edge that do not count
    condition: Condition  # what a network with maps is told of it
    factor: float  # the scale as a number; 0 for pairs and degraded pieces, whose errors are not predicted

    def psnr(self, sr: NDArray[np.float64]) -> float:
        """Peak signal-to-noise ratio of a restored piece in dB, at most 120."""
        return min(120.0, psnr(self.hr, sr, data_range=1, crop_border=self.border))


class HoldOut:
    """Parts of images that are not trained with, and how well a network restores them.

    A few pieces of the planes, at most `pieces` of up to 192 x 192 pixels, are measured: the middle of each image, or
    up to four pieces that are spread over it where there are few images. They are reduced by each of the `scales`, by
    `degrade` if it is given. As many pieces of `pairs`, as `find_pairs` gives them, are measured. If `degraded`, a
    degraded version of each piece is measured, too, under a name such as ``"2 degraded"``, and the network is told what
    is estimated of each image.

    Attributes
    ----------
    bicubic : dict
        PSNR of bicubic interpolation for each scale.
    last : list of ndarray
        The pieces as the last network that was validated restored them.
    """

    def __init__(
        self,
        planes: Sequence[Plane],
        scales: Sequence[float],
        pairs: Sequence[Pair] = (),
        *,
        degrade: Degrade = degrade,
        pieces: int = PIECES,
        degraded: bool = False,
        device: str | None = None,
    ) -> None:
        self.device = choose_device(device)
        parts = [plane[window] for plane in planes for window in windows(plane, pieces // len(planes))]
        crops = [(ilr[at], hr[at], ratio) for ilr, hr, ratio in pairs for at in windows(hr, pieces // len(pairs))]
        self.pieces = []
        for number, hr in enumerate(_some(parts, pieces)):
            for scale in scales:
                low = reduce_image(hr, scale, degrade)
                self.pieces.append(make_piece(scale, hr, low, estimate_condition(low) if degraded else Condition()))
                if degraded:
                    rng = np.random.default_rng((SEED, number))  # the same for each scale
                    low, done = degrade_at_random(hr.astype(np.float64), scale, rng)
                    told = estimate_condition(low, done.compression)
                    self.pieces.append(make_piece(scale, hr, low, told, " degraded"))
        self.pieces += [make_pair_piece(*pair) for pair in _some(crops, pieces)]
        self.pieces = [piece for piece in self.pieces if np.ptp(piece.hr)]
        if not self.pieces:
            msg = "the held-out part must have detail, got a flat one: nothing can be measured there. In a single "
            msg += "image it is the end of the longer axis: crop the image, raise `hold_out`, or add images."
            raise ValueError(msg)
        self.bicubic = self.means([piece.ilr for piece in self.pieces])
        self.last: list[NDArray[np.float64]] = []

    def restore(self, model: VDSR, *, self_ensemble: bool = False) -> list[NDArray[np.float64]]:
        """The pieces as a network restores them."""
        engine = Engine(model, self.device, half=False)
        return [
            restore(each.ilr * 255, engine, each.condition, self_ensemble=self_ensemble) / 255 for each in self.pieces
        ]

    def means(self, restored: Sequence[NDArray[np.float64]]) -> dict[str, float]:
        """The mean PSNR of restored pieces in dB, for each scale."""
        groups: dict[str, list[float]] = {}
        for piece, sr in zip(self.pieces, restored, strict=True):
            groups.setdefault(piece.scale, []).append(piece.psnr(sr))
        return {scale: float(np.mean(group)) for scale, group in groups.items()}

    def gain(self, scores: Mapping[str, float]) -> float:
        """The mean over the scales of what `means` gave, less that of bicubic interpolation."""
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


def windows(plane: Plane, count: int) -> list[tuple[slice, slice]]:
    """Where a plane has detail: up to `count` pieces, and four, that are spread over it, or its busiest one.

    Examples
    --------
    >>> plane = np.arange(400_000.0).reshape(400, 1000)
    >>> [(rows.start, columns.start) for rows, columns in windows(plane, 3)]
    [(104, 70), (104, 404), (104, 737)]
    """
    count, room = max(1, min(count, OF_PLANE)), [max(1, length // PIECE) for length in plane.shape]
    short, long = np.argsort(plane.shape, kind="stable")
    numbers = [0, 0]
    numbers[short] = min(room[short], max(1, round(math.sqrt(count * plane.shape[short] / plane.shape[long]))))
    numbers[long] = min(room[long], count // numbers[short])
    spread = [
        (rows, columns)
        for rows in _spread(plane.shape[0], numbers[0])
        for columns in _spread(plane.shape[1], numbers[1])
        if np.ptp(plane[rows, columns])
    ]
    return spread or [busiest_window(plane, PIECE)]


def _spread(length: int, count: int) -> list[slice]:
    """So many pieces of a length, one in the middle of each of its equal parts."""
    side = min(PIECE, length)
    starts = [int((2 * i + 1) * length / count - side) // 2 for i in range(count)]
    return [slice(start, start + side) for start in starts]


def make_piece(scale: float, hr: Plane, low: NDArray[Any], condition: Condition, kind: str = "") -> Piece:
    """A piece that was reduced, in double precision."""
    ilr, sharp = enlarge(low, hr, scale).astype(float), crop_to_scale(hr, scale_pair(scale))[0].astype(float)
    told = condition._replace(scale=scale)
    return Piece(f"{scale:.3g}{kind}", ilr, sharp, find_border(hr, scale), told, 0.0 if kind else scale)


def make_pair_piece(ilr: Plane, hr: Plane, ratio: float) -> Piece:
    """A piece of a registered pair, in double precision."""
    return Piece("pairs", ilr.astype(float), hr.astype(float), find_border(hr, 4), Condition(scale=ratio), 0.0)


def find_border(plane: Plane, scale: float) -> int:
    """Pixels at each edge that do not count."""
    side: int = min(plane.shape)
    return min(math.ceil(scale), (side - 1) // 4)


def _some(items: list[Any], count: int) -> list[Any]:
    """Up to `count` of the items, evenly spread."""
    return items[:: math.ceil(len(items) / count)] if items else []
