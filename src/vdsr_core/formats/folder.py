"""Find and read the images of a folder."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.io import SUFFIXES, image_parts, read_image
from vdsr_core.formats.urls import is_url, open_url, resolve
from vdsr_core.formats.zarr_array import is_zarr

CURVES = ".train.png"  # the end of the name of a picture that a training writes beside its network


def read_folder(source: str | os.PathLike[str]) -> Iterator[tuple[Path, ImageFile | Exception]]:
    """Read the images of a folder one by one, in alphabetical order.

    Parameters
    ----------
    source : path
        A folder without its subfolders, one image, or a pattern such as ``"plate/*.tif"``.

    Yields
    ------
    path : Path
        Path of a file.
    image : ImageFile or Exception
        Its image, or the error that says why it cannot be read.

    Raises
    ------
    FileNotFoundError
        If there are no images.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from vdsr_core import write_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(Path(folder) / "a.png", ImageFile(np.zeros((4, 5), np.uint8), "YX"))
    ...     [(path.name, image.data.shape) for path, image in read_folder(folder)]
    [('a.png', (4, 5))]
    """
    for path in list_folder(source):
        try:
            yield path, read_image(path)
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            yield path, error


def list_folder(source: str | os.PathLike[str]) -> list[Path]:
    """The files that `read_folder` reads, each image once."""
    images = (path for path, _ in find_images(os.fspath(source)) if not path.name.endswith(CURVES))
    return list(without_parts(images))


def without_parts(paths: Iterable[Path]) -> Iterator[Path]:
    """The paths without files that are parts of the image of an earlier one: OME-TIFF may have several files."""
    seen: set[Path] = set()
    for path in paths:
        if resolve(path) not in seen:
            seen.update(resolve(part) for part in image_parts(path))
            yield path


def find_images(text: str, recursive: bool = False, results: Path | None = None) -> Iterator[tuple[Path, Path]]:
    """The images that a path, a folder or a pattern names, each with the subfolder that it lies in.

    A path need not exist. With `recursive`, the subfolders of a folder are searched, except `results`.
    """
    if is_url(text):
        yield open_url(text), Path()
        return
    path = Path(text)
    if not is_image_folder(path) and (path.exists() or not glob.has_magic(text)):
        yield path, Path()
        return
    if path.is_dir() and recursive:
        found = list(walk(path, results))
    else:
        pattern = os.path.join(glob.escape(text), "*") if path.is_dir() else text
        found = sorted(map(Path, glob.glob(pattern, recursive=True)))
    images = [name for name in found if name.suffix.lower() in SUFFIXES]
    if not images:
        msg = f"{text} holds no image ({', '.join(SUFFIXES)}). Check the name."
        raise FileNotFoundError(msg)
    yield from ((name, name.parent.relative_to(path) if path.is_dir() else Path()) for name in images)


def walk(folder: Path, results: Path | None = None) -> Iterator[Path]:
    """All files and zarr folders below a folder, in alphabetical order, without hidden ones and without `results`."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not is_image_folder(path):
            yield path
        elif not path.is_symlink() and path.resolve() != results:  # a link may lead to a folder above
            yield from walk(path, results)


def is_image_folder(path: Path) -> bool:
    """Whether a path is a folder that holds images, not a zarr."""
    return path.is_dir() and path.suffix.lower() != ".zarr" and not is_zarr(path)
