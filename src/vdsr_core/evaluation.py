"""Measure super-resolution by the field's protocol, always beside bicubic interpolation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vdsr_core.arguments import check_integer, check_number, check_scales, check_switch
from vdsr_core.images.color import rgb_to_ycbcr
from vdsr_core.images.degradation import crop_to_scale, degrade, mean_step
from vdsr_core.images.intensity import check_pixels, check_unmasked
from vdsr_core.images.noise import estimate_noise
from vdsr_core.images.resampling import make_taps, resize, scale_pair
from vdsr_core.network.devices import make_engine
from vdsr_core.network.engine import Engine
from vdsr_core.network.model import VDSR, Condition, check_network
from vdsr_core.network.tolerance import Tolerance

TOLERANCE = 0.02  # dB, within which the score of bicubic interpolation is the published one
# Published PSNR (dB) and SSIM of bicubic interpolation by this protocol.
BICUBIC = {
    "Set5": {2: (33.66, 0.9299), 3: (30.39, 0.8682), 4: (28.42, 0.8104)},
    "Set14": {2: (30.24, 0.8688), 3: (27.55, 0.7742), 4: (26.00, 0.7027)},
    "B100": {2: (29.56, 0.8431), 3: (27.21, 0.7385), 4: (25.96, 0.6675)},
}


def psnr(image_true: ArrayLike, image_test: ArrayLike, *, data_range: float, crop_border: int = 0) -> float:
    """Peak signal-to-noise ratio.

    Parameters
    ----------
    image_true, image_test : (..., M, N) array_like
        The sharp image and the image to measure, of equal shape.
    data_range : float
        The peak: 255 for 8-bit images.
    crop_border : int, optional
        Pixels to ignore at each edge.

    Returns
    -------
    float
        In dB; infinite for equal images, NaN if a pixel is NaN.

    Raises
    ------
    ValueError
        If the shapes differ, nothing is left within `crop_border`, or `data_range` is not greater than 0.
    TypeError
        If the images are not of real numbers, or an option is not a number.

    Examples
    --------
    >>> import numpy as np
    >>> round(psnr(np.zeros((8, 8)), np.full((8, 8), 25.5), data_range=255), 6)
    20.0
    """
    check_peak(data_range)
    true, test = _cropped(image_true, image_test, crop_border)
    error = float(np.mean((true - test) ** 2))
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


def ssim(image_true: ArrayLike, image_test: ArrayLike, *, data_range: float, crop_border: int = 0) -> float:
    """Mean structural similarity [1]_ over an 11 x 11 Gaussian window of sigma 1.5, at valid positions.

    Parameters
    ----------
    image_true, image_test : (M, N) array_like
        The sharp image and the image to measure, of equal shape.
    data_range : float
        255 for 8-bit images.
    crop_border : int, optional
        Pixels to ignore at each edge.

    Returns
    -------
    float
        1 for equal images.

    Raises
    ------
    ValueError
        If the shapes differ, less than 11 x 11 pixels are left within `crop_border`, or `data_range` is not greater
        than 0.
    TypeError
        If the images are not of real numbers, or an option is not a number.

    References
    ----------
    .. [1] Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image Quality Assessment: From Error Visibility to
           Structural Similarity", IEEE Transactions on Image Processing 13 (2004). :doi:`10.1109/TIP.2003.819861`

    Examples
    --------
    >>> import numpy as np
    >>> ramp = np.add.outer(np.arange(16.0), np.arange(16.0))
    >>> ssim(ramp, ramp, data_range=255)
    1.0
    """
    from skimage.metrics import structural_similarity

    check_peak(data_range)
    true, test = _cropped(image_true, image_test, crop_border)
    if true.ndim != 2:
        msg = f"`image_true` must be one plane, (rows, columns), got shape {true.shape}. Call it plane by plane."
        raise ValueError(msg)
    if min(true.shape) < 11:
        msg = f"`image_true` must leave at least 11 x 11 pixels, got {true.shape}. SSIM needs a larger image."
        raise ValueError(msg)
    value = structural_similarity(  # type: ignore[no-untyped-call]
        true, test, data_range=data_range, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(value)


def check_peak(data_range: Any) -> None:
    """Raise unless `data_range` can be a peak."""
    hint = "Use 255 for 8-bit images."
    rule = "a finite number greater than 0"
    check_number("data_range", data_range, rule, hint, lambda value: 0 < value < math.inf)


def _cropped(true: ArrayLike, test: ArrayLike, border: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both images as float64 without their borders."""
    check_unmasked(true, "image_true")
    check_unmasked(test, "image_test")
    border = check_integer("crop_border", border)
    true, test = np.asarray(true), np.asarray(test)
    for name, image in (("image_true", true), ("image_test", test)):
        if image.dtype != bool:
            check_pixels(image.dtype, image.shape, name)
    true, test = true.astype(np.float64), test.astype(np.float64)
    if true.shape != test.shape:
        msg = f"`image_test` must have the shape of `image_true`, {true.shape}, got {test.shape}. Crop one of them."
        raise ValueError(msg)
    rows, columns = (slice(border, n - border) for n in true.shape[-2:])
    inside = (..., rows, columns)
    if true[inside].size == 0:
        msg = f"`crop_border` must leave some pixels, got {border} for shape {true.shape}. Use a smaller one."
        raise ValueError(msg)
    return true[inside], test[inside]


