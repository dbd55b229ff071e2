"""From image units to what the network and the taps take, gray or luma, chroma and alpha, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.images.color import rgb_to_ycbcr, ycbcr_to_rgb
from vdsr_core.images.intensity import Rescale, cast, max_alpha
from vdsr_core.network.engine import ROWS_IN_CACHE


def encode(window: NDArray[Any], rescale: Rescale) -> NDArray[np.float64]:
    """Image units to what the network and the taps take: gray, or luma, chroma and alpha; (C, h, w)."""
    if len(window) == 1:
        return rescale.forward(window)
    values = rescale.forward(window[:3])
    if len(window) == 3:
        return rgb_to_ycbcr(values)
    # Premultiplied: the colour of transparent pixels must not bleed into the others.
    alpha = window[3:].astype(np.float64) / max_alpha(window.dtype)
    return np.concatenate([rgb_to_ycbcr(values * alpha), alpha])


def decode(values: NDArray[Any], rescale: Rescale, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The inverse of `encode`, some rows at a time, so that what lies in between stays in the cache."""
    image = np.empty(values.shape, dtype)
    for top in range(0, values.shape[1], ROWS_IN_CACHE):
        image[:, top : top + ROWS_IN_CACHE] = _decode(values[:, top : top + ROWS_IN_CACHE], rescale, dtype)
    return image


def _decode(values: NDArray[Any], rescale: Rescale, dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(values) == 1:
        return rescale.inverse(values, dtype)
    colours = ycbcr_to_rgb(values[:3].astype(np.float64))
    if len(values) == 3:
        return rescale.inverse(colours, dtype)
    alpha = np.clip(values[3:].astype(np.float64), 0, 1)
    step = 0.5 / max_alpha(dtype) if dtype.kind in "ui" else 0.0  # less comes out as no alpha at all
    visible = alpha > max(step, np.finfo(values.dtype).eps)
    colours = np.where(visible, colours / np.where(visible, alpha, 1), 0)
    # Overshoot divided by a small alpha is not a colour.
    colours = np.where(alpha < 1 - 1e-6, np.clip(colours, 0, 1), colours)
    return np.concatenate([rescale.inverse(colours, dtype), cast(alpha * max_alpha(dtype), dtype)])
