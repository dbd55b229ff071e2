"""Image units to the network's [0, 1] and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Values of a Rescale end here, so that their sums under bicubic taps and a change of colours fit in float32.
LIMIT = 1e38


def check_pixels(dtype: np.dtype[Any], shape: tuple[int, ...], name: str = "image") -> None:
    """Raise unless an array of `dtype` and `shape` can be an image: real numbers, rows and columns, not empty."""
    if dtype.kind not in "uif":
        hint = "Use `image.astype(np.uint8)`." if dtype.kind == "b" else "Use an integer or float dtype."
        if dtype.kind == "c":
            hint = "Use `np.abs(image)`, or its real and imaginary parts one by one."
        msg = f"`{name}` must be of a real dtype, got {dtype}. {hint}"
        raise TypeError(msg)
    if len(shape) < 2:
        msg = f"`{name}` must have at least 2 axes (rows, columns), got shape {shape}. Use `image[None]` for one row."
        raise ValueError(msg)
    if 0 in shape:
        msg = f"`{name}` must not be empty, got shape {shape}. Check how it was read or cropped."
        raise ValueError(msg)


def check_unmasked(image: object, name: str = "image") -> None:
    """Raise if an array has masked pixels: what is computed from their neighbours would not tell."""
    if isinstance(image, np.ma.MaskedArray) and (count := np.count_nonzero(np.ma.getmaskarray(image))):
        msg = f"`{name}` must have no masked pixels, got {count}. Use its `.filled(value)`."
        raise ValueError(msg)


def as_image(image: ArrayLike) -> NDArray[Any]:
    """An array, checked to be an image without masked pixels."""
    check_unmasked(image)
    image = np.asarray(image)
    check_pixels(image.dtype, image.shape)
    return image


def cast(values: NDArray[np.floating], dtype: np.dtype[Any]) -> NDArray[Any]:
    """`values` in `dtype`, saturated where it ends, never wrapped and never infinite; integers are rounded."""
    if dtype.kind == "f":
        ends = np.finfo(dtype)
        floats: NDArray[Any] = np.clip(values, ends.min, ends.max).astype(dtype, copy=False)
        return floats
    limits = np.iinfo(dtype)
    # The largest float that does not exceed the limit: 2**63 - 1 itself is not a float64.
    high = np.float64(limits.max) if dtype.itemsize < 8 else np.nextafter(np.float64(limits.max), 0)
    out = np.clip(np.rint(values), float(limits.min), high).astype(dtype)
    return out if dtype.itemsize < 8 else np.where(values > high, np.array(limits.max, dtype), out)


@dataclass(frozen=True)
class Rescale:
    """A linear map from image units to [0, 1] and its inverse.

    Values outside the range are mapped like the others. Finite pixels stay finite: mapped values are clipped
    at 1e38, and image values at the largest number of their dtype.

    Parameters
    ----------
    low, high : float
        The image values that become 0 and 1; `low` below `high`.

    Examples
    --------
    >>> import numpy as np
    >>> rescale = Rescale(100, 4095)
    >>> rescale.forward(np.array([100, 4095], np.uint16))
    array([0., 1.])
    >>> rescale.inverse(np.array([0.0, 1.0, 20.0]), np.uint16)
    array([  100,  4095, 65535], dtype=uint16)
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse a range that is empty or not finite."""
        if not (math.isfinite(self.high - self.low) and self.low < self.high):
            msg = f"`in_range` must be two finite numbers, low < high, got {(self.low, self.high)}. "
            msg += "Leave it out to find it."
            raise ValueError(msg)

    def forward(self, image: NDArray[Any]) -> NDArray[np.float64]:
        """Image units to [0, 1], as float64."""
        with np.errstate(over="ignore"):
            values = (image.astype(np.float64) - self.low) / (self.high - self.low)
        return np.clip(values, -LIMIT, LIMIT, out=values)

    def inverse(self, values: NDArray[np.floating], dtype: Any) -> NDArray[Any]:
        """[0, 1] to image units of `dtype`, saturated; integers are rounded."""
        with np.errstate(over="ignore"):
            image = values.astype(np.float64, copy=False) * (self.high - self.low) + self.low
        return cast(image, np.dtype(dtype))


def max_alpha(dtype: np.dtype[Any]) -> float:
    """The alpha of an opaque pixel."""
    return float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0
