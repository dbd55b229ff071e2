"""Write an image of any size with smaller and smaller levels, as OME-Zarr or OME-TIFF, and read all levels."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import numpy as np

from vdsr_core.arguments import check_path
from vdsr_core.files import check_target, replacing
from vdsr_core.formats import ome_tiff, ome_zarr
from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.io import read_image
from vdsr_core.formats.losses import warn_of_loss
from vdsr_core.formats.ome_xml import fits_ome
from vdsr_core.formats.ome_zarr import coarsen
from vdsr_core.formats.tiff_read import coarser_levels
from vdsr_core.formats.tiff_write import KEEPS as TIFF_KEEPS
from vdsr_core.formats.zarr_array import is_zarr, level_paths

TIFF = "OME-TIFF"
TILE, SHARD = 512, 2048  # pixels a side: of a chunk, and of a file of an OME-Zarr


def write_pyramid(path: str | os.PathLike[str], image: ImageFile, *, overwrite: bool = False) -> None:
    """Write an image with levels of half its size, a quarter, and so on, for quick viewing.

    Pixels are read and written piece by piece: they need not fit in memory. A file under `path` is always whole.

    Parameters
    ----------
    path : path
        The file of an OME-TIFF if it ends in ``.tif`` or ``.tiff``, else the folder of an OME-Zarr (version 0.5).
    image : ImageFile
        The image, with axes of T, C or S, Z, Y and X; in the target they are in this order.
    overwrite : bool, optional
        Whether an existing image may be replaced. It stays as it was if the writing fails.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError, FileExistsError
        If the target cannot be written, or exists.
    ValueError
        If the format cannot hold the image.

    See Also
    --------
    write_image : Write one level, in many formats.
    read_pyramid : Read all levels.

    Examples
    --------
    >>> import tempfile
    >>> from vdsr_core import read_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/cells.ome.zarr"
    ...     write_pyramid(path, ImageFile(np.eye(700, dtype=np.uint8), "YX", (0.5, 0.5), "µm"))
    ...     read_image(path).pixel_size
    (0.5, 0.5)
    """
    path = check_path("path", path)
    format = choose_format(path, None)
    check_place(path, format, overwrite)
    letters = ome_zarr.order_axes(image.axes)
    if format == TIFF and not fits_ome(image.data.dtype, letters):
        msg = f"`path` must be an .ome.zarr for pixels of {image.data.dtype}, got {path}. Rename it."
        raise ValueError(msg)
    warn_of_pyramid_loss(image, format)
    with replacing(path, overwrite=overwrite) as partial:
        folder = partial.with_name("levels.ome.zarr") if format == TIFF else partial
        count = _write_levels(folder, image, letters, path.name)
        if format == TIFF:
            levels = [ome_zarr.open_level(folder, level) for level in range(count)]
            known = image.extra.get("provenance", {})
            ome_tiff.write_pyramid(partial, levels, letters, image, known, ome_tiff.tile_side(TILE))


def read_pyramid(path: str | os.PathLike[str]) -> list[ImageFile]:
    """Read an image with its coarser levels; the pixels stay in the file until they are sliced.

    Parameters
    ----------
    path : path
        As in `read_image`.

    Returns
    -------
    list of ImageFile
        The levels, the finest first.

    Raises
    ------
    FileNotFoundError, ValueError
        As in `read_image`.

    See Also
    --------
    write_pyramid : Write such a file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/cells.ome.zarr"
    ...     write_pyramid(path, ImageFile(np.eye(700, dtype=np.uint8), "YX", (0.5, 0.5), "µm"))
    ...     [(level.data.shape, level.pixel_size) for level in read_pyramid(path)]
    [((700, 700), (0.5, 0.5)), ((350, 350), (1.0, 1.0))]
    """
    path = check_path("path", path)
    if path.is_dir():
        return [read_image(level) for level in level_paths(path)]
    first = read_image(path, lazy=True)
    longer = max("YX", key=lambda letter: first.data.shape[first.axes.index(letter)])
    axis = first.axes.index(longer)
    found = [first]
    for level in coarser_levels(path):
        factor = round(first.data.shape[axis] / level.shape[axis])
        found.append(first.with_data(level, (1 / factor, 1 / factor)))
    return found


def warn_of_pyramid_loss(image: ImageFile, format: str) -> None:
    """Warn of metadata that a pyramid cannot hold."""
    if format == TIFF:
        warn_of_loss(image, *TIFF_KEEPS["ome"])
    else:
        warn_of_loss(image, ome_zarr.KEEPS)


def _write_levels(folder: Path, image: ImageFile, letters: str, name: str) -> int:
    """Write an OME-Zarr; returns the number of its levels."""
    sizes = dict(zip(image.axes, image.data.shape, strict=True))
    shapes = ome_zarr.level_shapes([sizes[letter] for letter in letters], TILE)
    dtype = image.data.dtype.newbyteorder("=")
    limits = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "ui" else (0.0, 1.0)
    attributes = ome_zarr.make_attributes(image, (1, 1), len(shapes), [limits], "0.5", name)
    attributes |= {"vdsr_core": image.extra["provenance"]} if "provenance" in image.extra else {}
    chunk, shard = (tuple({"Y": n, "X": n, "S": sizes.get("S")}.get(a, 1) or 1 for a in letters) for n in (TILE, SHARD))
    ome_zarr.create(folder, attributes, shapes, dtype, chunk, shard, "0.5")
    order = [image.axes.index(letter) for letter in letters]
    for number, shape in enumerate(shapes):
        level = ome_zarr.open_level(folder, number, "r+")
        finer = ome_zarr.open_level(folder, number - 1) if number else None
        for corner in product(*(range(0, n, side) for n, side in zip(shape, shard, strict=True))):
            window = tuple(slice(c, min(c + side, n)) for c, side, n in zip(corner, shard, shape, strict=True))
            if finer is None:
                there = tuple(window[letters.index(letter)] for letter in image.axes)
                level[window] = np.transpose(np.asarray(image.data[there]), order)
            else:
                level[window] = coarsen(finer, window)
    return len(shapes)


def choose_format(target: Path, format: str | None) -> str:
    """The format of a target, checked to fit its name."""
    named = target.suffix.lower() in (".tif", ".tiff")
    format = (TIFF if named else "0.5") if format is None else format
    known = (*ome_zarr.VERSIONS, TIFF)
    if format not in known:
        msg = f"`format` must be one of {', '.join(known)}, got {format!r}. "
        raise ValueError(msg + "Leave it out to go by the name of the target.")
    if (format == TIFF) != named:
        msg = f"`target` must end in {'.ome.tif' if format == TIFF else '.ome.zarr'} for {format}, got {target}. "
        msg += "Rename it, or leave out `format`."
        raise ValueError(msg)
    return format


def check_place(target: Path, format: str, overwrite: bool) -> None:
    """Raise unless the target may be written: nothing else than an image is ever replaced."""
    check_target(target, overwrite)
    if target.is_file() if format != TIFF else target.is_dir():
        msg = f"{target} exists and is a {'folder' if target.is_dir() else 'file'}. Choose another name."
        raise FileExistsError(msg)
    if target.is_dir() and any(target.iterdir()) and not is_zarr(target):
        msg = f"{target} exists and is not a zarr. Choose another name."
        raise FileExistsError(msg)
