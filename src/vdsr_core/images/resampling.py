"""Bicubic resampling, equal to MATLAB's ``imresize``, of a whole image or of a window of the result."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vdsr_core.arguments import check_integer, is_integer
from vdsr_core.images.intensity import as_image, cast
from vdsr_core.memory import check_free


@dataclass(frozen=True)
class Taps:
    """Which input pixels make each output pixel along one axis, and with what weight."""

    source: slice  # the input pixels that are read
    index: NDArray[np.int64]  # (P, N), positions within `source`: tap p of output pixel n
    weight: NDArray[np.float64]  # (P, N); the P taps of a pixel sum to 1


def cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic kernel with a = -1/2 (Eq. 15 of the reference in `resize`), zero from a distance of 2 on."""
    x = np.abs(distance)
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))


def box(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The kernel of a mean over the area of a pixel, as a camera bins its pixels."""
    return (np.abs(distance) <= 0.5).astype(np.float64)


def lanczos(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lanczos' kernel with three lobes a side: a sinc times a wider sinc, zero from a distance of 3 on."""
    return np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)


# How far each kernel reaches, in pixels of the coarser grid.
KERNELS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], float]] = {
    "bicubic": (cubic, 2.0),
    "box": (box, 0.5),
    "lanczos": (lanczos, 3.0),
}


def make_taps(length: int, scale: float, start: int, stop: int, kernel: str = "bicubic") -> Taps:
    """Taps of the output pixels `start` to `stop` of an axis of `length` input pixels that is resized by `scale`.

    The centre of output pixel i lies at (i + 0.5) / scale - 0.5 in the input. Each output pixel depends on its own
    index only, so the taps of a window are those of the whole axis, bit for bit. The kernel, one of `KERNELS`, is
    stretched when `scale` is below 1 (antialiasing). Edges are mirrored, including the edge pixel.
    """
    weigh, reach = KERNELS[kernel]
    stretch = max(1.0, 1 / scale)
    count = math.ceil(2 * reach * stretch)
    centre = (np.arange(start, stop) + 0.5) / scale - 0.5  # (N,)
    first = np.floor(centre - reach * stretch).astype(np.int64) + 1
    position = first + np.arange(count)[:, None]  # (P, N)
    weight = weigh((centre - position) / stretch)
    # Summed tap by tap: np.sum may group its terms by the shape of the array.
    total = np.zeros_like(centre)
    for row in weight:
        total += row
    weight /= total
    position %= 2 * length
    position = np.minimum(position, 2 * length - 1 - position)
    low, high = int(position.min()), int(position.max()) + 1
    return Taps(slice(low, high), position - low, weight)


def apply_taps(values: NDArray[Any], taps: Taps, axis: int) -> NDArray[Any]:
    """Weighted sums of pixels along an axis (-2 or -1), added tap by tap in the dtype of `values`, a float.

    `values` hold the pixels of ``taps.source`` along that axis; the result has as many as there are taps.
    """
    weights = taps.weight.astype(values.dtype)
    if axis == -2:
        weights = weights[:, :, None]
    total: NDArray[Any] = np.take(values, taps.index[0], axis=axis) * weights[0]
    for index, weight in zip(taps.index[1:], weights[1:], strict=True):
        total += np.take(values, index, axis=axis) * weight
    return total


def scale_pair(scale: object) -> tuple[float, float]:
    """`scale` as (rows, columns), checked to be one or two positive finite numbers."""
    pair = (scale, scale) if isinstance(scale, Real) else scale
    if isinstance(pair, np.ndarray):
        pair = tuple(pair.tolist()) if pair.ndim else (pair.item(), pair.item())
    if not isinstance(pair, tuple | list) or not all(isinstance(s, Real) and not isinstance(s, bool) for s in pair):
        msg = f"`scale` must be a number or a pair of numbers (rows, columns), got {scale!r}. Try 2."
        raise TypeError(msg)
    try:
        numbers = tuple(float(s) for s in pair)
    except OverflowError:  # an integer with hundreds of digits
        numbers, scale = (math.inf,), math.inf
    if len(numbers) != 2 or not all(math.isfinite(s) and s > 0 for s in numbers):
        msg = f"`scale` must be a positive finite number or a pair of them (rows, columns), got {scale!r}. Try 2."
        raise ValueError(msg)
    return numbers