@dataclass(frozen=True)
class Score:
    """How well one method restores one image.

    Attributes
    ----------
    image : str
        Name of the image.
    scale : float
        The upscaling factor.
    method : str
        ``"bicubic"`` or ``"vdsr"``; the name of the network from `compare_models`.
    psnr, ssim : float
        PSNR in dB, and the result of `ssim` (NaN for images too small for its window).
    seconds : float
        Time to restore the image.
    """

    image: str
    scale: float
    method: str
    psnr: float
    ssim: float
    seconds: float


def evaluate(
    model: VDSR,
    images: Mapping[str, ArrayLike] | Iterable[tuple[str, ArrayLike]],
    scales: float | Sequence[float] = (2, 3, 4),
    *,
    device: str | torch.device | None = None,
    degradation: Mapping[str, Any] | None = None,
    self_ensemble: bool = False,
) -> Iterator[Score]:
    """Score a network and bicubic interpolation on sharp images.

    The protocol is that of published tables [1]_, for luma only. The image is cropped to a multiple of the scale,
    reduced by MATLAB's bicubic interpolation in floating point without rounding, restored, clipped to 16..235 and
    rounded to 8 bits; ceil(scale) pixels are ignored at each edge.

    Parameters
    ----------
    model : VDSR
        The network.
    images : mapping or iterable of (str, array)
        8-bit images by name: gray (M, N), taken as luma, or RGB (M, N, 3).
    scales : float or sequence of float, optional
        Upscaling factors, greater than 1.
    device : str or torch.device, optional
        As in `super_resolve`.
    degradation : mapping, optional
        Options of `degrade` other than the scale, such as ``{"read_noise": 5, "jpeg": 40}``, to make other
        low-resolution images than the protocol's clean, bicubic ones; noise is in units of 8-bit images. A network with
        maps or a restorer then removes the noise that is found, and the compression. By default nothing is removed.
    self_ensemble : bool, optional
        As in `super_resolve`: the mean over eight flips and rotations, "+" in published tables.

    Yields
    ------
    Score
        For each image and scale, bicubic first, then the network.

    Raises
    ------
    TypeError, ValueError
        At the call, if `model` is not a network or a scale is not a number greater than 1; later, if an image has no
        name, is not 8-bit gray or RGB, or is too small for a scale.

    References
    ----------
    .. [1] J. Kim, J. K. Lee, K. M. Lee, "Accurate Image Super-Resolution Using Very Deep Convolutional Networks",
           CVPR 2016. https://arxiv.org/abs/1511.04587

    Examples
    --------
    >>> from vdsr_core import VDSRConfig
    >>> image = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    >>> scores = evaluate(VDSR(VDSRConfig(depth=3, width=4)), {"noise": image}, 2)
    >>> [(score.image, score.method) for score in scores]
    [('noise', 'bicubic'), ('noise', 'vdsr')]
    """
    check_network(model)
    factors = check_scales(scales)
    if not factors:
        msg = "`scales` must hold at least one scale, got none. Try [2, 3, 4]."
        raise ValueError(msg)
    if not isinstance(images, Iterable) or hasattr(images, "dtype"):
        msg = f"`images` must map names to images, got {type(images).__name__}. Try {{'name': image}}."
        raise TypeError(msg)
    engine = make_engine(model, device, half=False)
    low = partial(make_low, degradation=degradation, tolerance=engine.tolerance)
    low(np.full((16, 16), 128.0), 2)  # raises for wrong options
    run = partial(restore, engine=engine, self_ensemble=check_switch("self_ensemble", self_ensemble))
    return _scores(images.items() if isinstance(images, Mapping) else images, factors, run, low)


