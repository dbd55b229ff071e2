"""Tell whether two images of one field of view lie on each other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

REGISTERED = 512  # the side of the part of a pair that is looked at for a shift
ALIKE, CLEAR = 0.2, 0.5  # the least correlation of two images of one field of view; that of a shift which is certain
Plane = NDArray[np.float32]


def check_registered(ilr: Plane, hr: Plane, name: str) -> None:
    """Raise if the images of a pair hardly resemble each other, or match clearly better when one is shifted.

    Where the sharp one has most contrast, they are compared without their finest detail: noise does not count.
    """
    from skimage.registration import phase_cross_correlation

    window = busiest_window(hr, REGISTERED)
    ilr, hr = (gaussian_filter(plane[window], 2, mode="nearest") for plane in (ilr, hr))
    found = phase_cross_correlation(hr, ilr, normalization=None)[0]  # type: ignore[no-untyped-call]
    rows, columns = (round(shift) for shift in found)
    there, best = _correlation(ilr, hr), 0.0
    if max(abs(rows), abs(columns)) < min(hr.shape) // 2:
        best = _correlation(_overlap(ilr, -rows, -columns), _overlap(hr, rows, columns))
    if there < ALIKE and best < CLEAR:
        msg = f"`pairs` must show one field of view, got images that hardly resemble each other in {name} (correlation "
        msg += f"{there:.2f}). Check which belong together, and register them."
        raise ValueError(msg)
    if max(abs(rows), abs(columns)) > 1 and best > there + 0.02:
        msg = f"`pairs` must be registered, got a sharp image that is shifted by {rows} rows and {columns} columns in "
        msg += f"{name}. Register the images first."
        raise ValueError(msg)


def busiest_window(plane: Plane, side: int) -> tuple[slice, slice]:
    """The window of up to `side` pixels a side with the largest standard deviation, of a few that cover the plane."""
    starts = [np.linspace(0, max(0, n - side), math.ceil(n / side)).astype(int).tolist() for n in plane.shape]
    windows = [(slice(row, row + side), slice(column, column + side)) for row in starts[0] for column in starts[1]]
    return max(windows, key=lambda window: float(plane[window].std()))


def _overlap(plane: Plane, rows: int, columns: int) -> Plane:
    """What is left of a plane when so many rows and columns are cut from its near (positive) or far edges."""
    cuts = (slice(max(n, 0), length + min(n, 0)) for n, length in zip((rows, columns), plane.shape, strict=True))
    return plane[tuple(cuts)]


def _correlation(first: Plane, second: Plane) -> float:
    if not (np.ptp(first) and np.ptp(second)):
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
