"""Tell whether two images of one field of view lie on each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

REGISTERED = 512  # the side of the part of a pair that is looked at for a shift
Plane = NDArray[np.float32]


def check_registered(ilr: Plane, hr: Plane, name: str) -> None:
    """Raise if the images of a pair match clearly better when one is shifted.

    Raises
    ------
    ValueError
        Telling the shift.
    """
    from skimage.registration import phase_cross_correlation

    ilr, hr = centre(ilr, REGISTERED), centre(hr, REGISTERED)
    found = phase_cross_correlation(hr, ilr, normalization=None)[0]  # type: ignore[no-untyped-call]
    rows, columns = (round(shift) for shift in found)
    if max(abs(rows), abs(columns)) <= 1 or max(abs(rows), abs(columns)) >= min(hr.shape) // 2:
        return
    moved, there = _overlap(ilr, -rows, -columns), _overlap(hr, rows, columns)
    if _correlation(moved, there) > _correlation(ilr, hr) + 0.02:
        msg = f"`pairs` must be registered, got a sharp image that is shifted by {rows} rows and {columns} columns in "
        msg += f"{name}. Register the images first."
        raise ValueError(msg)


def centre(plane: Plane, side: int) -> Plane:
    """The middle of a plane, up to `side` pixels a side."""
    rows, columns = (slice(max(0, n - side) // 2, max(0, n - side) // 2 + side) for n in plane.shape)
    return plane[rows, columns]


def _overlap(plane: Plane, rows: int, columns: int) -> Plane:
    """What is left of a plane when so many rows and columns are cut from its near (positive) or far edges."""
    cuts = (slice(max(n, 0), length + min(n, 0)) for n, length in zip((rows, columns), plane.shape, strict=True))
    return plane[tuple(cuts)]


def _correlation(first: Plane, second: Plane) -> float:
    if not (np.ptp(first) and np.ptp(second)):
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
