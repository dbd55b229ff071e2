"""Estimate the noise of an image from its own flat blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.stats import chi2

from vdsr_core.images.intensity import check_pixels, check_unmasked

Noise = tuple[float, float]
Values = NDArray[np.float64]

# Chosen on open photographs and microscopy with added noise, by benchmarks/noise.py.
SIDE, BLOCKS = 24, 4096  # side of a block in pixels, and how many blocks at most
BINS, LEAST = 16, 24  # bins of intensity, and how many blocks a bin must hold
FLAT = 0.2  # the fraction of the blocks of a bin that is taken to hold noise alone
CLIPPED = 0.02  # the fraction of a block's pixels at the extremes from which on the block does not count
# White noise keeps its variance, while ramps and straight edges along an axis vanish.
KERNEL = np.outer([1, -2, 1], [1, -2, 1]) / 6
CORRELATION = 3.78  # sum of the squared autocorrelation of the kernel: 1 / 3.78 of its responses are independent


def estimate_noise(image: Any) -> Noise:
    """Estimate the noise of an image: the line ``gain * intensity + offset`` that its variance follows.

    Blocks at fixed places of the image are sorted by their mean. In each bin of intensity, a low quantile of the
    variances of the blocks' second differences [1]_ belongs to blocks that contain only noise. The line is fitted to
    these variances by least absolute deviations. Blocks with clipped pixels, or with NaN, do not count.

    Parameters
    ----------
    image : (..., M, N) array_like
        Planes of one channel, of any real dtype; NumPy, dask or zarr. Only the blocks are read.

    Returns
    -------
    gain : float
        Variance for each unit of intensity, at least 0: the `shot_noise` of `degrade`.
    offset : float
        Variance at intensity 0, in squared units of the image: the `read_noise` of `degrade`, squared. It is
        negative where a camera adds a black level. Both are 0 where no noise is found.

    See Also
    --------
    degrade : Add such noise.

    References
    ----------
    .. [1] J. Immerkaer, "Fast Noise Variance Estimation", Computer Vision and Image Understanding 64 (1996).
           :doi:`10.1006/cviu.1996.0060`

    Examples
    --------
    >>> import numpy as np
    >>> image = np.random.default_rng(0).normal(100, 5, (200, 300))
    >>> gain, offset = estimate_noise(image)
    >>> bool(4.5 < (100 * gain + offset) ** 0.5 < 5.5)
    True
    """
    blocks = gather_blocks(image)
    if min(blocks.shape[-2:]) < 3:  # no second difference
        return 0.0, 0.0
    return fit_noise(*measure_blocks(blocks), blocks.shape[-1])


def gather_blocks(image: Any) -> NDArray[Any]:
    """The blocks of an image that `estimate_noise` looks at, (N, side, side)."""
    check_unmasked(image)
    image = image if hasattr(image, "shape") else np.asarray(image)
    check_pixels(image.dtype, image.shape)
    parts = [image[place].reshape(place[-2].stop - place[-2].start, -1) for place in block_places(image.shape)]
    return np.asarray(np.stack(parts))  # NumPy stacks dask arrays as one, so each chunk is read once


def block_places(shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Places of the blocks in an image of `shape` (..., rows, columns); leading slices have length 1."""
    *leading, rows, columns = shape
    side = min(SIDE, max(8, min(rows, columns) // 4), rows, columns)
    planes = math.prod(leading)
    step = max(side / 2, math.sqrt(planes * rows * columns / BLOCKS))  # a stack has fewer blocks in each plane
    starts = [np.unique(np.linspace(0, n - side, int((n - side) // step) + 1).astype(int)) for n in (rows, columns)]
    count = min(planes, max(1, BLOCKS // (len(starts[0]) * len(starts[1]))))
    for number in np.unique(np.linspace(0, planes - 1, count).astype(int)):
        plane = [slice(int(i), int(i) + 1) for i in np.unravel_index(number, leading)] if leading else []
        for row, column in product(*starts):
            yield (*plane, slice(int(row), int(row) + side), slice(int(column), int(column) + side))


def measure_blocks(blocks: NDArray[Any]) -> tuple[Values, Values]:
    """Means and variances of the noise of those of (N, side, side) blocks that are finite and not clipped."""
    values = blocks[np.isfinite(blocks).all((1, 2))].astype(np.float64)
    ends = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    clipped = np.isin(values, ends)
    values = values[clipped.mean((1, 2)) <= CLIPPED]
    windows = sliding_window_view(values, (3, 3), axis=(1, 2))  # (N, side - 2, side - 2, 3, 3)
    response = np.einsum("nijkl,kl->nij", windows, KERNEL)
    return values.mean((1, 2)), (response**2).mean((1, 2))


def fit_noise(means: Values, variances: Values, side: int) -> Noise:
    """Gain and offset from the means and variances of blocks of `side` pixels; zeros without blocks."""
    if not len(means):
        return 0.0, 0.0
    order = np.lexsort((variances, means))
    means, variances = means[order], variances[order]
    cuts = np.unique(np.searchsorted(means, np.linspace(means[0], means[-1], BINS + 1)[1:-1]))
    bins = [part for part in np.split(np.arange(len(means)), cuts) if len(part) >= LEAST] or [np.arange(len(means))]
    freedom = max(1.0, (side - 2) ** 2 / CORRELATION)
    correction = freedom / chi2.ppf(FLAT, freedom)  # from the quantile of pure noise to its mean
    level = np.array([means[part].mean() for part in bins])
    variance = np.array([np.quantile(variances[part], FLAT) for part in bins]) * correction
    return fit_line(level, variance, np.sqrt([len(part) for part in bins]))


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
