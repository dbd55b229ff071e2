"""Measured tables of the errors of a network, by the fine detail of its results."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = tuple[tuple[float, ...], ...]
Values = NDArray[np.float64]
CLOSE = 1e-3  # by how much a scale may lie outside the table, as a fraction


@dataclass(frozen=True)
class ErrorTable:
    """The errors that a network made on images held out of its training, from `calibrate`.

    All values are fractions of the range that is mapped to [0, 1]. Each of the three tables has one row for each scale.

    Attributes
    ----------
    scales : tuple of float
        Scales at which errors were measured, ascending.
    detail : tuple of tuple of float
        Local fine detail of the result, ascending.
    mean : tuple of tuple of float
        The mean absolute error for each amount of detail; it never falls as detail grows.
    bound : tuple of tuple of float
        The value that 90 % of the absolute errors stay below; it never falls either.
    noisy, compressed : tuple of (float, ErrorTable), optional
        The errors that are left where noise of a standard deviation, or a compression, was removed, ascending; empty
        for networks that remove none.

    Examples
    --------
    >>> table = ErrorTable((2.0, 4.0), ((0.0, 0.1),) * 2, ((0.0, 0.1), (0.0, 0.2)), ((0.0, 0.2), (0.0, 0.4)))
    >>> table.predict(np.array([0.0, 0.05]), 2)
    array([0.  , 0.05])
    >>> table.predict(np.array([0.05]), 8**0.5, bound=True)
    array([0.15])
    """

    scales: tuple[float, ...]
    detail: Rows
    mean: Rows
    bound: Rows
    noisy: tuple[tuple[float, ErrorTable], ...] = ()
    compressed: tuple[tuple[float, ErrorTable], ...] = ()

    def __post_init__(self) -> None:
        """Raise unless these are tables."""
        rows = (self.scales, *self.detail, *self.mean, *self.bound)
        good = all(row and row[0] >= 0 and math.isfinite(row[-1]) and list(row) == sorted(row) for row in rows)
        lengths = [[len(row) for row in table] for table in (self.detail, self.mean, self.bound)]
        alike = len(set(self.scales)) == len(self.detail) and lengths[0] == lengths[1] == lengths[2]
        levels = [[0.0, *(level for level, _ in steps)] for steps in (self.noisy, self.compressed)]
        apart = all(low < high < math.inf for steps in levels for low, high in pairwise(steps))
        if not (good and alike and apart):
            msg = "the errors of a network must be ascending rows of finite numbers, one for each scale, got others. "
            raise ValueError(msg + "Measure them again by `calibrate`.")

    def predict(
        self,
        detail: Values,
        scale: float,
        *,
        bound: bool = False,
        noise: Values | float = 0.0,
        compression: float = 0.0,
    ) -> Values:
        """The expected absolute error, or its 90 % bound, for each amount of fine detail.

        Between the measured scales it is interpolated along their logarithm. What noise and compression add to the
        errors of a clean image is interpolated between the measured strengths.

        Parameters
        ----------
        detail : ndarray
            From `find_detail`.
        scale : float
            The scale by which the image was upscaled.
        bound : bool, optional
            Whether to return what 90 % of the errors stay below.
        noise : ndarray or float, optional
            Standard deviation of the noise that was removed, of each pixel or of all.
        compression : float, optional
            Strength of the compression that was removed.

        Raises
        ------
        ValueError
            If the scale lies outside those of the table.
        """
        low, high = self.scales[0], self.scales[-1]
        if not low * (1 - CLOSE) <= scale <= high * (1 + CLOSE):
            msg = f"`scale` must lie between {low:g} and {high:g}, where the errors of this network were measured, "
            raise ValueError(msg + f"got {scale:g}. Measure them at other scales by `calibrate`.")
        clean = self._interpolate(detail, scale, bound)
        added = clean.copy()
        for steps, strength in ((self.noisy, noise), (self.compressed, compression)):
            level, before = 0.0, clean
            for next_level, table in steps if np.any(strength) else ():
                after = table._interpolate(detail, scale, bound)
                added += np.clip((strength - level) / (next_level - level), 0, 1) * (after - before)
                level, before = next_level, after
        return np.maximum(added, 0)

    def _interpolate(self, detail: Values, scale: float, bound: bool) -> Values:
        """The mean error or its bound, without noise and compression."""
        rows = self.bound if bound else self.mean
        after = min(bisect_right(self.scales, scale), len(self.scales) - 1)
        before = max(0, after - 1)
        span = math.log(self.scales[after] / self.scales[before]) or 1.0
        share = min(1.0, max(0.0, math.log(scale / self.scales[before]) / span))
        values = (1 - share) * np.interp(detail, self.detail[before], rows[before])
        return values + share * np.interp(detail, self.detail[after], rows[after]) if share else values

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ErrorTable:
        """The inverse of `to_json`; raises TypeError or ValueError where the fields make no table."""
        scales = tuple(map(float, fields["scales"]))
        rows = [tuple(tuple(map(float, row)) for row in fields[name]) for name in ("detail", "mean", "bound")]
        clean = "scales", "detail", "mean", "bound"
        steps = [  # older files have none
            tuple(
                (float(level), cls.from_json({key: table[key] for key in clean}))
                for level, table in fields.get(name, ())
            )
            for name in ("noisy", "compressed")
        ]
        return cls(scales, rows[0], rows[1], rows[2], steps[0], steps[1])
