"""Estimate the noise of an image from its own flat blocks."""

from __future__ import annotations

import math
from itertools import pairwise, product
from typing import Any, overload

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

from vdsr_core.arguments import check_number, check_switch
from vdsr_core.images.axes import find_axes, open_image
from vdsr_core.images.noise_blocks import sample
from vdsr_core.images.ranges import Range

Noise = tuple[float, float]
Values = NDArray[np.float64]

# Chosen on open photographs and microscopy with added noise, by benchmarks/noise.py.
BINS, LEAST = 16, 24  # bins of intensity, and how many blocks a bin must hold
FLAT = 0.3  # the fraction of the blocks of a bin that hold little but noise
PATCH = 4  # side of the patches whose principal components are computed: larger ones find less of coloured noise
CHUNK = 128  # blocks whose patches are in memory at a time
TEXTURE, WHITE = 2.8, 1.08  # the third smallest variance over the smallest one: of texture, and of white noise
STRONG = 0.02  # standard deviation, where the range is 1, that fine texture seldom exceeds
NARROW = 8  # side of a block from which on flat blocks are chosen by their second differences
NOTHING = 1e-14  # variance, where the range is 1, that rounding leaves
CLIPPED = 0.02  # the fraction of pixels at the highest value from which on a block does not count
FAINT = 0.2  # the fraction of the fine detail of an image from which on noise is told from texture
FILLED = 0.1  # the fraction of blocks with constant corners from which on an image is a drawing, or has filled areas
CORRELATION = 3.78  # sum of the squared autocorrelation of the kernel: 1 / 3.78 of its responses are independent


@overload
def estimate_noise(image: Any, *, channel_axis: None = None, rgb: bool = False, faint: bool = False) -> Noise: ...
@overload
def estimate_noise(image: Any, *, channel_axis: int, rgb: bool = False, faint: bool = False) -> Noise | list[Noise]: ...
def estimate_noise(
    image: Any, *, channel_axis: int | None = None, rgb: bool = False, faint: bool = False
) -> Noise | list[Noise]:
    """Estimate the noise of an image: the line ``gain * intensity + offset`` that its variance follows.

    Blocks at fixed places of the image are sorted by their mean. In each bin of intensity, the blocks with the smallest
    second differences [1]_ hold little but noise. White noise has the same variance along all principal components of
    their patches, while texture leaves out at least one component: the smallest variance is that of the noise [2]_.
    Where texture is so fine that it leaves out none, the third smallest variance is larger than the smallest one, and
    tells how much of it is texture. The line is fitted to these variances by least absolute deviations. Saturated
    blocks, blocks with a constant corner, such as filled borders and blank planes have, and blocks with NaN do not
    count. Dark areas of photon counts do, although most of their pixels may be 0.

    Parameters
    ----------
    image : (..., M, N) array_like
        Image of any real dtype; NumPy, dask or zarr. Only the blocks, or the chunks that hold them, are read.
    channel_axis, rgb
        As in `super_resolve`. For colour, the noise of luma is estimated, the weighted mean of red, green and blue.
    faint : bool, optional
        Whether to return noise that is faint beside the fine detail of the image, too: less than a fifth of its
        variance, and less than 2 % of the range. It may as well be texture, so `super_resolve` leaves it.

    Returns
    -------
    (gain, offset), or a list of them
        One for each channel of `channel_axis`, unless `rgb` is True. The gain, at least 0, is by how much the variance
        grows for each unit of intensity: the `shot_noise` of `degrade`. The offset is the variance at intensity 0, in
        squared units of the image: the `read_noise` of `degrade`, squared. It is negative if the camera adds a black
        level. Both are 0 if no noise is found.

    Raises
    ------
    TypeError, ValueError
        If `image` is not an image, or its channels are not declared.

    See Also
    --------
    degrade : Add such noise.
    super_resolve : Remove it.

    References
    ----------
    .. [1] J. Immerkaer, "Fast Noise Variance Estimation", Computer Vision and Image Understanding 64 (1996).
           :doi:`10.1006/cviu.1996.0060`
    .. [2] S. Pyatykh, J. Hesser, L. Zheng, "Image Noise Level Estimation by Principal Component Analysis", IEEE
           Transactions on Image Processing 22 (2013). :doi:`10.1109/TIP.2012.2221728`

    Examples
    --------
    >>> import numpy as np
    >>> image = np.random.default_rng(0).normal(100, 5, (200, 300))
    >>> gain, offset = estimate_noise(image)
    >>> bool(4.5 < (100 * gain + offset) ** 0.5 < 5.5)
    True
    """
    pixels = open_image(image)
    axes = find_axes(pixels, channel_axis, rgb)
    faint = check_switch("faint", faint)
    found = [fit_blocks(blocks, faint=faint) for blocks in sample(pixels, axes).blocks]
    return found if axes.channel is not None else found[0]


