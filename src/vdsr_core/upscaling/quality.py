"""Noise and compression in words: what is removed, and whether a network without maps can bear them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from vdsr_core.images.noise import Noise, noise_fraction
from vdsr_core.images.ranges import Range
from vdsr_core.network.conditions import find_mapped
from vdsr_core.network.model import QUALITY

# About here a network that was trained on clean images is no better than bicubic interpolation at x2: on open
# photographs, by `python benchmarks/degraded.py FOLDER --model photo --scales 2`.
NOISY, COMPRESSED = 0.015, 0.1


def describe_quality(noises: Noise | Sequence[Noise], ranges: Range | Sequence[Range], compression: float = 0.0) -> str:
    """Noise and compression of an image in a few words; empty for a clean image.

    Parameters
    ----------
    noises, ranges
        One for each channel, as `survey` returns them; or of one channel, as
        `estimate_noise` and `find_range` return them.
    compression : float, optional
        As in `super_resolve`.

    Raises
    ------
    ValueError
        If there are not as many noises as ranges.

    Examples
    --------
    >>> describe_quality([(0.0, 9.0)], [(0, 300)], 0.1)
    'noise of 1 % of the range, compression 0.10'
    """
    fractions = _to_fractions(noises, ranges)
    words = []
    if any(fraction >= 0.0005 for fraction in fractions):
        words.append(f"noise of {', '.join(f'{100 * fraction:.2g}' for fraction in fractions)} % of the range")
    if compression >= 0.005:
        words.append(f"compression {compression:.2f}")
    return ", ".join(words)


def find_misfit(
    maps: Collection[str],
    noises: Noise | Sequence[Noise],
    ranges: Range | Sequence[Range],
    compression: float = 0.0,
) -> str:
    """A sentence that an image is too noisy or too compressed for a network, and which network fits.

    Parameters
    ----------
    maps : collection of str
        What the network removes, from `VDSR.maps`: ``"noise"``, ``"compression"``, both or neither.
    noises, ranges, compression
        As in `describe_quality`.

    Returns
    -------
    str
        Empty if the network fits.

    Examples
    --------
    >>> find_misfit(("noise", "compression"), [(0.0, 9.0)], [(0, 100)])
    ''
    >>> find_misfit((), [(0.0, 9.0)], [(0, 100)]).split(",")[0]
    'the image is too noisy for this network'
    """
    noisy = max(_to_fractions(noises, ranges), default=0.0) > NOISY
    compressed = compression > COMPRESSED
    bad = [word for word, found in zip(QUALITY, (noisy, compressed), strict=True) if found]
    if not any(word not in maps for word in bad):
        return ""
    words = " and ".join({"noise": "too noisy", "compression": "too compressed"}[word] for word in bad)
    fitting = next((name for word in bad for name in find_mapped(word)), None)
    way_out = (
        f"Use {fitting}, which removes that."
        if fitting
        else "Use one that removes noise, or `fine_tune` it on such images."
    )
    return f"the image is {words} for this network, which may make it worse than bicubic interpolation. {way_out}"


def _to_fractions(noises: Noise | Sequence[Noise], ranges: Range | Sequence[Range]) -> list[float]:
    """The noise of each channel as a fraction of its range."""
    found, spans = (np.asarray(values, np.float64).reshape(-1, 2).tolist() for values in (noises, ranges))
    if len(found) != len(spans):
        msg = f"`noises` and `ranges` must be pairs, one of each for each channel, got {noises!r} and {ranges!r}. "
        raise ValueError(msg + "Take both from `survey`.")
    pairs = zip(found, spans, strict=True)
    return [noise_fraction((gain, offset), (low, high)) for (gain, offset), (low, high) in pairs]
