"""What the axes of an image are: planes, rows, columns, and colours or independent channels."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.arguments import is_integer
from vdsr_core.images.intensity import check_pixels, check_unmasked
from vdsr_core.images.tiling import Slices


@dataclass(frozen=True)
class Axes:
    """What the axes of an image are."""

    shape: tuple[int, ...]  # of the image
    order: tuple[int, ...]  # the axes other than colour: leading ones, then rows and columns
    colour: int | None  # the axis of red, green, blue (and alpha)
    channel: int | None  # the position within `order` of the axis of independent channels

    @property
    def plane(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        return self.shape[self.order[-2]], self.shape[self.order[-1]]

    @property
    def leading(self) -> tuple[int, ...]:
        """Lengths of the leading axes."""
        return tuple(self.shape[axis] for axis in self.order[:-2])

    @property
    def channels(self) -> int:
        """How many independent channels there are."""
        return 1 if self.channel is None else self.leading[self.channel]

    @property
    def colours(self) -> int:
        """How many colour samples a pixel has."""
        return 1 if self.colour is None else self.shape[self.colour]

    def native(self, slices: Slices) -> Slices:
        """Slices in the order of the image's own axes."""
        found = [slice(0, self.colours)] * len(self.shape)
        for axis, part in zip(self.order, slices, strict=True):
            found[axis] = part
        return tuple(found)

    def channel_of(self, slices: Sequence[slice]) -> int:
        """The number of the independent channel that a tile lies in."""
        return 0 if self.channel is None else slices[self.channel].start

    def unpack(self, piece: NDArray[Any]) -> NDArray[Any]:
        """A piece of one plane, in the image's axis order, as (colours, rows, columns)."""
        rows, columns = (piece.shape[axis] for axis in self.order[-2:])
        if self.colour is not None:
            piece = np.moveaxis(piece, self.colour, 0)
        return piece.reshape(self.colours, rows, columns)

    def pack(self, piece: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `unpack`."""
        _, rows, columns = piece.shape
        lengths = [1] * len(self.shape)
        lengths[self.order[-2]], lengths[self.order[-1]] = rows, columns
        if self.colour is not None:
            lengths[self.colour] = self.colours
            piece = np.moveaxis(piece, 0, sum(axis < self.colour for axis in self.order[-2:]))
        return piece.reshape(lengths)


def find_axes(image: Any, channel_axis: int | None, rgb: bool) -> Axes:
    """What the axes are, as declared; an image that looks like colour must be declared."""
    shape = tuple(image.shape)
    if channel_axis is None and not rgb:
        if len(shape) > 2 and 2 <= shape[-1] <= 4:
            msg = f"`image` must declare its channels, got shape {shape}. Use `rgb=True` for colour, `channel_axis=-1` "
            msg += "for independent channels, or `channel_axis=0` if the last axis truly holds columns."
            raise ValueError(msg)
        return Axes(shape, tuple(range(len(shape))), None, None)
    axis = -1 if channel_axis is None else channel_axis
    if not is_integer(axis):
        msg = f"`channel_axis` must be an integer or None, got {axis!r}. Use -1 for the last axis."
        raise TypeError(msg)
    if len(shape) < 3 or not -len(shape) <= axis < len(shape):
        word = "rgb" if channel_axis is None else "channel_axis"
        msg = f"`{word}` must name one of at least 3 axes, got axis {axis} of shape {shape}. Leave it out for gray."
        raise ValueError(msg)
    axis = axis % len(shape)
    others = tuple(i for i in range(len(shape)) if i != axis)
    if not rgb:
        return Axes(shape, (*others[:-2], axis, *others[-2:]), None, len(others) - 2)
    if shape[axis] not in (3, 4):
        msg = f"`rgb=True` needs 3 or 4 channels along axis {axis}, got shape {shape}. "
        msg += "Use `channel_axis` for independent channels."
        raise ValueError(msg)
    return Axes(shape, others, axis, None)


def open_image(image: Any) -> Any:
    """`image` itself if it can be sliced like an ndarray, else as one; a dask array if it holds one, as xarray does."""
    check_unmasked(image)
    image = unwrap(image)
    sliceable = isinstance(getattr(image, "dtype", None), np.dtype) and hasattr(image, "__getitem__")
    if not (sliceable and hasattr(image, "shape")):
        try:
            image = np.asarray(image)
        except (ValueError, TypeError, RuntimeError) as error:  # a ragged list, a tensor of PyTorch's own dtypes
            msg = f"`image` must be an array or convert to one, got {type(image).__name__}: {error}"
            raise TypeError(msg) from error
    check_pixels(image.dtype, tuple(image.shape))
    return image


def unwrap(image: Any) -> Any:
    """The dask array that an image holds, as `xarray.DataArray` may; else the image."""
    lazy = getattr(image, "chunks", None) is not None and is_dask(getattr(image, "data", None))
    return image.data if lazy else image


def is_dask(image: Any) -> bool:
    """Whether an image is a dask array; without importing dask."""
    arrays = sys.modules.get("dask.array")
    return arrays is not None and isinstance(image, arrays.Array)
