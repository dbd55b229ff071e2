"""What a network added to an image, and whether the result still agrees with it. No Qt, no napari."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from napari_vdsr._layers import Source
from napari_vdsr._work import stop_if

ADDED, CONSISTENCY = "added", "consistency"


@dataclass(frozen=True)
class Difference:
    """A signed difference, in units of the image.

    Attributes
    ----------
    kind : str
        `ADDED`: the result minus bicubic interpolation, on the grid of the result. `CONSISTENCY`: the result made
        small again, antialiased, minus the source, on the grid of the source.
    pixels : ndarray of float32
        Along the axes of the layer; colours are averaged.
    rms : float
        The root of the mean of its squares.
    spread : float
        The standard deviation of the source, to compare it with.
    """

    kind: str
    pixels: NDArray[np.float32]
    rms: float
    spread: float


def compare(kind: str, source: Source, scale: float, result: Any, cancelled: threading.Event) -> Iterator[Difference]:
    """Give the difference between a result and its source.

    Parameters
    ----------
    kind : str
        `ADDED` or `CONSISTENCY`; the latter for whole planes only.
    source : Source
        What was upscaled.
    scale : float
        By how much.
    result : array
        What came out.
    cancelled : Event
        Looked at between planes.
    """
    from vdsr_core import resize

    row, column = source.plane_axes
    leading = [axis for axis in range(len(source.part)) if axis not in (row, column)]
    lengths = source.result_shape(scale) if kind == ADDED else [p.stop - p.start for p in source.part]
    shape = tuple(lengths[: len(source.part)])
    needed, free = 4 * int(np.prod(shape, dtype=np.int64)), psutil.virtual_memory().available
    if needed > free:
        msg = f"{needed / 1e9:.1f} GB are needed for the difference, {free / 1e9:.1f} GB are free"
        raise MemoryError(msg)
    pixels = np.empty(shape, np.float32)
    spreads = []
    for index in np.ndindex(*(shape[axis] for axis in leading)):
        stop_if(cancelled)
        here: list[Any] = [slice(None)] * len(source.part)
        there: list[Any] = list(source.planes)
        for axis, i in zip(leading, index, strict=True):
            here[axis], there[axis] = i, source.part[axis].start + i
        image = _colours_first(np.asarray(source.data[tuple(there)]), source.rgb)
        sr = _colours_first(np.asarray(result[tuple(here)]), source.rgb)
        if kind == ADDED:
            ilr = resize(image, scale, window=source.window(scale))
            pixels[tuple(here)] = (sr - ilr).mean(0)
        else:
            pixels[tuple(here)] = (resize(sr, 1 / scale, output_shape=image.shape[1:]) - image).mean(0)
        spreads.append(float(image.std()))
    rms = float(np.sqrt(np.mean(np.square(pixels, dtype=np.float64))))
    yield Difference(kind, pixels, rms, float(np.mean(spreads)))


def _colours_first(plane: NDArray[Any], rgb: bool) -> NDArray[np.float32]:
    """A plane as (colours, rows, columns); alpha is left out."""
    plane = np.moveaxis(plane[..., :3], -1, 0) if rgb else plane[None]
    return plane.astype(np.float32)


def limits(pixels: NDArray[np.float32]) -> tuple[float, float]:
    """A symmetric window to show a difference in, which a few extreme pixels do not widen."""
    sample = np.abs(pixels[..., :: max(1, pixels.shape[-1] // 512)])
    high = float(np.percentile(sample, 99.5)) or float(sample.max()) or 1.0
    return -high, high
