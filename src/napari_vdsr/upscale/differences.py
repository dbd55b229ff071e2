"""What a network added to an image, and whether the result still agrees with it. No Qt, no napari."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_vdsr.background.pytorch import load_network, stop_if
from napari_vdsr.layers.image_layers import Source, core_channels
from vdsr_core import free_memory

ADDED, CONSISTENCY, EXPECTED = "added", "consistency", "expected"
REACH = 3  # pixels of the result around one that its expected error depends on
MARGIN = 3  # pixels of the source that bicubic interpolation, or its opposite, reaches to each side
SIMPLE = 100  # the largest denominator of a scale of which parts can be compared


@dataclass(frozen=True)
class Difference:
    """A signed difference, or the expected size of one, in units of the image.

    The kind `ADDED` is the result minus bicubic interpolation, on the grid of the result; `CONSISTENCY` the result made
    small again, antialiased, minus the source, on the grid of the source; `EXPECTED` the expected absolute error of the
    result, on its grid.
    """

    kind: str
    source: Source  # the part that was compared
    pixels: NDArray[np.float32]  # along the axes of the layer; colours are averaged
    rms: float  # the root of the mean of its squares
    spread: float  # the standard deviation of the source, to compare it with


def compare(
    kind: str, source: Source, upscaled: Source, scale: float, result: Any, cancelled: threading.Event
) -> Iterator[Difference]:
    """Give the difference, `ADDED` or `CONSISTENCY`, between a result, or a part of it, and its source.

    `source` is what to compare, a part of `upscaled`. For `CONSISTENCY`, pixels that depend on what lies beside a
    region are left out. `result`, what came out, is only sliced. Raises ValueError if nothing is left to compare, or
    if the scale is not a simple fraction for a part, MemoryError if the difference does not fit in memory.
    """
    from vdsr_core import resize

    axes = source.plane_axes
    reads = [_read(kind, source.part[a], upscaled.part[a], source.data.shape[a], scale) for a in axes]
    source = source.within(*(wanted for _, wanted in reads))
    lengths = source.result_shape(scale) if kind == ADDED else [p.stop - p.start for p in source.part]
    shape = tuple(lengths[: len(source.part)])
    read = source.within(*(piece for piece, _ in reads))
    firsts = [piece.start for piece, _ in reads]
    grids = [source.grid(scale), read.grid(scale), upscaled.grid(scale)]
    pixels = _make_pixels(shape)
    spreads = []
    leading = [axis for axis in range(len(source.part)) if axis not in axes]
    for index in np.ndindex(*(shape[axis] for axis in leading)):
        stop_if(cancelled)
        at = dict(zip(leading, index, strict=True))

        def plane(parts: Sequence[slice], origins: Sequence[int], at: dict[int, int] = at) -> tuple[Any, ...]:
            """One plane of an array whose axes begin at `origins`, with the rows and columns of `parts`."""
            moved = (slice(p.start - o, p.stop - o) for p, o in zip(parts, origins, strict=True))
            return tuple(m.start + at[axis] if axis in at else m for axis, m in enumerate(moved))

        zeros = [0] * len(source.part)
        here = tuple(at.get(axis, slice(None)) for axis in range(len(shape)))
        image = _colours_first(np.asarray(source.data[plane(read.part, zeros)]), source.rgb)
        crop = [slice(source.part[a].start - f, source.part[a].stop - f) for a, f in zip(axes, firsts, strict=True)]
        wanted, origin = (grids[0] if kind == ADDED else grids[1]), [part.start for part in grids[2]]
        sr = _colours_first(np.asarray(result[plane(wanted, origin)]), source.rgb)
        if kind == ADDED:
            window = [slice(grids[0][a].start - grids[1][a].start, grids[0][a].stop - grids[1][a].start) for a in axes]
            pixels[here] = (sr - resize(image, scale, window=(window[0], window[1]))).mean(0)
        else:
            pixels[here] = (resize(sr, 1 / scale, output_shape=image.shape[1:]) - image).mean(0)[*crop]
        spreads.append(float(image[:, *crop].std()))
    rms = float(np.sqrt(np.mean(np.square(pixels, dtype=np.float64))))
    yield Difference(kind, source, pixels, rms, float(np.mean(spreads)))


def expect(
    source: Source,
    upscaled: Source,
    scale: float,
    result: Any,
    model: str | None,
    record: dict[str, Any],
    cancelled: threading.Event,
) -> Iterator[Difference]:
    """Give the expected error of a result, or of a part of it; the other arguments are as in `compare`.

    `model` is the network that was used, and `record` says how: what became 0 and 1 for it, and what was removed; a
    list has one pair for each position along the axis of channels. Raises ValueError if the errors of the network were
    not measured at such a scale.
    """
    from vdsr_core import predict_error

    network, axes, in_range = load_network(model), source.plane_axes, record["in_range"]
    noise, compression = record.get("noise", (0, 0)), record.get("compression", 0)
    part, whole = source.grid(scale), upscaled.grid(scale)
    pixels = _make_pixels(tuple(p.stop - p.start for p in part))
    reads, window = list(part), []
    for axis in axes:
        p, w = part[axis], whole[axis]
        reads[axis] = slice(max(p.start - REACH, w.start), min(p.stop + REACH, w.stop))
        window.append(slice(p.start - reads[axis].start, p.stop - reads[axis].start))
    channel = core_channels(upscaled) if isinstance(in_range, list) else None
    leading = [axis for axis in range(len(part)) if axis not in axes]
    for index in np.ndindex(*(pixels.shape[axis] for axis in leading)):
        stop_if(cancelled)
        at = dict(zip(leading, index, strict=True))
        there = tuple(
            p.start - w.start + at[axis] if axis in at else slice(p.start - w.start, p.stop - w.start)
            for axis, (p, w) in enumerate(zip(reads, whole, strict=True))
        )
        number = 0 if channel is None else part[channel].start + at[channel]
        pixels[tuple(at.get(axis, slice(None)) for axis in range(len(part)))] = predict_error(
            np.asarray(result[there]),
            scale,
            model=network,
            noise=noise[number] if np.ndim(noise) == 2 else noise,
            compression=compression,
            rgb=source.rgb,
            in_range=in_range if channel is None else in_range[number],
            window=(window[0], window[1]),
            nan="keep",
        )
    yield Difference(EXPECTED, source, pixels, float(np.sqrt(np.nanmean(np.square(pixels, dtype=np.float64)))), 0.0)


def _make_pixels(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An array for a difference, if there is memory for it."""
    needed, free = 4 * int(np.prod(shape, dtype=np.int64)), free_memory()
    if needed > free:
        msg = f"{needed / 1e9:.1f} GB are needed for the difference, {free / 1e9:.1f} GB are free"
        raise MemoryError(msg)
    return np.empty(shape, np.float32)