def fit_blocks(blocks: NDArray[Any], *, faint: bool = False) -> Noise:
    """Gain and offset from blocks of one channel, (..., side, side); `faint` as in `estimate_noise`."""
    side = blocks.shape[-1]
    values = blocks.reshape(-1, side, side)
    values = values[np.isfinite(values).all((1, 2))].astype(np.float64)
    with np.errstate(over="ignore"):
        low, span = (float(values.min()), float(np.ptp(values))) if len(values) else (0.0, 0.0)
    if side < 3 or not 0 < span < math.inf:  # no second difference, or no range
        return 0.0, 0.0
    found = fit_noise((values - low) / span, faint=faint)
    gain, offset = rescale_noise(found, span, low)
    return (gain, offset) if math.isfinite(gain) and math.isfinite(offset) else (0.0, 0.0)


def fit_noise(blocks: Values, *, faint: bool = False) -> Noise:
    """Gain and offset from (N, side, side) blocks in 0 to 1; zeros if all of them are saturated or filled."""
    filled = has_constant_corner(blocks)
    blocks = blocks[~filled & ((blocks == 1).mean((1, 2)) <= CLIPPED)]
    if not len(blocks):
        return 0.0, 0.0
    means, details = blocks.mean((1, 2)), measure_detail(blocks)
    order = np.lexsort((details, means))
    means, details, blocks = means[order], details[order], blocks[order]
    bins = [slice(*pair) for pair in pairwise(find_cuts(means))]
    share = FLAT if blocks.shape[-1] >= NARROW else 1.0
    chosen = [choose_flat(blocks[part], details[part], share) for part in bins]
    level = np.array([flat.mean() for flat in chosen])
    # Beside black or constant areas, strong noise must be white: in a drawing it is the texture of the lines.
    most = [math.inf if filled.mean() > FILLED or (flat == 0).mean() > CLIPPED else STRONG**2 for flat in chosen]
    variance = np.array([least_variance(flat, share, texture) for flat, texture in zip(chosen, most, strict=True)])
    gain, offset = fit_line(level, variance, np.sqrt([len(flat) for flat in chosen]))
    mean = np.maximum(gain * means + offset, 0).mean()
    return (gain, offset) if faint or mean >= min(FAINT * details.mean(), STRONG**2) else (0.0, 0.0)


