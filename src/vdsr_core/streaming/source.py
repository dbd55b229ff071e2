"""The source of a streamed image: open it, recognise it, see whether it changes, name its damaged chunks."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.io import read_image

SAMPLES, SAMPLE = 16, 64  # windows of a large source, and their sides, by which it is recognised
WHOLE = "pixels "  # before the checksum of all pixels
BAND = 2**24  # pixels that are hashed at once


class BadSource(ValueError):
    """Pixels of the source that cannot be used. Shards that do not need them can still be made."""


def open_source(
    source: str | os.PathLike[str] | ImageFile, axes: str | None = None, name: str | None = None
) -> ImageFile:
    """An image, lazily where its file can be read by windows; with other axes if they are given.

    A stack of 2 to 4 columns gets an axis of one channel more, because `super_resolve` asks whether these are colours.
    """
    image = source if isinstance(source, ImageFile) else read_image(source, lazy=True, name=name)
    if axes is not None and not (_is_narrow(image) and axes == f"C{image.axes}"):
        image = replace(image, axes=axes)
    if _is_narrow(image):
        image = replace(image, data=np.asarray(image.data[...])[None], axes=f"C{image.axes}")
    if not image.axes.replace("S" if image.rgb else "C", "").endswith("YX"):
        msg = f"the last axes must be rows and columns (YX), got {image.axes}. Reorder, or correct by --axes."
        raise ValueError(msg)
    return image


def _is_narrow(image: ImageFile) -> bool:
    """Whether this is a stack whose columns could be taken for colours."""
    return image.channel_axis is None and image.data.ndim > 2 and 2 <= image.data.shape[-1] <= 4


def identify(image: ImageFile, whole: bool | None = None) -> str:
    """A checksum of shape, dtype, axes and pixels.

    All pixels are used if `whole`, by default for an array in memory; else samples that are spread over the image.
    """
    whole = isinstance(image.data, np.ndarray) if whole is None else whole
    digest = hashlib.sha256(f"{image.axes} {image.data.shape} {image.data.dtype.newbyteorder('=')}".encode())
    for window in all_windows(image.data.shape) if whole else samples(image):
        with naming_chunks(image.data, window):
            digest.update(to_bytes(np.asarray(image.data[window])))
    return WHOLE * whole + digest.hexdigest()


def is_same(image: ImageFile, identity: str) -> bool:
    """Whether an image is the one that `identify` has described; one of the two may be in memory, the other not."""
    return identify(image, identity.startswith(WHOLE)) == identity


def to_bytes(pixels: np.ndarray[Any, Any]) -> memoryview:
    """Pixels in C order and little-endian."""
    return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data


def all_windows(shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Windows that together are all of an array in C order."""
    rows = max(1, BAND // max(1, math.prod(shape[1:])))
    if len(shape) > 2 and rows == 1:
        for first, rest in product(range(shape[0]), all_windows(shape[1:])):
            yield (slice(first, first + 1), *rest)
        return
    for start in range(0, shape[0], rows):
        yield (slice(start, min(start + rows, shape[0])), *(slice(0, n) for n in shape[1:]))


def samples(image: ImageFile) -> Iterator[tuple[slice, ...]]:
    """Small windows that are spread over an image."""
    for sample in range(SAMPLES):
        window = []
        for number, (letter, n) in enumerate(zip(image.axes, image.data.shape, strict=True)):
            length = min(n, SAMPLE if letter in "YX" else 4 if letter == "S" else 1)
            # Steps of the golden ratio's powers: no two axes move together.
            start = int((sample * 0.6180339887498949 ** (number + 1)) % 1 * (n - length + 1))
            window.append(slice(start, start + length))
        yield tuple(window)


def find_place(image: ImageFile, path: str) -> Path | None:
    """The file or folder that an image was read from, or whose pixels it reads; None for one in memory."""
    data: Any = image.data
    root: Any = getattr(getattr(data, "store", None), "root", None)  # of a zarr array on a disk
    if root is not None:
        return Path(root, data.path)
    return Path(path) if path else None


def stamp(image: ImageFile, path: str) -> str:
    """A checksum that changes with the source: of the names, sizes and times of the files at `path`, or of its pixels.

    An image in memory has an empty path.
    """
    place = find_place(image, path)
    if place is None:
        return identify(image)
    names = sorted(os.path.join(top, name) for top, _, files in os.walk(place) for name in files)
    digest = hashlib.sha256()
    for name in names or [str(place)]:
        digest.update(f"{os.path.relpath(name, place)} {look(Path(name))}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def look(path: Path) -> tuple[int, int]:
    """Size and time of the last change of a file; zeros without one."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def find_chunks(data: Any) -> tuple[int, ...] | None:
    """The shape of the chunks of an array, as zarr has them; None without."""
    chunks = None if isinstance(data, np.ndarray) else getattr(data, "chunks", None)
    return chunks if chunks and all(isinstance(size, int) for size in chunks) else None


@contextmanager
def naming_chunks(data: Any, window: tuple[slice, ...] | None = None) -> Iterator[None]:
    """Say which chunk of an array it is that cannot be read, if that is why the block fails."""
    try:
        yield
    except Exception as error:  # decoders raise anything on damaged chunks
        chunks = find_chunks(data)
        if chunks is None:
            raise
        spans = [range(n) for n in data.shape] if window is None else [range(s.start, s.stop) for s in window]
        for index in product(
            *(range(span.start // c, -(-span.stop // c)) for span, c in zip(spans, chunks, strict=True))
        ):
            try:
                data[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunks, strict=True))]
            except Exception as cause:
                reason = cause.__cause__ or cause  # of `zarr_array.Pixels`: what the decoder says
                text = " ".join(str(reason).split()).rstrip(".") or type(reason).__name__
                msg = f"chunk {index} of the source cannot be read: {text}. Restore it, and start again."
                raise BadSource(msg) from error
        raise


def raise_bad_chunks(bad: Sequence[BadSource]) -> None:
    """Raise if shards are missing because of the source."""
    if bad:
        others = f" And {len(bad) - 1} more." if len(bad) > 1 else ""
        msg = f"{bad[0]} All other shards are kept.{others}"
        raise BadSource(msg)
