"""Make the low-resolution image of a high-resolution one."""

from __future__ import annotations

import io
import math
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from vdsr_core.arguments import check_integer, check_number
from vdsr_core.images.intensity import as_image, cast
from vdsr_core.images.noise import estimate_noise
from vdsr_core.images.resampling import KERNELS, apply_taps, make_taps, resize, scale_pair, scaled_shape


def crop_to_scale(hr: NDArray[Any], scale: tuple[float, float]) -> tuple[NDArray[Any], tuple[int, int]]:
    """`hr` cropped at the bottom and right to ``round(scale * m)`` pixels, and m = floor(n / scale), for each axis."""
    low = tuple(math.floor(n / s) for n, s in zip(hr.shape[-2:], scale, strict=True))
    if min(low) < 1:
        msg = f"`image` must have at least `scale` pixels a side, got shape {hr.shape[-2:]} and scale {scale}. "
        msg += "Use a smaller scale."
        raise ValueError(msg)
    rows, columns = scaled_shape((low[0], low[1]), scale)
    return hr[..., :rows, :columns], (low[0], low[1])


def degrade(
    image: ArrayLike,
    scale: float | tuple[float, float],
    *,
    kernel: Literal["bicubic", "box", "lanczos"] = "bicubic",
    blur: float = 0.0,
    shot_noise: float = 0.0,
    read_noise: float = 0.0,
    jpeg: int | None = None,
    seed: int | np.random.Generator | None = None,
) -> NDArray[Any]:
    """Reduce an image by antialiased bicubic interpolation, as super-resolution is trained and tested with.

    Optionally, the image is blurred before the reduction, as by an objective; after it, noise is added, as by a camera,
    and the result is compressed.

    Parameters
    ----------
    image : (..., M, N) array_like
        High-resolution image of any real dtype; the last two axes are rows and columns. An axis of n pixels is cropped
        at its end to ``round(scale * m)`` pixels, m = floor(n / scale).
    scale : float or (float, float)
        How many times fewer pixels, at least 1, for both axes or for (rows, columns).
    kernel : {"bicubic", "box", "lanczos"}, optional
        How pixels are weighted: by MATLAB's bicubic kernel, as means over areas (as a camera bins its pixels), or by
        Lanczos' kernel as image editors use it.
    blur : float, optional
        Standard deviation of a Gaussian in pixels of `image`, applied to rows and columns before the reduction.
    shot_noise, read_noise : float, optional
        Poisson and Gaussian noise of the reduced image: its variance is ``shot_noise * value + read_noise**2`` in
        units of `image`. So `shot_noise` is the value of one photon (values below 0 hold none).
    jpeg : int, optional
        Quality from 1 to 100 by which each reduced plane is compressed as a gray JPEG and read again. Floats are taken
        as 0 to 1; integers must be 8-bit.
    seed : int or numpy.random.Generator, optional
        Seed of the noise: the same integer gives the same noise, a generator gives other noise each time.

    Returns
    -------
    out : (..., floor(M / scale), floor(N / scale)) ndarray
        Same dtype as `image`; integers are rounded and saturated. Use floats where rounding matters.

    Raises
    ------
    TypeError
        If `image` is not of a real dtype, or an option has the wrong type.
    ValueError
        If `scale` is less than 1, `image` has fewer pixels than `scale`, blur or noise is negative, or `kernel` or
        `jpeg` is not one of the values above.

    Examples
    --------
    >>> import numpy as np
    >>> degrade(np.ones((9, 7)), 2).shape
    (4, 3)
    >>> degrade(np.full((9, 7), 1000, np.uint16), 2, blur=1.2, shot_noise=4, read_noise=10).dtype
    dtype('uint16')
    >>> degrade(np.eye(4), 2, kernel="box")
    array([[0.5, 0. ],
           [0. , 0.5]])
    """
    image = as_image(image)
    pair = scale_pair(scale)
    if min(pair) < 1:
        msg = f"`scale` must be at least 1, got {scale}. Use `super_resolve` or `resize` to enlarge an image."
        raise ValueError(msg)
    for name, value in (("blur", blur), ("shot_noise", shot_noise), ("read_noise", read_noise)):
        rule = "a finite number of at least 0"
        check_number(name, value, rule, "Leave it out for none.", lambda number: 0 <= number < math.inf)
    if kernel not in KERNELS:
        msg = f"`kernel` must be one of {', '.join(KERNELS)}, got {kernel!r}. Leave it out for bicubic."
        raise ValueError(msg)
    if jpeg is not None:
        _check_jpeg(jpeg, image.dtype)
    rng = make_rng(seed)
    hr, shape = crop_to_scale(image, pair)
    if kernel == "bicubic" and not (blur or shot_noise or read_noise):
        low = resize(hr, (1 / pair[0], 1 / pair[1]), output_shape=shape)
        return low if jpeg is None else compress(low, jpeg)
    values = gaussian_filter(hr.astype(np.float64), blur, axes=(-2, -1))  # edges are mirrored, as in `resize`
    rows, columns = (make_taps(n, 1 / s, 0, m, kernel) for n, s, m in zip(hr.shape[-2:], pair, shape, strict=True))
    low = apply_taps(apply_taps(values[..., rows.source, columns.source], rows, -2), columns, -1)
    if shot_noise:
        low = rng.poisson(np.maximum(low, 0) / shot_noise) * shot_noise + np.minimum(low, 0)
    low = cast(low + read_noise * rng.standard_normal(low.shape), image.dtype)
    return low if jpeg is None else compress(low, jpeg)


