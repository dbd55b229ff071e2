"""Write files under a temporary name, so that a half-written one never takes the place of a good one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; what is written there takes its place when the block ends well.

    Parameters
    ----------
    path : path
        File or folder to write.
    overwrite : bool, optional
        Whether an existing one may be replaced.

    Yields
    ------
    Path
        A name with the same suffix in the same folder. It is removed if the block raises.

    Raises
    ------
    FileExistsError
        If `path` exists and `overwrite` is False, or a folder is to replace a file, or a file a folder.
    FileNotFoundError, NotADirectoryError, PermissionError
        If the folder of `path` is missing, is a file, or cannot be written to.
    OSError
        If the disk is full.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    check_target(path, overwrite)
    suffix = "".join(path.suffixes[-2:])
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name[:32]}.", suffix=".partial", dir=path.parent))
    try:
        temporary = scratch / f"new{suffix}"
        yield temporary
        if temporary.is_file():
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
        check_target(path, overwrite)
        if path.exists() and path.is_dir() != temporary.is_dir():
            kinds = ("file", "folder") if path.is_dir() else ("folder", "file")
            msg = f"{path} must be a {kinds[0]} to be replaced by one, got a {kinds[1]}. Choose another name."
            raise FileExistsError(msg)
        if path.is_dir():
            _replace_folder(temporary, path, scratch / "old")
        else:
            os.replace(temporary, path)
    except OSError as error:
        if type(error) is not OSError:  # a missing folder and the like say what they are
            raise
        msg = f"{path} could not be written: {error.strerror or error}. Is the disk full?"
        raise OSError(msg) from error
    finally:
        if not (scratch / "old").exists():  # which may be the only copy
            shutil.rmtree(scratch, ignore_errors=True)


def _replace_folder(new: Path, path: Path, old: Path) -> None:
    """Put `new` in the place of the folder `path`, which goes to `old`, or comes back if that fails."""
    try:
        os.replace(path, old)
        os.replace(new, path)
    except BaseException as error:
        if old.exists() and path.exists():
            msg = f"{path} was made anew by somebody else meanwhile; what it replaced is kept in {old}."
            raise FileExistsError(msg) from error
        if old.exists():
            os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_target(path: Path, overwrite: bool) -> None:
    """Raise unless `path` may be written, as `replacing` says."""
    folder = path.parent
    if not folder.exists():
        msg = f"the folder {folder} does not exist. Make it first."
        raise FileNotFoundError(msg)
    if not folder.is_dir():
        msg = f"{folder} is not a folder. Choose another place for {path.name}."
        raise NotADirectoryError(msg)
    if not os.access(folder, os.W_OK):
        msg = f"the folder {folder} cannot be written to. Choose another place for {path.name}."
        raise PermissionError(msg)
    if path.exists() and not overwrite:
        msg = f"{path} exists. Choose another name, or ask to overwrite it."
        raise FileExistsError(msg)


class Busy(BlockingIOError):
    """Another process holds a lock."""


@contextmanager
def locked(path: str | os.PathLike[str], refusal: str) -> Iterator[None]:
    """Hold a lock of the operating system, which ends with the process that holds it, however that ends.

    Parameters
    ----------
    path : path
        A small file that is made for it, and stays.
    refusal : str
        What to say if it is held already.

    Raises
    ------
    Busy
        If it is held, by another process or by this one.
    """
    lock = FileLock(path, thread_local=False)  # a generator may be closed by another thread
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy(refusal) from None
    try:
        yield
    finally:
        lock.release()