def _read(kind: str, wanted: slice, upscaled: slice, length: int, scale: float) -> tuple[slice, slice]:
    """Along an axis of the source, what to read for what is wanted, and what of that can be compared.

    The first pixel that is read begins where a pixel of the result does.
    """
    if wanted == slice(0, length):
        return wanted, wanted
    fraction = Fraction(scale).limit_denominator(SIMPLE)
    if abs(fraction - Fraction(scale)) > 1e-9:
        msg = f"the scale must be a simple fraction, such as 2.5, to compare a part, got {scale:g}. Compare the whole."
        raise ValueError(msg)
    step = fraction.denominator
    low, high = (0, length) if kind == ADDED else (upscaled.start, upscaled.stop)
    start = max((wanted.start - MARGIN) // step, -(-low // step)) * step
    stop = min(wanted.stop + MARGIN, high)
    first = max(wanted.start, start + MARGIN if start > 0 else 0)
    last = min(wanted.stop, stop - MARGIN if stop < length else length)
    if first >= last:
        msg = "nothing is left of the region without its edges, which depend on what lies beside it. Take a larger one."
        raise ValueError(msg)
    return slice(start, stop), slice(first, last)


def _colours_first(plane: NDArray[Any], rgb: bool) -> NDArray[np.float32]:
    """A plane as (colours, rows, columns); alpha is left out."""
    plane = np.moveaxis(plane[..., :3], -1, 0) if rgb else plane[None]
    return plane.astype(np.float32)


def limits(pixels: NDArray[np.float32]) -> tuple[float, float]:
    """A symmetric window to show a difference in, which a few extreme pixels do not widen."""
    sample = np.abs(pixels[..., :: max(1, pixels.shape[-1] // 512)])
    high = float(np.percentile(sample, 99.5)) or float(sample.max()) or 1.0
    return -high, high
