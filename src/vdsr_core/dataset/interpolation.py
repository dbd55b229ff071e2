"""The interpolated images that a network is trained with, of low-resolution ones that are made or given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.arguments import check_integer, check_span
from vdsr_core.dataset.degraded import degrade_at_random, estimate_condition
from vdsr_core.images.degradation import crop_to_scale, degrade
from vdsr_core.images.resampling import resize, scale_pair
from vdsr_core.network.model import Condition

Degrade = Callable[[NDArray[Any], float], NDArray[Any]]
Interpolated = tuple[NDArray[np.float32], tuple[Condition, Condition]]  # with what was done, and what is estimated

bicubic = degrade
AHEAD = 256  # images that are interpolated before they are wanted, at most


def draw_scales(count: int, scale_range: tuple[float, float] | None, draws: int, seed: int) -> list[list[float]]:
    """For each part of the range, a scale for each of `count` images."""
    if scale_range is None:
        return []
    low, high = check_span("scale_range", scale_range, "Try (1.5, 4).", above=1)
    draws = check_integer("draws", draws, 1)
    place = (np.arange(draws)[:, None] + np.random.default_rng((seed, 1)).random((draws, count))) / draws
    scales: list[list[float]] = (low + (high - low) * place).tolist()
    return scales


def interpolate_groups(
    images: Sequence[NDArray[Any]],
    groups: Sequence[Sequence[float]],
    pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    degrade: Degrade,
    degraded: int,
    seed: int,
) -> Iterator[Interpolated]:
    """All that `Patches` takes its patches from.

    Each group has a scale for each image; the first of ``1 + degraded`` equal parts of the groups are not degraded. The
    pairs come last.
    """
    for number, scales in enumerate(groups):
        if number * (1 + degraded) < len(groups):
            yield from interpolate_all(images, scales, degrade, bool(degraded))
        else:
            yield from interpolate_degraded(images, scales, (seed, number))
    for number, (low, high) in enumerate(pairs):
        yield interpolate_low(low, high, f"pair {number}"), (Condition(), Condition())


def interpolate_all(
    images: Sequence[NDArray[Any]], scales: Sequence[float], degrade: Degrade, estimate: bool = False
) -> Iterator[Interpolated]:
    """Each image reduced and enlarged again, and what is known and, if asked for, estimated of it.

    It runs on all cores; in turn for another `degrade` than ours.
    """

    def make(image: NDArray[Any], scale: float) -> Interpolated:
        low = reduce_image(image, scale, degrade)
        return enlarge(low, image, scale), (Condition(), estimate_condition(low) if estimate else Condition())

    if degrade is bicubic:
        yield from map_ahead(make, images, scales)
    else:
        yield from map(make, images, scales)


def interpolate_degraded(
    images: Sequence[NDArray[Any]], scales: Sequence[float], seed: Sequence[int]
) -> Iterator[Interpolated]:
    """The same for a degraded version of each image, which follows from the seed and its number."""

    def make(image: NDArray[Any], scale: float, number: int) -> Interpolated:
        low, done = degrade_at_random(np.asarray(image, np.float64), scale, np.random.default_rng((*seed, number)))
        return enlarge(low, image, scale), (done, estimate_condition(low, done.compression))

    yield from map_ahead(make, images, scales, range(len(images)))


def map_ahead(function: Callable[..., Any], *arguments: Sequence[Any]) -> Iterator[Any]:
    """`map` on all cores, some results ahead of what is wanted."""
    with ThreadPoolExecutor() as pool:
        for first in range(0, len(arguments[0]), AHEAD):  # the results wait in memory
            yield from pool.map(function, *(argument[first : first + AHEAD] for argument in arguments))


def reduce_image(image: NDArray[Any], scale: float, degrade: Degrade) -> NDArray[Any]:
    """The low-resolution image of a sharp one, in floating point."""
    image = np.asarray(image, np.float64)
    hr, shape = crop_to_scale(image, scale_pair(scale))
    low = degrade(image, scale)
    if low.shape != shape:
        msg = f"`degrade` must give floor(n / scale) pixels, {shape} for {hr.shape} and {scale:g}, got {low.shape}."
        raise ValueError(msg)
    return low


def enlarge(low: NDArray[Any], image: NDArray[Any], scale: float) -> NDArray[np.float32]:
    """A low-resolution image on the grid of the sharp one that it was made from."""
    hr, _ = crop_to_scale(image, scale_pair(scale))
    return resize(low, scale, output_shape=(hr.shape[-2], hr.shape[-1])).astype(np.float32)


def interpolate_low(low: NDArray[Any], high: NDArray[Any], name: str = "pair") -> NDArray[np.float32]:
    """The low-resolution image of a registered pair on the grid of the sharp one; `name` is for the message."""
    rows, columns = (n / m for n, m in zip(high.shape, low.shape, strict=True))
    if min(rows, columns) < 1 or abs(rows - columns) * min(low.shape) > 1:  # more than rounding explains
        msg = f"`pairs` must show one field of view, the second image larger by one factor, got shapes {low.shape} and "
        msg += f"{high.shape} in {name}. Register and crop them."
        raise ValueError(msg)
    shape = (high.shape[0], high.shape[1])
    return resize(low.astype(np.float64), (rows, columns), output_shape=shape).astype(np.float32)
