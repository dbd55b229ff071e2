"""Compute windows of a streamed target again, and compare."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.formats import ome_zarr
from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.ome_tiff import open_levels
from vdsr_core.formats.ome_zarr import coarsen
from vdsr_core.network.checkpoint import fingerprint, to_network
from vdsr_core.network.devices import SharedEngine
from vdsr_core.network.model import VDSR
from vdsr_core.streaming.plan import Index, Plan
from vdsr_core.streaming.shards import ShardMaker
from vdsr_core.streaming.source import open_source
from vdsr_core.streaming.workspace import provenance


@dataclass(frozen=True)
class Check:
    """A window of a target that has been computed again.

    Attributes
    ----------
    level : int
        The level of the pyramid.
    window : tuple of slice
        The place of the window, in the order of the target's axes.
    largest : float
        The largest difference, in the image's units.
    allowed : float
        The largest difference that counts as rounding: 1e-5 of the channel's range, 1e-3 on CUDA; at least 1 for
        integers.
    """

    level: int
    window: tuple[slice, ...]
    largest: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the difference is rounding."""
        return self.largest <= self.allowed


def verify(
    target: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | ImageFile | None = None,
    model: VDSR | str | os.PathLike[str] | None = None,
    samples: int = 8,
    seed: int = 0,
    device: str | None = None,
) -> Iterator[Check]:
    """Compute windows of a target again and compare: tiles, places where shards meet, places of the coarser levels.

    Parameters
    ----------
    target : path
        A file or folder that `stream` made.
    source : path or ImageFile, optional
        Where the source is now, if it was moved.
    model : VDSR, str or path, optional
        The network of the plan.
    samples : int, optional
        Number of windows of each kind.
    seed : int, optional
        Seed of the random places.
    device : str, optional
        As in `super_resolve`. Verify on a GPU what a GPU made, because it computes in half precision.

    Yields
    ------
    Check

    Raises
    ------
    ValueError
        If the target was not made by `stream`, or not from this source and network.

    Examples
    --------
    See `stream`.
    """
    known = provenance(Path(target))
    if not known:
        msg = f"{target} must say by which plan it was made, got no such entry. Verify results of `stream`."
        raise ValueError(msg)
    known.pop("signature", None)
    job = Plan.from_json(json.dumps(known))
    network = to_network(model)
    if fingerprint(network) != job.network:
        msg = "`model` must be the network of the target, got another one. Give that one."
        raise ValueError(msg)
    maker = ShardMaker(
        job, open_source(job.source if source is None else source, job.axes, job.name), SharedEngine(network, device)
    )
    return run_checks(maker, Path(target), samples, np.random.default_rng(seed))


def run_checks(maker: ShardMaker, target: Path, samples: int, rng: np.random.Generator) -> Iterator[Check]:
    """Compute windows again, and compare."""
    job = maker.plan
    levels: list[Any]
    if job.tiff:
        levels = open_levels(target, job.letters)
    else:
        levels = [ome_zarr.open_level(target, level) for level in range(job.levels)]
    exact = np.dtype(job.dtype).kind in "ui"
    with maker.engine as engine:
        precision = 1e-3 if engine.device.type == "cuda" else 1e-5
    drawn = [(job.block, True) if number % 2 else (job.chunk, False) for number in range(2 * samples)]
    for window in differing(draw_window(job, rng, sizes, shifted=shifted) for sizes, shifted in drawn):
        low, high = job.in_range[window[job.letters.index("C")].start if "C" in job.letters else 0]
        rounding = precision * (high - low)
        found, wanted = np.asarray(levels[0][window]), maker.compute(window, maker.read(maker.needed(window)))
        yield Check(0, window, find_difference(found, wanted), max(1.0, rounding) if exact else rounding)
    for level in range(1, job.levels):
        whole = job.shapes[level]
        corners = ([int(rng.integers(n)) for n in whole] for _ in range(samples))
        for window in differing(cut_window(corner, job.chunk, whole) for corner in corners):
            found, wanted = np.asarray(levels[level][window]), coarsen(levels[level - 1], window)
            yield Check(level, window, find_difference(found, wanted), 0.0)


def differing(windows: Iterable[tuple[slice, ...]]) -> Iterator[tuple[slice, ...]]:
    """Each window once: a small level has few."""
    seen: list[tuple[slice, ...]] = []
    for window in windows:
        if window not in seen:
            seen.append(window)
            yield window


def find_difference(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The largest difference of pixels; infinite where only one of two is NaN."""
    differences = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    differences[np.isnan(differences)] = np.inf
    differences[np.isnan(found) & np.isnan(wanted)] = 0
    return float(differences.max())


def draw_window(job: Plan, rng: np.random.Generator, sizes: Index, *, shifted: bool) -> tuple[slice, ...]:
    """A random tile of the finest level, or the surroundings of a corner of a shard."""
    corner = [int(rng.integers(-(-n // size))) * size for n, size in zip(job.shape, sizes, strict=True)]
    if shifted:
        corner = [
            max(0, start - job.tile // 2) if letter in "YX" else start
            for start, letter in zip(corner, job.letters, strict=True)
        ]
    return cut_window(corner, job.chunk, job.shape)


def cut_window(corner: Sequence[int], sizes: Index, shape: Index) -> tuple[slice, ...]:
    """A window of some size, or less at the edge of the image."""
    return tuple(slice(start, min(start + size, n)) for start, size, n in zip(corner, sizes, shape, strict=True))
