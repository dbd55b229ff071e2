"""Super-resolve an image, whole or tile by tile: the public door."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from vdsr_core.formats.image_file import ImageFile
from vdsr_core.images.axes import is_dask, unwrap
from vdsr_core.images.noise import Noise
from vdsr_core.images.ranges import Range
from vdsr_core.images.tiling import Tile
from vdsr_core.network.model import VDSR
from vdsr_core.upscaling.job import Job, Options, Window, check_out


def super_resolve(
    image: ArrayLike | ImageFile,
    scale: float | tuple[float, float],
    *,
    model: VDSR | str | os.PathLike[str] | None = None,
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
    noise: str | float | Noise | Sequence[Noise] = "auto",
    compression: str | float = "auto",
    tile: int | None = 1024,
    window: Window | None = None,
    nan: str = "raise",
    self_ensemble: bool = False,
    device: str | torch.device | None = None,
) -> Any:
    """Upscale an image with a very deep residual network [1]_.

    Parameters
    ----------
    image : (..., M, N) array_like, or ImageFile
        Image of any real dtype. Axes before rows and columns (time, plane) are independent. Anything with a shape, a
        NumPy dtype and slicing (a memory map, a zarr array) is read window by window. A dask array gives a dask
        array (see Notes). An `ImageFile` also says what its channels are, and how it was compressed.
    scale : float or (float, float)
        Output pixels per input pixel, greater than 1, for both axes or for (rows, columns); one of a pair may be 1.
        It need not be an integer. With 1, a network that has maps or a restorer only removes noise and JPEG artefacts,
        and returns the pixels as they are where there are neither.
    model : VDSR, str or path, optional
        A network, or what `load_model` takes. By default ``photo``, which gives noisy and compressed channels to its
        `VDSR.restorer`, ``restore``.
    channel_axis : int, optional
        Axis of the channels. They are independent unless `rgb` is True.
    rgb : bool, optional
        Whether the channels, along the last axis unless `channel_axis` says otherwise, are red, green, blue and
        perhaps alpha. Then luma goes through the network, chroma and alpha are interpolated.
    in_range : (low, high) or sequence of them, optional
        The image values that become 0 and 1 for the network, or one pair for each channel. By default 0 and 255 for
        8-bit RGB, else what `find_range` finds. Values outside are not clipped, except in what the network sees, where
        they are clipped a quarter of the range beyond both ends.
    noise : "auto", float, (gain, offset) or sequence of such pairs, optional
        The noise to remove: its standard deviation in units of the image, or the line ``gain * value + offset`` that
        its variance follows, or one line for each channel. For colour it is the noise of luma. By default what
        `estimate_noise` finds in the whole image, if it is not weaker than `VDSR.tolerance`, and nothing for a network
        without a map of noise and without a restorer.
    compression : "auto" or float, optional
        How strongly JPEG has compressed the image, from 0 to 1: the mean quantisation step of luma as a fraction of 255
        for 8-bit images, of `in_range` for others. By default what an `ImageFile` says, if it is more than
        `VDSR.tolerance`, and 0 for an array.
    tile : int or None, optional
        Side of a tile in output pixels. The result does not depend on it (see Notes). Smaller tiles need less memory
        and a little more time, because `VDSR.halo` pixels around each tile are computed again. None takes each plane in
        one piece.
    window : (slice, slice), optional
        Rows and columns of the result to compute, the whole by default. With `in_range` and `noise`, only the input
        pixels that the window needs are read and checked.
    nan : {"raise", "keep"}, optional
        Whether pixels that are NaN are an error, or have no value: then a pixel of the result is NaN if the nearest
        input pixel is NaN. Instead of NaN, the network sees the mean of known neighbours, up to 4 pixels away, or the
        low end of the range. The range is found without such pixels.
    self_ensemble : bool, optional
        Whether to take the mean over the eight flips and rotations of the interpolated image: a little better, in eight
        times the time.
    device : str or torch.device, optional
        Where to compute. By default the first of CUDA, MPS (Apple) and the CPU that exists and works.

    Returns
    -------
    out : (..., round(scale * M), round(scale * N)) ndarray or dask array
        Or the `window` of that. Same dtype and intensity units as `image`. Integers are rounded and saturated; floats
        are clipped only to stay finite. The centre of output pixel i lies at (i + 0.5) / scale - 0.5 in the input, so
        the outer edges of the first pixels coincide.

    Raises
    ------
    TypeError
        If `image` is not of a real dtype, or an option is of the wrong type.
    ValueError
        If `scale` is not greater than 1, `image` is empty or holds NaN, infinity or masked pixels, looks like colour
        without `rgb` or `channel_axis`, or the value of an option is not allowed, such as noise to be removed by a
        network without maps.
    MemoryError
        If the result, or a tile, cannot fit in memory.

    Warns
    -----
    UserWarning
        If the scale is below all that the network was trained for, or the image is too noisy or too compressed for a
        network that removes neither: the result may be worse than bicubic interpolation.

    See Also
    --------
    super_resolve_tiles : The same, one tile at a time.
    resize : Plain bicubic interpolation.

    Notes
    -----
    Tiles are read with a margin as wide as the network can see, and are interpolated from positions in the whole image.
    So the result for any tile size equals that for the whole image, up to the rounding of the device: 1e-5 of the range
    in float32, 1e-3 in half precision (CUDA), one step for integers. On one CPU it is the same bit for bit, even if
    other images are computed at the same time.

    The result for a dask array is lazy: nothing is read before it is computed. Its chunks are the tiles; each reads
    the chunks of `image` that it needs. Every computation begins with one pass over the whole of `image`, which finds
    the range and the noise. To compute several parts one by one, find both once by `survey`, and give them. If only the
    range is known, as for 8-bit RGB, only the chunks that hold the blocks of `estimate_noise` are read first.

    A constant image is returned as it is, without the network. If only parts of the image are read (a `window`, or a
    dask array, with a known range), it cannot be known that the image is constant, so the network runs.

    References
    ----------
    .. [1] J. Kim, J. K. Lee, K. M. Lee, "Accurate Image Super-Resolution Using Very Deep Convolutional Networks",
           CVPR 2016. https://arxiv.org/abs/1511.04587

    Examples
    --------
    >>> import numpy as np
    >>> ramp = np.arange(0, 60000, 1000, dtype=np.uint16).reshape(5, 12)
    >>> out = super_resolve(ramp, 2.5)
    >>> out.shape, out.dtype
    ((12, 30), dtype('uint16'))
    """
    options = Options(
        scale, model, channel_axis, rgb, in_range, tile, window, nan, self_ensemble, device, noise, compression
    )
    pixels, options = open_file(image, options)
    pixels = unwrap(pixels)
    if is_dask(pixels):
        from vdsr_core.upscaling.lazy import super_resolve_lazily

        return super_resolve_lazily(pixels, options)
    job = Job(pixels, options)
    job.check_memory(math.prod(job.shape) * job.image.dtype.itemsize)
    out = np.empty(job.shape, job.image.dtype)
    for _ in job.run(out):
        pass
    return out


def super_resolve_tiles(
    image: ArrayLike | ImageFile,
    scale: float | tuple[float, float],
    out: Any,
    *,
    model: VDSR | str | os.PathLike[str] | None = None,
    channel_axis: int | None = None,
    rgb: bool = False,
    in_range: Range | Sequence[Range] | None = None,
    noise: str | float | Noise | Sequence[Noise] = "auto",
    compression: str | float = "auto",
    tile: int | None = 1024,
    window: Window | None = None,
    near: tuple[int, ...] | None = None,
    nan: str = "raise",
    self_ensemble: bool = False,
    device: str | torch.device | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Tile]:
    """Upscale an image tile by tile into `out`, as `super_resolve` does.

    Arguments are checked at the call, before the first tile. Closing the iterator cancels the rest. Setting `stop` does
    so even in the middle of a tile.

    Parameters
    ----------
    image, scale, model, channel_axis, rgb, in_range, noise, compression, tile, window, nan, self_ensemble, device
        As in `super_resolve`.
    out : array
        Where to write: an ndarray, a memory map or a zarr array, with the shape of the result and the dtype of `image`.
    near : tuple of int, optional
        A pixel of `out`, one index for each of its axes. Its plane is computed first, and in a plane the tiles nearest
        to it. By default tiles come in C order.
    stop : threading.Event, optional
        For other threads, which cannot close an iterator that is running: when it is set, the iterator ends
        soon, and the tile that was being computed is not written.

    Yields
    ------
    Tile
        Each tile after ``out[tile.write]`` is written. Its slices are on the grid and in the axis order of `out`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As in `super_resolve`, and if `out` has another shape or dtype, cannot be written, or overlaps `image`.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.eye(8, dtype=np.float32)
    >>> out = np.empty((16, 16), np.float32)
    >>> [tile.write for tile in super_resolve_tiles(image, 2, out, tile=8)][-1]
    (slice(8, 16, None), slice(8, 16, None))
    """
    options = Options(
        scale, model, channel_axis, rgb, in_range, tile, window, nan, self_ensemble, device, noise, compression
    )
    pixels, options = open_file(image, options)
    job = Job(pixels, options, near, stop)
    check_out(out, job.shape, job.image)
    job.check_memory(0)
    _ = job.rescales  # pixels and range are checked at the call
    return job.run(out)


def open_file(image: Any, options: Options) -> tuple[Any, Options]:
    """The pixels of an `ImageFile`, and the options with what it says of them; other images as they are."""
    if not isinstance(image, ImageFile):
        return image, options
    if options.channel_axis is None and not options.rgb:
        options = replace(options, channel_axis=image.channel_axis, rgb=image.rgb)
    return image.data, replace(options, known_compression=image.compression)
