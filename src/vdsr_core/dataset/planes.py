"""The planes of a user's images and of registered pairs of images, by name, as the network sees them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vdsr_core.dataset.interpolation import Degrade, interpolate_low
from vdsr_core.dataset.patches import check_pairs
from vdsr_core.dataset.registration import check_registered
from vdsr_core.formats.io import ImageFile
from vdsr_core.images.axes import find_axes, open_image
from vdsr_core.images.degradation import degrade
from vdsr_core.images.intensity import Rescale
from vdsr_core.images.ranges import Range, find_rescales
from vdsr_core.upscaling.encoding import encode
from vdsr_core.upscaling.survey import survey

Plane = NDArray[np.float32]
Pair = tuple[Plane, Plane, float]  # interpolated and sharp, and how many times it was enlarged
Image = ArrayLike | ImageFile
Images = Image | Sequence[Image] | Mapping[str, Image]
Pairs = Sequence[tuple[Image, Image]] | Mapping[str, tuple[Image, Image]]


def make_degrade(blur: float, noise: float, seed: tuple[int, int]) -> Degrade:
    """`degrade` with blur and with noise that differs from image to image."""
    if not (blur or noise):
        return degrade
    return partial(degrade, blur=blur, read_noise=noise, seed=np.random.default_rng(seed))


def named_images(images: Any) -> dict[str, Any]:
    """The images by name; an ndarray is one image."""
    if isinstance(images, ImageFile) or (hasattr(images, "shape") and hasattr(images, "dtype")):
        return {"image 0": images}
    if isinstance(images, str | os.PathLike) or not isinstance(images, Iterable):
        msg = f"`images` must be an array, a list of arrays or a mapping, got {type(images).__name__}. "
        msg += "Read files with `read_image`."
        raise TypeError(msg)
    named = dict(images) if isinstance(images, Mapping) else {f"image {n}": image for n, image in enumerate(images)}
    for name, image in named.items():
        if not _is_image(image):
            msg = f"`images` must hold arrays of rows and columns, got {type(image).__name__} as {name}. "
            msg += "Use `numpy.asarray(images)` for one image, `read_image` for files."
            raise TypeError(msg)
    return named


def named_pairs(pairs: Any) -> dict[str, tuple[Any, Any]]:
    """The pairs by name."""
    found = check_pairs(list(pairs.values()) if isinstance(pairs, Mapping) else pairs)
    names = pairs if isinstance(pairs, Mapping) else [f"pair {number}" for number in range(len(found))]
    return dict(zip(names, found, strict=True))


def _is_image(image: Any) -> bool:
    """Whether this is an array, an `ImageFile`, or nested lists with rows and columns."""
    rows = isinstance(image, Sequence) and not isinstance(image, str) and len(image) > 0
    return hasattr(image, "shape") or isinstance(image, ImageFile) or (rows and isinstance(image[0], Sequence))


def _opened(image: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The pixels of an image, and the options for it."""
    if isinstance(image, ImageFile):
        return image.data, options | {"channel_axis": image.channel_axis, "rgb": image.rgb}
    return image, options


def find_planes(
    images: Images, scales: Sequence[float], **options: Any
) -> tuple[dict[str, list[tuple[None, Plane]]], dict[str, str]]:
    """The planes of each image, as the network sees them, and why images were left out.

    `options` are those of `super_resolve` that say what the axes and values mean.
    """
    sources, skipped = {}, {}
    least = math.ceil(4 * max(scales, default=1))
    for name, image in named_images(images).items():
        try:
            pixels, axes = _opened(image, options)
            planes = [plane for plane in network_planes(pixels, **axes) if plane is not None and np.ptp(plane)]
        except (TypeError, ValueError) as error:
            error.args = (f"{name}: {error}",)
            raise
        if planes and min(planes[0].shape) >= least:
            sources[name] = [(None, plane) for plane in planes]
        else:
            skipped[name] = f"smaller than {least} x {least} pixels" if planes else "constant"
    return sources, skipped


def find_pairs(
    pairs: Pairs, *, in_range: Range | Sequence[Range] | None = None, **options: Any
) -> tuple[dict[str, list[Pair]], dict[str, float], dict[str, str]]:
    """The planes of each pair by its name, interpolated and sharp, by the range of the low-resolution one.

    Each has the ratio of the numbers of rows of the pair beside it. Also this ratio for each pair, and why other pairs
    were left out.
    """
    sources, scales, skipped = {}, {}, {}
    for name, pair in named_pairs(pairs).items():
        (low, low_options), (hr, hr_options) = (_opened(image, options) for image in pair)
        try:
            found, _ = survey(low, maps=(), **low_options)
            # A constant channel has no range, and its planes are left out below, with any range.
            wide = [(least, most if most > least else least + max(1.0, abs(least))) for least, most in found]
            ranges = wide if in_range is None else in_range
            planes: list[list[Any]] = [[], []]
            if any(least < most for least, most in found):
                opened = ((low, low_options), (hr, hr_options))
                planes = [list(network_planes(pixels, in_range=ranges, **axes)) for pixels, axes in opened]
        except (TypeError, ValueError) as error:
            error.args = (f"{name}: {error}",)
            raise
        if len(planes[0]) != len(planes[1]):
            got = f"{len(planes[0])} and {len(planes[1])} in {name}"
            msg = f"`pairs` must hold images with equally many planes, got {got}."
            raise ValueError(msg)
        kept = [
            both for both in zip(*planes, strict=True) if all(plane is not None and np.ptp(plane) for plane in both)
        ]
        if kept and min(kept[0][1].shape) >= 8:
            scales[name] = kept[0][1].shape[0] / kept[0][0].shape[0]
            sources[name] = [(interpolate_low(a, b, name), b, scales[name]) for a, b in kept]
            check_registered(*max(sources[name], key=lambda pair: float(pair[1].std()))[:2], name)
        else:
            skipped[name] = "smaller than 8 x 8 pixels" if kept else "constant"
    return sources, scales, skipped


def network_planes(
    image: ArrayLike,
    *,
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
) -> Iterator[NDArray[np.float32] | None]:
    """What the network sees of an image: plane by plane, (M, N) each, in the range that `super_resolve` maps it to.

    A plane of colour is its luma. A plane of a constant channel is None, because the network never sees it.
    """
    pixels = open_image(image)
    axes = find_axes(pixels, channel_axis, rgb)
    rescales = find_rescales(pixels, axes, in_range)
    for index in np.ndindex(*axes.leading):
        leading = tuple(slice(i, i + 1) for i in index)
        rescale = rescales[axes.channel_of(leading)]
        values = axes.unpack(np.asarray(pixels[axes.native((*leading, *(slice(0, n) for n in axes.plane)))]))
        yield encode(values, rescale)[0].astype(np.float32) if isinstance(rescale, Rescale) else None
