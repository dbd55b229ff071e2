"""Make the low-resolution image that a sharp one would have given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vdsr_core.intensity import check_pixels
from vdsr_core.resampling import resize, scale_pair, scaled_shape


def crop_to_scale(hr: NDArray[Any], scale: tuple[float, float]) -> tuple[NDArray[Any], tuple[int, int]]:
    """`hr` cropped at the bottom and right to ``round(scale * m)`` pixels, and m = floor(n / scale), for each axis."""
    low = tuple(math.floor(n / s) for n, s in zip(hr.shape[-2:], scale, strict=True))
    if min(low) < 1:
        msg = f"`image` must have at least `scale` pixels a side, got {hr.shape[-2:]} and {scale}. Use a smaller scale."
        raise ValueError(msg)
    rows, columns = scaled_shape((low[0], low[1]), scale)
    return hr[..., :rows, :columns], (low[0], low[1])


def degrade(image: ArrayLike, scale: float | tuple[float, float]) -> NDArray[Any]:
    """Reduce an image by antialiased bicubic interpolation, as super-resolution is trained and tested with.

    Parameters
    ----------
    image : (..., M, N) array_like
        Sharp image of any real dtype; the last two axes are rows and columns. It is cropped at the bottom and right to
        ``round(scale * m)`` pixels, m = floor(n / scale).
    scale : float or (float, float)
        How many times fewer pixels, at least 1, for both axes or for (rows, columns).

    Returns
    -------
    out : (..., floor(M / scale), floor(N / scale)) ndarray
        Same dtype as `image`; integers are rounded and saturated. Use floats where rounding matters.

    Raises
    ------
    TypeError
        If `image` is not of a real dtype or `scale` is not made of numbers.
    ValueError
        If `scale` is less than 1, or `image` has fewer pixels than `scale`.

    Examples
    --------
    >>> import numpy as np
    >>> degrade(np.ones((9, 7)), 2).shape
    (4, 3)
    """
    image = np.asarray(image)
    check_pixels(image.dtype, image.shape)
    pair = scale_pair(scale)
    if min(pair) < 1:
        msg = f"`scale` must be at least 1, got {scale}. Use `super_resolve` or `resize` to enlarge an image."
        raise ValueError(msg)
    hr, low = crop_to_scale(image, pair)
    return resize(hr, (1 / pair[0], 1 / pair[1]), output_shape=low)
