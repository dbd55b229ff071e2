"""Arrays that are made when they are sliced, for layers of which no copy is made. No Qt, no napari."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_vdsr.layers.image_layers import Slices


class Sliced:
    """What napari needs of an array; a subclass gives the pixels of a part."""

    def __init__(self, shape: Sequence[int], dtype: Any) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.ndim, self.size = len(self.shape), math.prod(self.shape)

    def read(self, part: Slices) -> NDArray[Any]:
        """The pixels of a part, given along all axes, none of them empty; they may be written to."""
        raise NotImplementedError

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Pixels as NumPy's basic indexing would give them."""
        key = key if isinstance(key, tuple) else (key,)
        part, kept = [], []
        for axis, length in enumerate(self.shape):
            at = key[axis] if axis < len(key) else slice(None)
            start, stop, step = at.indices(length) if isinstance(at, slice) else (int(at), int(at) + 1, 0)
            part.append(slice(start, stop))
            kept.append(slice(None, None, step) if step else 0)
        if any(p.start >= p.stop for p in part):
            return np.empty([max(0, p.stop - p.start) for p in part], self.dtype)[tuple(kept)]
        return self.read(tuple(part))[tuple(kept)]


class Around(Sliced):
    """An array, only sliced, with the lowest value in a hole: it adds nothing to what is shown there.

    `hole` are slices along the first axes.
    """

    def __init__(self, data: Any, hole: Slices) -> None:
        super().__init__(data.shape, data.dtype)
        self._data, self._hole = data, hole
        self._lowest = (
            0 if self.dtype.kind == "u" else (np.iinfo if self.dtype.kind == "i" else np.finfo)(data.dtype).min
        )

    def read(self, part: Slices) -> NDArray[Any]:
        """The pixels of a part."""
        pixels = np.array(self._data[part])
        inside = tuple(
            slice(max(0, hole.start - p.start), max(0, hole.stop - p.start))
            for hole, p in zip(self._hole, part, strict=False)
        )
        pixels[inside] = self._lowest
        return pixels
