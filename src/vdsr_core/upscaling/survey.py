"""What is found in a whole image before it is upscaled: the range and the noise of each channel."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from numpy.typing import ArrayLike

from vdsr_core.images.axes import find_axes, is_dask, open_image
from vdsr_core.images.missing import check_policy
from vdsr_core.images.noise import Noise, check_noise, fit_blocks
from vdsr_core.images.noise_blocks import Samples, sample
from vdsr_core.images.ranges import Extent, Range, check_ranges, default_range, is_fixed, measure_channels
from vdsr_core.network.tolerance import HANDED_OVER, Tolerance


def survey(
    image: ArrayLike,
    *,
    channel_axis: int | None = None,
    rgb: bool = False,
    nan: str = "raise",
    in_range: Range | Sequence[Range] | None = None,
    noise: str | float | Noise | Sequence[Noise] = "auto",
    maps: Collection[str] = ("noise",),
    tolerance: tuple[float, float] = HANDED_OVER,
    compression: float = 0.0,
) -> tuple[list[Range], list[Noise]]:
    """Find the range and the noise of each channel in one pass over the image.

    If both are given to `super_resolve`, it reads only the pixels that it upscales. They are what `super_resolve` finds
    with the default network, or, with the `maps` and the `tolerance` of another one, with that.

    Parameters
    ----------
    image, channel_axis, rgb, nan, in_range, noise
        As in `super_resolve`. If `in_range` or `noise` is given, it is returned. The noise may also be a fraction of
        the range of each channel, such as ``"3%"``.
    maps : collection of str, optional
        What the network removes, `VDSR.maps`. Without ``"noise"``, no noise is estimated.
    tolerance : (float, float), optional
        That of the network, `VDSR.tolerance`, the default one by default: weaker noise is returned as zeros.
    compression : float, optional
        The compression that is removed; with it, weak noise is removed, too.

    Returns
    -------
    ranges : list of (low, high)
        As `find_range` returns them; a list of one range if there are no independent channels.
    noises : list of (gain, offset)
        As `estimate_noise` returns them; zeros where none is found or looked for.

    Raises
    ------
    TypeError, ValueError
        As `find_range`, and if `in_range` or `noise` is given and is not valid.

    Examples
    --------
    >>> import numpy as np
    >>> survey(np.eye(4), noise=0.5)
    ([(-0.25, 1.25)], [(0.0, 0.25)])
    """
    pixels: Any = open_image(image)
    axes, keep_nan = find_axes(pixels, channel_axis, rgb), check_policy(nan)
    ranges: Any = None if in_range is None else check_ranges(in_range, axes.channels)
    percent = read_percent(noise)
    noises: Any = check_noise(noise if percent is None else 0, axes.channels)
    if ranges is None and is_fixed(pixels.dtype, axes):
        ranges = [default_range(pixels.dtype, axes, Extent())]
    if noises is None and "noise" not in maps:
        noises = [(0.0, 0.0)] * axes.channels
    found = noises is None
    if is_dask(pixels):
        from vdsr_core.upscaling.lazy import survey_lazily

        ranges, noises = survey_lazily(pixels, axes, keep_nan, ranges, noises)
    samples = Samples(axes, pixels.dtype) if noises is None else None
    if ranges is None:
        extents = measure_channels(pixels, axes, None, keep_nan, samples)
        ranges = [default_range(pixels.dtype, axes, extent) for extent in extents]
    elif samples is not None:
        samples = sample(pixels, axes)
    if samples is not None:
        noises = [fit_blocks(blocks) for blocks in samples.blocks]
    if found:
        noises = Tolerance(*tolerance).select_noise(noises, ranges, compression)
    if percent is not None:
        noises = [(0.0, (percent / 100 * (high - low)) ** 2) for low, high in ranges]
    return ranges, noises


def read_percent(noise: Any) -> float | None:
    """The number in a text such as ``"3%"``; None for another `noise`."""
    if not (isinstance(noise, str) and noise.endswith("%")):
        return None
    try:
        percent = float(noise[:-1])
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        msg = f"`noise` must be from 0% to 100% of the range, got {noise!r}. Try '3%'."
        raise ValueError(msg)
    return percent


def find_range(
    image: ArrayLike, *, channel_axis: int | None = None, rgb: bool = False, nan: str = "raise"
) -> Range | list[Range]:
    """The range of an image that `super_resolve` maps to [0, 1] by default.

    For 8-bit RGB it is 0 and 255. Else it spans the lowest and highest values that three of the four pixels of a 2 x 2
    block reach, over all planes, and is widened by a quarter of that on each side. So hot or dead pixels, alone or in
    pairs, do not count, while the smallest real spot does.

    Parameters
    ----------
    image, channel_axis, rgb, nan
        As in `super_resolve`.

    Returns
    -------
    (low, high), or a list of them
        One for each channel of `channel_axis`, unless `rgb` is True. Equal numbers for a constant image.

    Raises
    ------
    TypeError, ValueError
        If `image` is not an image, or holds infinity, or NaN without ``nan="keep"``.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.full((4, 8), 100, np.uint16)
    >>> image[:, 4:] = 200
    >>> image[1, 1] = 65535
    >>> find_range(image)
    (75.0, 225.0)
    """
    ranges, _ = survey(image, channel_axis=channel_axis, rgb=rgb, nan=nan, maps=())
    return ranges if channel_axis is not None and not rgb else ranges[0]