def _check_jpeg(jpeg: int, dtype: np.dtype[Any]) -> None:
    """Raise unless pixels of a dtype can be compressed with a quality."""
    if not 1 <= check_integer("jpeg", jpeg, 1, "Try 75.") <= 100:
        msg = f"`jpeg` must be a quality from 1 to 100, got {jpeg}. Try 75."
        raise ValueError(msg)
    if dtype.kind != "f" and dtype != np.uint8:
        msg = f"`image` must be 8-bit or of floats from 0 to 1 for `jpeg`, got {dtype}. Convert it first."
        raise TypeError(msg)


def compress(image: NDArray[Any], quality: int) -> NDArray[Any]:
    """Planes (..., M, N) of uint8, or of floats from 0 to 1, as they come out of gray JPEG files."""
    from PIL import Image

    levels = image if image.dtype == np.uint8 else np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    out = np.empty_like(levels)
    for place in np.ndindex(levels.shape[:-2]):
        file = io.BytesIO()
        Image.fromarray(levels[place]).save(file, "JPEG", quality=quality)
        out[place] = np.asarray(Image.open(file))
    return out if image.dtype == np.uint8 else out.astype(image.dtype) / 255


@cache
def mean_step(quality: int) -> float:
    """The mean quantisation step of gray JPEG files of a quality, as a fraction of the range."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return float(np.mean(image.quantization[0])) / 255  # type: ignore[attr-defined]


def estimate_degradation(image: ArrayLike, scale: float) -> tuple[float, float]:
    """Estimate the blur and the noise by which a reduced image becomes as soft and noisy as the image itself.

    With them, `degrade` makes low-resolution images that look like those of the microscope that took `image`. The noise
    is that of `estimate_noise`. The blur is chosen so that both images have the same blur metric [1]_; in tests with
    blurred edges it was up to 30 % too large.

    Parameters
    ----------
    image : (M, N) array_like
        An image from a camera, of any real dtype, with at least 16 * `scale` pixels on each side.
    scale : float
        How many times fewer pixels, greater than 1.

    Returns
    -------
    blur, read_noise : float
        Arguments of `degrade`: standard deviations of the blur, in pixels of `image` and at most 4 * `scale`, and of
        the noise, in units of `image`.

    Raises
    ------
    ValueError
        If the image is not a single plane, or too small.

    References
    ----------
    .. [1] F. Crete, T. Dolmiere, P. Ladret, M. Nicolas, "The Blur Effect: Perception and Estimation with a New
           No-Reference Perceptual Blur Metric", Proc. SPIE 6492 (2007). :doi:`10.1117/12.702790`

    Examples
    --------
    >>> import numpy as np
    >>> image = np.random.default_rng(0).normal(100, 5, (64, 64))
    >>> blur, read_noise = estimate_degradation(image, 2)
    >>> blur, bool(4 < read_noise < 5)
    (0.0, True)
    """
    from skimage.measure import blur_effect

    plane = np.asarray(image, np.float64)
    if plane.ndim != 2 or min(plane.shape) < 16 * scale:
        msg = f"`image` must be a plane of at least 16 * `scale` pixels a side, got shape {plane.shape}. "
        msg += "Take a larger one."
        raise ValueError(msg)
    noise, softness = measure_noise(plane), blur_effect(plane)  # type: ignore[no-untyped-call]

    def reduced(blur: float) -> tuple[float, float]:
        """Softness of the reduced image, and the noise that it lacks."""
        low = degrade(plane, scale, blur=blur)
        lacking = math.sqrt(max(0.0, noise**2 - measure_noise(low) ** 2))
        noisy = low + lacking * make_rng(0).standard_normal(low.shape)
        return float(blur_effect(noisy)), lacking  # type: ignore[no-untyped-call]

    least, most = 0.0, 4.0 * scale
    if reduced(0)[0] >= softness:
        return 0.0, reduced(0)[1]
    for _ in range(10):
        middle = (least + most) / 2
        least, most = (middle, most) if reduced(middle)[0] < softness else (least, middle)
    return least, reduced(least)[1]


def measure_noise(plane: NDArray[np.float64]) -> float:
    """The standard deviation of the noise of a plane at its mean intensity."""
    gain, offset = estimate_noise(plane, faint=True)
    return math.sqrt(max(0.0, gain * float(plane.mean()) + offset))


def make_rng(seed: Any) -> np.random.Generator:
    """What `numpy.random.default_rng` makes of a seed."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        msg = f"`seed` must be an integer of at least 0, a Generator or None, got {seed!r}. Try 0."
        raise type(error)(msg) from error