def make_low(
    y: NDArray[np.float64], scale: float, degradation: Mapping[str, Any] | None, tolerance: Tolerance
) -> tuple[Any, Condition]:
    """The low-resolution luma image of a sharp one in 0..255, and what a network of this tolerance is told of it."""
    if not degradation:
        return degrade(y, scale), Condition(scale=scale)
    shot, read = (degradation.get(name, 0.0) / 255 for name in ("shot_noise", "read_noise"))
    options = {"seed": 0, **degradation} | {"shot_noise": shot, "read_noise": read}
    low = degrade(y / 255, scale, **options)
    quality = degradation.get("jpeg")
    compression = 0.0 if quality is None else tolerance.select_compression(mean_step(quality))
    (noise,) = tolerance.select_noise([estimate_noise(low)], [(0.0, 1.0)], compression)
    return low * 255, Condition(*noise, compression, scale)


def _scores(
    images: Iterable[Any],
    scales: Sequence[float],
    run: Callable[..., NDArray[np.float64]],
    make: Callable[[NDArray[np.float64], float], Any],
) -> Iterator[Score]:
    """The scores of each image, scale by scale; `run` restores what `make` reduced."""
    for item in images:
        if not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)):
            msg = f"`images` must hold pairs of name and image, got {type(item).__name__}. Try {{'name': image}}."
            raise TypeError(msg)
        name, image = item
        check_unmasked(image, name)
        y = luma(np.asarray(image), name)
        for scale in scales:
            least = 4 * math.ceil(scale)  # so that something is left within the border
            if min(y.shape) < least:
                msg = f"{name} must have at least {least} pixels a side to be scored at scale {scale:g}, "
                msg += f"got shape {y.shape}. Leave it out, or use smaller scales."
                raise ValueError(msg)
            hr, _ = crop_to_scale(y, scale_pair(scale))
            low, condition = make(y, scale)
            for method in ("bicubic", "vdsr"):
                start = time.perf_counter()
                ilr = np.clip(resize(low, scale, output_shape=hr.shape), 16, 235)
                sr = ilr if method == "bicubic" else run(ilr, condition=condition)
                seconds = time.perf_counter() - start
                sr = np.clip(np.rint(sr), 16, 235)
                border = math.ceil(scale)
                decibels = psnr(hr, sr, data_range=255, crop_border=border)
                large = min(hr.shape) - 2 * border >= 11
                similarity = ssim(hr, sr, data_range=255, crop_border=border) if large else math.nan
                yield Score(name, float(scale), method, decibels, similarity, seconds)


def luma(image: NDArray[Any], name: str = "image") -> NDArray[np.float64]:
    """The luma of an 8-bit image in steps of 1, (M, N) in 16..235; a gray image as it is."""
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        got = f"{image.dtype} of shape {image.shape}"
        msg = f"{name} must be 8-bit gray (M, N) or RGB (M, N, 3), got {got}. Convert it."
        raise ValueError(msg)
    if image.ndim == 2:
        return image.astype(np.float64)
    y: NDArray[np.float64] = np.rint(rgb_to_ycbcr(np.moveaxis(image, 2, 0) / 255)[0] * 255)
    return y


def restore(
    ilr: NDArray[np.float64], engine: Engine, condition: Condition, *, self_ensemble: bool = False
) -> NDArray[np.float64]:
    """An interpolated luma image in 0..255 through the network, whole; `condition` counts in fractions of the range."""
    taps = tuple(make_taps(n, 1, 0, n) for n in ilr.shape)  # the identity
    windows = [ilr[None] / 255]
    sr = engine.run(windows, [(taps[0], taps[1])], conditions=[condition], self_ensemble=self_ensemble)[0, 0]
    return np.asarray(sr, np.float64) * 255


def mean_scores(scores: Iterable[Score]) -> list[Score]:
    """The mean over the images for each scale and method, under the name "mean"."""
    groups: dict[tuple[float, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.scale, score.method), []).append(score)
    figures = "psnr", "ssim", "seconds"
    return [
        Score("mean", *key, *(float(np.mean([getattr(score, name) for score in group])) for name in figures))
        for key, group in groups.items()
    ]


def check_bicubic(name: str, means: Iterable[Score]) -> None:
    """Raise if the bicubic scores of a known set of images differ from the published ones.

    Then no score of this run is comparable with published ones. Sets that are not known pass.
    """
    for score in means:
        published = BICUBIC.get(name, {}).get(int(score.scale)) if score.scale == int(score.scale) else None
        if score.method == "bicubic" and published and abs(score.psnr - published[0]) > TOLERANCE:
            msg = f"bicubic must score {published[0]:.2f} dB on {name} x{score.scale:g}, got {score.psnr:.2f}. "
            msg += "The folder holds other images, or other sizes, than the published set."
            raise ValueError(msg)
