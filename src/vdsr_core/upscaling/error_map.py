"""Predict how large the error of each pixel of a super-resolved image is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import correlate1d

from vdsr_core.arguments import check_switch
from vdsr_core.images.axes import Axes, find_axes, is_dask, open_image, unwrap
from vdsr_core.images.intensity import Rescale
from vdsr_core.images.missing import check_policy
from vdsr_core.images.noise import Noise, check_noise
from vdsr_core.images.ranges import Range, find_rescales
from vdsr_core.images.resampling import check_window
from vdsr_core.images.tiling import cover
from vdsr_core.network.checkpoint import load_model, to_network
from vdsr_core.network.conditions import check_compression, check_maps, to_condition
from vdsr_core.network.error_table import ErrorTable
from vdsr_core.network.model import VDSR, Condition
from vdsr_core.upscaling.encoding import encode
from vdsr_core.upscaling.job import Window, check_scale

FINE, AROUND = 3, 5  # sides of the squares whose means are taken: fine detail is what the first one removes
HALO = FINE // 2 + AROUND // 2  # pixels per side that the prediction for a pixel depends on
TILE = 1024  # pixels a side that are looked at at once
LUMA_SPAN = (235 - 16) / 255  # of white less that of black


def predict_error(
    sr: ArrayLike,
    scale: float | tuple[float, float],
    *,
    model: VDSR | str | os.PathLike[str] | None = None,
    bound: bool = False,
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
    noise: float | Noise | Sequence[Noise] = 0.0,
    compression: float = 0.0,
    window: Window | None = None,
    nan: str = "raise",
) -> Any:
    """Predict the absolute error of each pixel of a super-resolved image.

    It is the error against a sharp image that was reduced in the way the network was trained for, not against the
    specimen. The network is not run: its errors were measured on images held out of its training, as a function of the
    fine detail of the result around a pixel.

    Parameters
    ----------
    sr : (..., M, N) array_like
        What `super_resolve` returned. Anything with a shape, a NumPy dtype and slicing is read plane by plane. For a
        dask array, the result is a dask array.
    scale : float or (float, float)
        The scale by which it was upscaled; the larger one of a pair counts.
    model : VDSR, str or path, optional
        The network that it was upscaled by, or what `load_model` takes. By default ``photo``. Where it has a restorer,
        the errors of the restorer count for channels of which noise or compression was removed.
    bound : bool, optional
        Whether to return the bound that 90 % of the errors stay below, instead of the expected error.
    channel_axis, rgb, nan
        As in `super_resolve`. For RGB the error is that of luma, in the units of a gray image. Where NaN is kept, the
        prediction is NaN within 3 pixels of it.
    in_range : (low, high) or sequence of them, optional
        The range that was given to `super_resolve`; by default what `find_range` finds in `sr`.
    noise, compression : optional
        What `super_resolve` removed, as it takes them: more error is left than in a clean image. It cannot be seen in
        `sr`; `survey` finds the noise in the source.
    window : (slice, slice), optional
        Rows and columns to predict, the whole by default. With `in_range`, only these and 3 pixels on each side are
        read.

    Returns
    -------
    error : (..., M, N) ndarray or dask array of float32
        In the units of `sr`, without the axis of colours; 0 in constant channels.

    Raises
    ------
    TypeError, ValueError
        If the errors of the network were not measured at all, or not at such a scale; or as `super_resolve`.

    See Also
    --------
    calibrate : Measures the errors of a network.
    compare_errors : How well the prediction agrees with measured errors.

    Notes
    -----
    Fine detail is the mean, over 5 x 5 pixels, of the absolute difference between a pixel and the mean of the 3 x 3
    pixels around it. It ranks errors better than the size of the residual and the local contrast of the interpolated
    image, and as well as combinations of these.

    Examples
    --------
    >>> import numpy as np
    >>> from vdsr_core import super_resolve
    >>> image = np.random.default_rng(0).random((20, 30))
    >>> predict_error(super_resolve(image, 2), 2).shape
    (40, 60)
    """
    image: Any = open_image(unwrap(sr))
    axes, keep_nan = find_axes(image, channel_axis, rgb), check_policy(nan)
    part = check_window(window, axes.plane)
    network = to_network(model)
    table, largest = find_errors(network), max(check_scale(scale))
    predictor = Predictor(table, largest, check_switch("bound", bound), *_removed(network, axes, noise, compression))
    if is_dask(image):
        places = [*(slice(None) for _ in axes.leading), *part]
        lazy = _predict_lazily(image, axes, in_range, keep_nan, predictor)
        return lazy[*(places[number] for number in np.argsort(axes.order))]  # its axes are the image's without colour
    reads = cover(axes.plane, None, HALO, part)[0].read
    rescales = find_rescales(image, axes, in_range, None if window is None else (reads[0], reads[1]), keep_nan)
    origin = [0] * len(axes.leading) + [s.start for s in part]
    error = np.empty((*axes.leading, *(s.stop - s.start for s in part)), np.float32)
    for tile in cover((*axes.leading, *axes.plane), TILE, HALO, part):
        values = axes.unpack(np.asarray(image[axes.native(tile.read)]))
        channel = axes.channel_of(tile.write)
        found = predictor.predict_plane(values, rescales[channel], channel)
        place = tuple(slice(s.start - o, s.stop - o) for s, o in zip(tile.write, origin, strict=True))
        error[place] = found[tile.crop[-2:]]
    return error.transpose(np.argsort(axes.order))


def find_errors(model: VDSR) -> ErrorTable:
    """The errors of a network; raises where they were never measured."""
    if model.errors is None:
        name = model.card.get("name", "this network")
        msg = f"`model` must have its errors measured, but those of {name} were not. Set `model.errors` to what "
        raise ValueError(msg + "`calibrate` gives for sharp images that it was not trained with.")
    return model.errors


@dataclass(frozen=True)
class Predictor:
    """How the errors of a result are predicted: by which table, and what was removed of each channel.

    `restored` is the table of the network that removed it.
    """

    table: ErrorTable
    scale: float
    bound: bool
    restored: ErrorTable
    noises: list[Noise]
    compression: float

    def predict_plane(self, values: NDArray[Any], rescale: Rescale | float, channel: int) -> NDArray[np.float64]:
        """The errors of one plane, (colours, rows, columns) to (rows, columns), in its units."""
        if not isinstance(rescale, Rescale):
            return np.zeros(values.shape[1:])
        colour = len(values) > 1
        unit = (rescale.high - rescale.low) / (LUMA_SPAN if colour else 1)
        condition = to_condition(self.noises[channel], self.compression, rescale, values.dtype, colour=colour)
        table = self.restored if condition.is_degraded else self.table
        plane = encode(values[:3], rescale)[0]
        return predict_piece(table, plane, condition._replace(scale=self.scale), bound=self.bound) * unit


def predict_piece(
    table: ErrorTable, sr: NDArray[np.float64], condition: Condition, *, bound: bool = False
) -> NDArray[np.float64]:
    """The errors of a plane in the intensities of the network, (M, N); noise is that of the local mean."""
    noise: NDArray[np.float64] | float = 0.0
    if condition.gain or condition.offset:
        noise = np.sqrt(np.maximum(condition.gain * local_mean(sr, AROUND) + condition.offset, 0))
    detail, strength = find_detail(sr), condition.compression
    return table.predict(detail, condition.scale, bound=bound, noise=noise, compression=strength)


def _removed(network: VDSR, axes: Axes, noise: Any, compression: Any) -> tuple[ErrorTable, list[Noise], float]:
    """The table of what removes noise and compression, and how much was removed of each channel."""
    noises, strength = check_noise(noise, axes.channels), check_compression(compression)
    if noises is None or strength is None:
        name = "noise" if noises is None else "compression"
        msg = f"`{name}` must be what was removed, got 'auto'. Find the noise of the source by `survey`."
        raise ValueError(msg)
    check_maps(network.maps, noise=noises, compression=strength)
    return find_restored(network), noises, strength


def find_restored(network: VDSR) -> ErrorTable:
    """The errors of what removes noise and compression: the network itself, or its restorer."""
    return _errors_of(network.restorer) if network.restorer else find_errors(network)


@lru_cache(maxsize=4)
def _errors_of(name: str) -> ErrorTable:
    """Those of a network of the package, which is loaded once for all planes."""
    return find_errors(load_model(name))


def find_detail(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """The fine detail around each pixel of a plane: by how much pixels differ from the mean of their neighbours."""
    return local_mean(np.abs(plane - local_mean(plane, FINE)), AROUND)


def local_mean(plane: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """The mean over squares around each pixel, added in one order wherever it lies; edges are mirrored."""
    weights = np.full(side, 1 / side)
    rows: NDArray[np.float64] = correlate1d(correlate1d(plane, weights, -2), weights, -1)
    return rows


def _predict_lazily(image: Any, axes: Axes, in_range: Any, keep_nan: bool, predictor: Predictor) -> Any:
    """A dask array of the errors, chunked as the image."""
    from dask.array.overlap import overlap, trim_internal

    from vdsr_core.upscaling.dask_graphs import check_finite, tidy
    from vdsr_core.upscaling.lazy import find_ranges_lazily

    image = tidy(image, axes.colour).rechunk({axis: -1 for axis in axes.order[-2:] if image.shape[axis] < HALO})
    ranges = find_ranges_lazily(image, axes, in_range, keep_nan)
    channel = None if axes.channel is None else axes.order[axes.channel]
    depth = {axis: HALO if image.numblocks[axis] > 1 else 0 for axis in axes.order[-2:]}

    def block(values: NDArray[Any], ranges: list[Range], block_info: Any = None) -> NDArray[np.float32]:
        """The errors of a chunk and of what lies around it."""
        check_finite(values, block_info[0]["chunk-location"], keep_nan)
        piece = replace(axes, shape=values.shape)
        first = 0 if channel is None else block_info[0]["array-location"][channel][0]
        error = np.empty((*piece.leading, *piece.plane), np.float32)
        for index in np.ndindex(*piece.leading):
            tile = tuple(slice(i, i + 1) for i in index)
            number = 0 if channel is None else first + piece.channel_of(tile)
            low, high = ranges[number]
            plane = values[piece.native((*tile, slice(None), slice(None)))]
            rescale = Rescale(low, high) if low < high else low
            error[index] = predictor.predict_plane(piece.unpack(plane), rescale, number)
        return error.transpose(np.argsort(axes.order))

    wide = overlap(image, depth, "none")
    drop, meta = [] if axes.colour is None else [axes.colour], np.empty((0,) * len(axes.order), np.float32)
    error = wide.map_blocks(block, ranges, drop_axis=drop, dtype=np.float32, meta=meta)
    places = dict(zip(axes.order, np.argsort(np.argsort(axes.order)), strict=True))
    return trim_internal(error, {int(places[axis]): n for axis, n in depth.items()}, "none")