def scaled_shape(shape: tuple[int, int], scale: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns of an image of `shape` resized by `scale`: ``round(scale * n)``, at least 1."""
    rows, columns = (max(1, round(min(s * n, sys.maxsize / 2))) for s, n in zip(scale, shape, strict=True))
    return rows, columns


def check_shape(shape: Any) -> tuple[int, int]:
    """The rows and columns of an `output_shape`, checked to be two integers of at least 1."""
    if not isinstance(shape, tuple | list) or len(shape) != 2:
        msg = f"`output_shape` must be (rows, columns), got {shape!r}. Leave it out for round(scale * n)."
        raise TypeError(msg)
    return check_integer("output_shape", shape[0], 1), check_integer("output_shape", shape[1], 1)


def check_window(window: Any, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a window, None being the whole, checked to hold pixels of a result of `shape`."""
    parts = (slice(None), slice(None)) if window is None else window
    if not (isinstance(parts, tuple | list) and len(parts) == 2 and all(map(_is_slice, parts))):
        msg = f"`window` must be two slices of integers, rows and columns of the result, got {window!r}. "
        msg += "Leave it out for the whole."
        raise TypeError(msg)
    rows, columns = (slice(*part.indices(n)[:2]) for part, n in zip(parts, shape, strict=True))
    if rows.start >= rows.stop or columns.start >= columns.stop or any(part.step not in (None, 1) for part in parts):
        msg = f"`window` must hold pixels of the result, {shape}, in steps of 1, got {window}. "
        msg += "Leave it out for the whole."
        raise ValueError(msg)
    return rows, columns


def _is_slice(part: Any) -> bool:
    """Whether `part` is a slice of integers."""
    return isinstance(part, slice) and all(n is None or is_integer(n) for n in (part.start, part.stop, part.step))


def _check_memory(shape: tuple[int, ...], scale: tuple[float, float], output: tuple[int, int]) -> None:
    """Raise if `output` pixels of an image of `shape`, and what makes them, cannot fit in memory."""
    rows, columns = (float(min(n, sys.maxsize)) for n in output)
    taps = sum(4 * max(1.0, 1 / s) * n for s, n in zip(scale, (rows, columns), strict=True))
    needed = 8 * (2 * taps + math.prod(shape[:-2]) * rows * (shape[-1] + 2 * columns))
    check_free(needed, "`image`, resized,", "Use a scale nearer to 1, or a `window`.")


def _apply_both(values: NDArray[Any], rows: Taps, columns: Taps) -> NDArray[Any]:
    """`apply_taps` along rows and columns; finite pixels give finite ones, clipped where the dtype ends."""
    with np.errstate(over="ignore", invalid="ignore"):
        out = apply_taps(apply_taps(values, rows, axis=-2), columns, axis=-1)
        lost = ~np.isfinite(out)
        if lost.any():  # a sum beyond the largest number; a power of 2 changes no other digit
            small = apply_taps(apply_taps(values / 16, rows, axis=-2), columns, axis=-1)
            ends = np.finfo(out.dtype)
            np.clip(small, ends.min / 16, ends.max / 16, out=small, where=np.isfinite(small))
            out[lost] = small[lost] * 16
    return out


def resize(
    image: ArrayLike,
    scale: float | tuple[float, float],
    *,
    output_shape: tuple[int, int] | None = None,
    window: tuple[slice, slice] | None = None,
) -> NDArray[Any]:
    """Resize an image by bicubic interpolation [1]_, as MATLAB's ``imresize`` does.

    Parameters
    ----------
    image : (..., M, N) array_like
        Image of any real dtype; the last two axes are rows and columns, the others are independent.
    scale : float or (float, float)
        Output pixels per input pixel, for both axes or for (rows, columns). Below 1 the kernel is antialiased.
    output_shape : (int, int), optional
        Rows and columns of the result, ``round(scale * n)`` by default. It only says where the result ends:
        pixel positions follow from `scale`.
    window : (slice, slice), optional
        Rows and columns of the result to compute, by default all. Equal, bit for bit, to the same window of
        the whole result.

    Returns
    -------
    out : (..., rows, columns) ndarray
        Same dtype as `image`; integers are rounded and saturated. Finite pixels give finite ones; NaN and infinity
        spread to the pixels that are made of them.

    Raises
    ------
    TypeError
        If `image` is not of a real dtype or `scale` is not made of numbers.
    ValueError
        If `scale` is not positive and finite, `image` has no rows and columns, or `output_shape` or `window` is empty.
    MemoryError
        If the result cannot fit in memory.

    References
    ----------
    .. [1] R. G. Keys, "Cubic Convolution Interpolation for Digital Image Processing", IEEE Transactions on
           Acoustics, Speech, and Signal Processing 29 (1981). :doi:`10.1109/TASSP.1981.1163711`

    Examples
    --------
    >>> import numpy as np
    >>> resize(np.array([[0.0, 1.0]]), 2).round(3)
    array([[-0.094,  0.203,  0.797,  1.094],
           [-0.094,  0.203,  0.797,  1.094]])
    """
    image = as_image(image)
    pair = scale_pair(scale)
    shape = image.shape[-2:]
    shape_out = check_shape(scaled_shape(shape, pair) if output_shape is None else output_shape)
    first, second = check_window(window, shape_out)
    _check_memory(image.shape, pair, (first.stop - first.start, second.stop - second.start))
    rows = make_taps(shape[0], pair[0], first.start, first.stop)
    columns = make_taps(shape[1], pair[1], second.start, second.stop)
    values = image[..., rows.source, columns.source]
    values = values.astype(np.float32 if image.dtype == np.float32 else np.float64, copy=False)
    out = _apply_both(values, rows, columns)
    return out if out.dtype == image.dtype else cast(out, image.dtype)
