"""RGB to luma and chroma and back: BT.601 as MATLAB's ``rgb2ycbcr`` has it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

# Rows Y, Cb, Cr; columns R, G, B, for RGB in [0, 1] and luma in [16, 235] / 255.
TO_YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
OFFSET = np.array([16.0, 128.0, 128.0]) / 255
# Standard deviation of the blur in pixels of the image, for noise as large as the range, and at most. Chosen on open
# photographs with noise of 2 to 15 of 255 at x2, x3, x4: as good as a guided filter or the network itself, which win
# at strong noise, and the quickest.
CHROMA_BLUR, WIDEST_BLUR = 38, 2
TO_RGB = np.linalg.inv(TO_YCBCR)


def rgb_to_ycbcr(rgb: NDArray[Any]) -> NDArray[Any]:
    """RGB in [0, 1] to Y in [16, 235] / 255, Cb and Cr in [16, 240] / 255; (3, ...) both.

    Examples
    --------
    >>> import numpy as np
    >>> (rgb_to_ycbcr(np.ones((3, 1, 1))) * 255).round(6).ravel()
    array([235., 128., 128.])
    """
    return _mix(TO_YCBCR, rgb) + OFFSET.reshape(3, *(1,) * (rgb.ndim - 1))


def ycbcr_to_rgb(ycbcr: NDArray[Any]) -> NDArray[Any]:
    """The inverse of `rgb_to_ycbcr`; the result is not clipped.

    Examples
    --------
    >>> import numpy as np
    >>> ycbcr_to_rgb(np.array([235.0, 128.0, 128.0]) / 255).round(6)
    array([1., 1., 1.])
    """
    return _mix(TO_RGB, ycbcr - OFFSET.reshape(3, *(1,) * (ycbcr.ndim - 1)))


def smooth_chroma(
    values: NDArray[np.floating], noise: float, scale: tuple[float, float], reach: int
) -> NDArray[np.floating]:
    """Interpolated luma, chroma (and alpha), (3 or 4, M, N), with the noise of chroma blurred away.

    `noise` is the standard deviation of the noise of luma, `scale` how many rows and columns a pixel has become. No
    pixel has an effect on pixels more than `reach` away.
    """
    chroma = values[1:3]
    for axis, factor in enumerate(scale, 1):
        sigma = min(CHROMA_BLUR * noise, WIDEST_BLUR) * factor
        if radius := min(math.ceil(3 * sigma), reach):
            chroma = gaussian_filter1d(chroma, sigma, axis, mode="reflect", radius=radius)
    return np.concatenate([values[:1], chroma, values[3:]])


def _mix(matrix: NDArray[Any], channels: NDArray[Any]) -> NDArray[Any]:
    """A 3 x 3 matrix times the channels, added in a fixed order: a matrix product rounds by its shape."""
    red, green, blue = channels
    return np.stack([row[0] * red + row[1] * green + row[2] * blue for row in matrix])
