"""How weak noise and compression must be to be left in an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vdsr_core.images.noise import Noise, noise_fraction
from vdsr_core.images.ranges import Range


class Tolerance(NamedTuple):
    """What a network leaves in an image although it is found there; what is given by hand is always removed.

    Attributes
    ----------
    noise : float
        The standard deviation, as a fraction of the range, below which noise is left; it may as well be fine texture.
    compression : float
        The strength up to which compression is left.

    Examples
    --------
    >>> tolerance = Tolerance(noise=0.012, compression=0.04)
    >>> tolerance.select_noise([(0.0, 1.0), (0.0, 9.0)], [(0, 200), (0, 200)])
    [(0.0, 0.0), (0.0, 9.0)]
    >>> tolerance.select_compression(0.03), tolerance.select_compression(0.11)
    (0.0, 0.11)
    """

    noise: float = 0.0
    compression: float = 0.0

    def select_noise(self, found: Sequence[Noise], ranges: Sequence[Range], compression: float = 0.0) -> list[Noise]:
        """The noise of each channel that is to be removed, zeros where it is too weak.

        If `compression` is removed, all noise is.
        """
        least = 0.0 if compression else self.noise
        pairs = zip(found, ranges, strict=True)
        return [noise if noise_fraction(noise, span) >= least else (0.0, 0.0) for noise, span in pairs]

    def select_compression(self, found: float) -> float:
        """The compression that is to be removed, 0 if it is too weak."""
        return found if found > self.compression else 0.0


# Of a network with a restorer: from about here on the restorer does better with open photographs and microscopy than
# the network (`python benchmarks/degraded.py FOLDER --model photo`, and the same with restore).
HANDED_OVER = Tolerance(0.002, 0.04)
