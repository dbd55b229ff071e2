"""Pixels without a value (NaN): filled for the network, and NaN again in the result."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate

REACH = 4  # pixels of the image over which known values are spread into unknown ones
POLICIES = ("raise", "keep")


def check_policy(nan: Any) -> bool:
    """Whether pixels that are NaN are kept, as the option `nan` says, instead of refused."""
    if nan not in POLICIES:
        msg = f"`nan` must be 'raise' or 'keep', got {nan!r}. Use 'keep' for images with pixels without a value."
        raise ValueError(msg)
    return bool(nan == "keep")


def widen(part: slice, length: int) -> slice:
    """What the values in a part of an axis of `length` pixels depend on when they are filled."""
    return slice(max(0, part.start - REACH), min(length, part.stop + REACH))


def fill(values: NDArray[Any], rest: float) -> NDArray[Any]:
    """Replace NaN by the mean of the known neighbours, ring by ring, up to `REACH` pixels deep, then by `rest`.

    A value depends on the pixels (..., M, N) that are at most `REACH` rows and columns away. So a window of the filled
    image equals the filled window, apart from such a margin.

    Examples
    --------
    >>> fill(np.array([[1, np.nan, 3, np.nan, np.nan, np.nan, np.nan, np.nan]]), 0)
    array([[1., 2., 3., 3., 3., 3., 3., 0.]])
    """
    values = values.astype(np.float64)
    around = np.ones((1,) * (values.ndim - 2) + (3, 3))
    for _ in range(REACH):
        unknown = np.isnan(values)
        if not unknown.any():
            return values
        # An eighth each, so that the sum of eight neighbours is finite.
        total = correlate(np.where(unknown, 0, values / 8), around, mode="constant")
        count = correlate((~unknown).astype(np.float64), around, mode="constant")
        found = unknown & (count > 0)
        values[found] = total[found] * (8 / count[found])
    values[np.isnan(values)] = rest
    return values


def nearest(length: int, scale: float, part: slice) -> NDArray[np.intp]:
    """The pixel of an axis of the image that is nearest to each pixel of a part of the same axis of the result."""
    centres = (np.arange(part.start, part.stop) + 0.5) / scale  # in pixels of the image, whose first begins at 0
    return np.minimum(np.floor(centres).astype(np.intp), length - 1)