def has_constant_corner(blocks: Values) -> NDArray[np.bool_]:
    """Whether a corner of each of (N, side, side) blocks has one value only, (N,): a filled area covers a corner."""
    side = max(3, blocks.shape[-1] // 4)
    ends = slice(None, side), slice(-side, None)
    corners = [blocks[:, rows, columns] for rows, columns in product(ends, ends)]
    constant: NDArray[np.bool_] = np.any([np.ptp(corner, axis=(1, 2)) == 0 for corner in corners], axis=0)
    return constant


def find_cuts(means: Values) -> list[int]:
    """Where bins of sorted means begin and end: as wide as a `BINS`-th of their span, or wide enough for `LEAST`."""
    cuts = [0]
    for cut in np.searchsorted(means, np.linspace(means[0], means[-1], BINS + 1)[1:]).tolist():
        if cut - cuts[-1] >= LEAST:
            cuts.append(cut)
    rest = len(means) - cuts[-1]
    return [*cuts, len(means)] if rest >= LEAST // 2 or len(cuts) == 1 else cuts


def choose_flat(blocks: Values, details: Values, share: float) -> Values:
    """The given share of the blocks: those with the smallest details."""
    return blocks[np.argsort(details, kind="stable")[: math.ceil(share * len(blocks))]]


def measure_detail(blocks: Values) -> Values:
    """The mean square of the second differences along both axes of (N, side, side) blocks, (N,).

    It is the variance of white noise, while ramps and straight edges along an axis vanish.
    """
    response = np.diff(np.diff(blocks, 2, 1), 2, 2) / 6  # (N, side - 2, side - 2)
    return np.asarray(np.square(response, out=response).mean((1, 2)))


def least_variance(blocks: Values, share: float, most: float) -> float:
    """The smallest variance along a principal component of the patches of blocks, without that of fine texture.

    The third smallest variance tells how much is texture, which is at most `most`. The blocks, (N, side, side), are the
    given share of all: those with the smallest second differences.
    """
    count, side, _ = blocks.shape
    patch = min(PATCH, max(2, side // 2))
    centred = blocks - blocks.mean()
    mean, square, patches = np.zeros(patch**2), np.zeros((patch**2, patch**2)), 0
    for start in range(0, count, CHUNK):
        rows = sliding_window_view(centred[start : start + CHUNK], (patch, patch), (1, 2)).reshape(-1, patch**2)
        mean, square, patches = mean + rows.sum(0), square + rows.T @ rows, patches + len(rows)
    first, _, third = np.linalg.eigvalsh(square / patches - np.outer(mean, mean) / patches**2)[:3].tolist()
    texture = min(max(third - WHITE * first, 0) / (TEXTURE - WHITE), most) if side > NARROW else 0.0
    # The chosen blocks hold less noise than the others: their details follow a chi-squared distribution,
    # which is a gamma distribution; importing SciPy's own takes half a second.
    freedom = max(1.0, (side - 2) ** 2 / CORRELATION)
    chosen = float(gammainc(freedom / 2 + 1, gammaincinv(freedom / 2, share))) / share
    # The fewer pixels there are, the further the smallest of the variances is below their mean.
    few = max(0.5, 1 - patch / math.sqrt(blocks.size))
    return max(first - texture, 0.0) / (chosen * few) if first > NOTHING else 0.0


def fit_line(x: Values, y: Values, trust: Values) -> Noise:
    """Slope, at least 0, and offset of the line of least absolute relative deviations, by reweighted least squares."""
    if not y.any():
        return 0.0, 0.0
    size = np.maximum(y, y.max() * 1e-3)
    weight = trust / size
    gain, offset = 0.0, float(np.average(y, weights=weight))
    for _ in range(30 if len(x) > 1 else 0):
        root = np.sqrt(weight)
        gain, offset = map(float, np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1) * root[:, None], y * root)[0])
        if gain < 0:
            gain, offset = 0.0, float(np.average(y, weights=weight))
        weight = trust / size / np.maximum(np.abs(gain * x + offset - y) / size, 0.05)
    return gain, offset


def rescale_noise(noise: Noise, factor: float, shift: float) -> Noise:
    """The noise of ``factor * image + shift``."""
    gain, offset = noise
    return factor * gain, factor * factor * offset - factor * gain * shift


def check_noise(noise: Any, channels: int) -> list[Noise] | None:
    """`noise` as (gain, offset) for each channel; None for "auto"."""
    if isinstance(noise, str) and noise == "auto":
        return None
    rule, way_out = "'auto', a standard deviation of at least 0, or (gain, offset)", "Use 0 for an image without noise."
    try:
        given = np.empty(0) if noise is None or isinstance(noise, str) else np.asarray(noise, np.float64)
    except (TypeError, ValueError, OverflowError):
        given = np.empty(0)
    if given.shape == () and not isinstance(noise, bool):
        sigma = check_number("noise", float(given), rule, way_out, lambda value: 0 <= value < math.inf)
        return [(0.0, sigma * sigma)] * channels
    if given.shape not in ((2,), (channels, 2)):
        msg = f"`noise` must be {rule}, or {channels} such pairs, one for each channel, got {noise!r}. {way_out}"
        raise ValueError(msg)
    pairs = [(float(gain), float(offset)) for gain, offset in np.broadcast_to(given, (channels, 2))]
    for gain, offset in pairs:
        if not (math.isfinite(offset) and 0 <= gain < math.inf) or (gain == 0 and offset < 0):
            msg = "`noise` must be (gain, offset), finite, with a gain of at least 0 and a variance, gain * value + "
            msg += f"offset, that is positive somewhere, got {(gain, offset)}. {way_out}"
            raise ValueError(msg)
    return pairs


def noise_fraction(noise: Noise, in_range: Range) -> float:
    """The standard deviation of noise in the middle of a range, as a fraction of the range.

    Parameters
    ----------
    noise : (gain, offset)
        As `estimate_noise` returns it.
    in_range : (low, high)
        As `find_range` returns it.

    Returns
    -------
    float
        0 if the range is empty.

    Examples
    --------
    >>> noise_fraction((0.0, 9.0), (0, 300))
    0.01
    """
    (gain, offset), (low, high) = noise, in_range
    variance = gain * (low + high) / 2 + offset
    return math.sqrt(variance) / (high - low) if variance > 0 and high > low else 0.0
