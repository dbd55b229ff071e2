"""What is upscaled from file to file: opened, told from others, its damaged chunks named."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.io import read_image

SAMPLES, SAMPLE = 16, 64  # windows of the source, and their sides, that tell it from others


class BadSource(ValueError):
    """Pixels of the source that cannot be used; the shards that do without them can be made."""


def open_source(
    source: str | os.PathLike[str] | ImageFile, axes: str | None = None, name: str | None = None
) -> ImageFile:
    """An image, lazily where its file can be read by windows; with other axes if they are given.

    Raises
    ------
    ValueError
        If its axes do not end with rows and columns, channels aside.
    """
    image = source if isinstance(source, ImageFile) else read_image(source, lazy=True, name=name)
    image = image if axes is None else replace(image, axes=axes)
    if not image.axes.replace("S" if image.rgb else "C", "").endswith("YX"):
        msg = f"the last axes must be rows and columns (YX), got {image.axes}. Reorder, or correct by --axes."
        raise ValueError(msg)
    return image


def identify(image: ImageFile) -> str:
    """A checksum of shape, dtype, axes and samples of the pixels, spread over the image."""
    digest = hashlib.sha256(f"{image.axes} {image.data.shape} {image.data.dtype.newbyteorder('=')}".encode())
    for sample in range(SAMPLES):
        window = []
        for number, (letter, n) in enumerate(zip(image.axes, image.data.shape, strict=True)):
            length = min(n, SAMPLE if letter in "YX" else 4 if letter == "S" else 1)
            # Steps of the golden ratio's powers: no two axes move together.
            start = int((sample * 0.6180339887498949 ** (number + 1)) % 1 * (n - length + 1))
            window.append(slice(start, start + length))
        with naming_chunks(image.data, tuple(window)):
            pixels = np.asarray(image.data[tuple(window)])
        digest.update(np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)).tobytes())
    return digest.hexdigest()


@contextmanager
def naming_chunks(data: Any, window: tuple[slice, ...] | None = None) -> Iterator[None]:
    """Say which chunk of an array it is that cannot be read, if that is why the block fails."""
    try:
        yield
    except Exception as error:  # decoders raise anything on damaged chunks
        chunks = getattr(data, "chunks", None)
        if isinstance(data, np.ndarray) or not chunks:
            raise
        spans = [range(n) for n in data.shape] if window is None else [range(s.start, s.stop) for s in window]
        for index in product(
            *(range(span.start // c, -(-span.stop // c)) for span, c in zip(spans, chunks, strict=True))
        ):
            try:
                data[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunks, strict=True))]
            except Exception as cause:
                msg = f"chunk {index} of the source cannot be read: {cause}. Restore it, and start again."
                raise BadSource(msg) from error
        raise


def complain(bad: Sequence[BadSource]) -> None:
    """Raise if shards are missing because of the source."""
    if bad:
        others = f" And {len(bad) - 1} more." if len(bad) > 1 else ""
        msg = f"{bad[0]} All other shards are kept.{others}"
        raise BadSource(msg)
