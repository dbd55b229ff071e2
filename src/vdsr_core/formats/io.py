"""Read and write image files with their metadata."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from vdsr_core.arguments import check_integer, check_path
from vdsr_core.files import check_target, replacing
from vdsr_core.formats.image_file import ImageFile, Unreadable, check_axes, refuse
from vdsr_core.formats.ome_xml import fits_ome
from vdsr_core.formats.png_jpeg import read_jpeg, read_png, write_jpeg, write_png
from vdsr_core.formats.tiff_read import read_tiff, tiff_names, tiff_parts
from vdsr_core.formats.tiff_write import write_tiff
from vdsr_core.formats.urls import existing_url, is_url
from vdsr_core.formats.webp import LONGEST, read_webp, write_webp
from vdsr_core.formats.zarr_array import is_zarr, read_zarr, write_zarr, zarr_names

__all__ = ["ImageFile", "check_writable", "image_names", "read_image", "write_image"]

_KINDS = {
    ".tif": "TIFF", ".tiff": "TIFF", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP",
    ".zarr": "zarr",
}  # fmt: skip
SUFFIXES = tuple(_KINDS)


def image_names(path: str | os.PathLike[str]) -> list[str]:
    """List the names of the images that a file holds.

    Parameters
    ----------
    path : path
        As in `read_image`; or an OME-Zarr plate (HCS), or a collection as bioformats2raw writes it.

    Returns
    -------
    list of str
        For a TIFF with several images, what `read_image` takes as `name`; for zarr, the paths inside `path`, such as
        ``A/1/0``. If there is only one image, its name is empty.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_image`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(f"{folder}/cells.tif", ImageFile(np.eye(4, dtype=np.uint16), "YX"))
    ...     image_names(f"{folder}/cells.tif")
    ['']
    """
    path = _existing(path)
    with _named_errors(path) as kind:
        if kind == "zarr":
            return zarr_names(path)
        names = tiff_names(path) if kind == "TIFF" else [""]
    return names if len(names) > 1 else [""]


def image_parts(path: Path) -> list[Path]:
    """The files that the image of a file is spread over, itself among them; only itself if it cannot be read."""
    try:
        return [path] if is_url(path) or not path.is_file() or _kind(path) != "TIFF" else tiff_parts(path)
    except Exception:  # reading the image will say why
        return [path]


def read_image(path: str | os.PathLike[str], *, lazy: bool = False, name: str | None = None) -> ImageFile:
    """Read an image with its metadata.

    Parameters
    ----------
    path : path
        A TIFF (plain, BigTIFF, OME, ImageJ), PNG, JPEG or WebP file; the folder of a zarr array or of an OME-Zarr
        image, whose finest level is read; or the URL of such a zarr, as fsspec takes it.
    lazy : bool, optional
        Whether to leave the pixels of a TIFF in the file and read them window by window, if they need none of the
        changes in Notes. The pixels of a zarr always stay in the file.
    name : str, optional
        Which image of a TIFF that holds several, as `image_names` calls it. Those of a zarr group have paths.

    Returns
    -------
    image : ImageFile
        The axes of a zarr array are the names of its dimensions; without names, the last two are rows and columns.
        Axes and sizes of an array inside an OME-Zarr group come from that group.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If the file is of an unknown kind, incomplete, larger than the free memory, or not one gray, RGB
        or multichannel image.

    Notes
    -----
    Pixels keep dtype, intensities and axis order, with these exceptions:

    * An orientation tag is applied.
    * Samples of fewer than 8 bits, and colours of fewer than 16, are scaled to fill their dtype. Gray of 9 to 15 bits,
      as cameras write it, keeps its values.
    * Palettes and gray with alpha become RGB(A). If a palette is a ramp from black to one colour, the intensities are
      read.
    * White-is-zero is inverted.
    * Colours that are multiplied by alpha are divided by it.
    * RGB with further samples that are not alpha is read as channels.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name, "cells.ome.tif")
    >>> write_image(path, ImageFile(np.eye(4, dtype=np.uint16), "YX", (0.1, 0.1), "µm"))
    >>> image = read_image(path)
    >>> image.data.dtype.name, image.axes, image.pixel_size, image.unit
    ('uint16', 'YX', (0.1, 0.1), 'µm')
    >>> folder.cleanup()
    """
    path = _existing(path)
    with _named_errors(path) as kind:
        if kind == "TIFF":
            return read_tiff(path, lazy=lazy, name=name)
        if name is not None:
            refuse(f"it holds no image {name}. Only a TIFF has names.")
        return {"PNG": read_png, "JPEG": read_jpeg, "WebP": read_webp, "zarr": read_zarr}[kind](path)


def _existing(path: str | os.PathLike[str]) -> Path:
    """`path`, checked to be there."""
    if is_url(path):
        return existing_url(path)
    path = check_path("path", path)
    if not path.exists():
        msg = f"{path} does not exist. Check its name and folder."
        raise FileNotFoundError(msg)
    return path


@contextmanager
def _named_errors(path: Path) -> Iterator[str]:
    """Yield the kind of a file to be read; any error becomes a ValueError that names the file."""
    remote = is_url(path)
    kind = "zarr" if remote or path.is_dir() else _kind(path)
    try:
        if not remote and not path.is_dir() and not path.is_file():
            refuse("it is a pipe or a device, not a file. Copy its content to a file first.")
        if not remote and path.is_file() and path.stat().st_size == 0:
            refuse("it is empty. Copy or export it again.")
        yield kind
    except (Unreadable, MemoryError) as error:  # the latter: a header that claims too much, or a true giant
        msg = f"{path} is not a readable {kind}: {error or 'it does not fit in memory. Use zarr.'}"
        raise ValueError(msg) from error
    except Exception as error:  # decoders raise anything on damaged files, from struct.error to SyntaxError
        if isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        cause = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        msg = f"{path} is not a readable {kind}: {cause}. Is it complete, and of that kind?"
        raise ValueError(msg) from error


def check_writable(
    path: str | os.PathLike[str], shape: Sequence[int], dtype: DTypeLike, axes: str, *, overwrite: bool = False
) -> None:
    """Raise the error that writing such an image would end with; it is cheap, so call it before computing.

    Besides the errors of `check_target`, this is a ValueError if the format cannot hold the image; its text names one
    that can.

    Examples
    --------
    >>> check_writable("cells.png", (3, 64, 64), np.uint8, "ZYX")
    Traceback (most recent call last):
    ...
    ValueError: cells.png must hold axes YX, or YXS for colour, got ZYX. Use .tif or .zarr.
    """
    path, shape, dtype = check_path("path", path), tuple(shape), np.dtype(dtype)
    kind = _kind(path)
    check_axes(shape, axes)
    if problem := _problem(path, kind, shape, dtype, axes):
        msg = f"{path} must {problem}"
        raise ValueError(msg)
    check_target(path, overwrite)
    if path.exists() and not (is_zarr(path) if kind == "zarr" else not path.is_dir()):
        msg = f"{path} exists and is not a {kind}. Choose another name."
        raise FileExistsError(msg)


def write_image(
    path: str | os.PathLike[str], image: ImageFile, *, overwrite: bool = False, jpeg_quality: int = 95
) -> None:
    """Write an image with its metadata; a file under `path` is always whole.

    Parameters
    ----------
    path : path
        The suffix chooses the format: .ome.tif, .tif, .png, .jpg, .webp or .zarr.
    image : ImageFile
        The image and its metadata.
    overwrite : bool, optional
        Whether an existing file may be replaced. It stays as it was if the writing fails.
    jpeg_quality : int, optional
        Quality of a JPEG, from 1 to 100.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        If the folder is missing, not a folder, or cannot be written to.
    FileExistsError
        If the file exists and `overwrite` is False, or is something that must not be replaced.
    ValueError
        If the format cannot hold the image; the message names one that can.
    MemoryError
        If a lazy image does not fit in memory and the format is not zarr.

    Notes
    -----
    The image is written under a temporary name in the same folder and then renamed.

    ============ ==========================================================================================
    suffix       what is written
    ============ ==========================================================================================
    .ome.tif     OME-TIFF, deflate
    .tif         plain TIFF (one plane, no unit or a printer's), an ImageJ hyperstack or OME-TIFF: the first
                 that holds the pixels and loses least of the metadata; else plain TIFF
    .png         8 or 16 bit
    .jpg         8 bit, no chroma subsampling
    .webp        8 bit, lossless, gray as RGB
    .zarr        version 3 array, chunks of 512 x 512, named dimensions, sizes, names and colours of channels
                 under the attribute ``vdsr_core``
    ============ ==========================================================================================

    Metadata that the format cannot hold are named in one warning, "not kept: ...".

    ImageJ stacks are not compressed, because ImageJ's own reader needs them in one piece. Single ImageJ planes are
    deflated without tiles and predictor, which it cannot read. Everything else is deflated, integers with a
    predictor, in tiles of 256 x 256 for large planes, as BigTIFF from 4 GB on.

    Examples
    --------
    >>> write_image("missing/cells.png", ImageFile(np.zeros((4, 4), np.uint8), "YX"))
    Traceback (most recent call last):
    ...
    FileNotFoundError: the folder missing does not exist. Make it first.
    """
    path = check_path("path", path)
    check_writable(path, image.data.shape, image.data.dtype, image.axes, overwrite=overwrite)
    kind, quality = _kind(path), check_quality(jpeg_quality)
    with replacing(path, overwrite=overwrite) as partial:
        if kind == "TIFF":
            write_tiff(partial, image, ome=_is_ome(path))
        elif kind == "JPEG":
            write_jpeg(partial, image, quality)
        else:
            {"PNG": write_png, "WebP": write_webp, "zarr": write_zarr}[kind](partial, image)


def check_quality(jpeg_quality: Any) -> int:
    """The quality of a JPEG, checked."""
    quality = check_integer("jpeg_quality", jpeg_quality, 1)
    if quality > 100:
        msg = f"`jpeg_quality` must be at most 100, got {quality}. Leave it out for 95, or write a PNG."
        raise ValueError(msg)
    return quality


def _kind(path: Path) -> str:
    """The kind of file that the suffix names."""
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        msg = f"{path} must end in one of {', '.join(_KINDS)}, got {path.suffix!r}. Convert or rename it."
        raise ValueError(msg)
    return kind


def _is_ome(path: Path) -> bool:
    """Whether the name asks for an OME-TIFF."""
    return path.name.lower().endswith((".ome.tif", ".ome.tiff"))


def _problem(path: Path, kind: str, shape: tuple[int, ...], dtype: np.dtype[Any], axes: str) -> str | None:
    """What a file must be to hold such an image, and which file can hold it."""
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        return f"hold integers or floats, got {dtype}. Convert the pixels first."
    if 0 in shape:
        return f"hold at least one pixel, got shape {shape}. Check the input."
    if kind in ("PNG", "JPEG", "WebP") and set(axes) - set("YXS"):
        return f"hold axes YX, or YXS for colour, got {axes}. Use .tif or .zarr."
    if kind == "PNG" and dtype not in (np.uint8, np.uint16):
        return f"hold uint8 or uint16, got {dtype}. Use .tif or .zarr."
    if kind in ("JPEG", "WebP") and dtype != np.uint8:
        return f"hold uint8, got {dtype}. Use {'.png' if dtype == np.uint16 else '.zarr'} or .tif."
    if kind == "JPEG" and "S" in axes and shape[axes.index("S")] == 4:
        return "hold gray or RGB, got RGBA. Use .png or .tif, or drop the alpha channel."
    longest = {"JPEG": 65500, "WebP": LONGEST}.get(kind, math.inf)
    if max(shape) > longest:
        return f"have sides up to {longest} pixels, got shape {shape}. Use .png or .tif."
    if _is_ome(path) and not fits_ome(dtype, axes):
        return f"hold axes of TZCYXS and a dtype of OME, got {axes} {dtype}. Use .tif or .zarr."
    if path.name.lower().endswith(".ome.zarr"):
        return "be a plain zarr array, got the name of an OME-Zarr group. Use .zarr."
    return None
