"""Noise and compression in words: what is removed, and whether a network without maps can bear them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vdsr_core.images.noise import Noise, noise_fraction
from vdsr_core.images.ranges import Range
from vdsr_core.network.conditions import find_mapped
from vdsr_core.network.model import QUALITY

# About here a network that was trained on clean images is no better than bicubic interpolation at x2: on open
# photographs, by `python benchmarks/degraded.py FOLDER --model photo --scales 2`.
NOISY, COMPRESSED = 0.015, 0.1


def describe_quality(noises: Sequence[Noise], ranges: Sequence[Range], compression: float = 0.0) -> str:
    """Noise and compression of an image in a few words; empty for a clean image.

    Parameters
    ----------
    noises, ranges
        One for each channel, as `survey` returns them.
    compression : float, optional
        As in `super_resolve`.

    Examples
    --------
    >>> describe_quality([(0.0, 9.0)], [(0, 300)], 0.1)
    'noise of 1 % of the range, compression 0.10'
    """
    fractions = [noise_fraction(*pair) for pair in zip(noises, ranges, strict=True)]
    words = []
    if any(fraction >= 0.0005 for fraction in fractions):
        words.append(f"noise of {', '.join(f'{100 * fraction:.2g}' for fraction in fractions)} % of the range")
    if compression >= 0.005:
        words.append(f"compression {compression:.2f}")
    return ", ".join(words)


def find_misfit(
    maps: Collection[str], noises: Sequence[Noise], ranges: Sequence[Range], compression: float = 0.0
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
    noisy = max(noise_fraction(*pair) for pair in zip(noises, ranges, strict=True)) > NOISY
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
