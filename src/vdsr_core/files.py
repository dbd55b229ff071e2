"""Write files under a temporary name, so that a half-written one never takes the place of a good one."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

LOCK, OLD = "lock", "old"  # names in a scratch folder


@contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix; it takes the place of `path` when the block succeeds.

    What replaces a file or folder takes over its permissions. The temporary path is removed if the block raises.

    Raises
    ------
    FileExistsError
        If `path` exists and `overwrite` is False, or a folder would replace a file, or a file a folder.
    FileNotFoundError, NotADirectoryError, PermissionError
        If the folder of `path` is missing, is a file, or cannot be written to.
    OSError
        If the disk is full.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    check_target(path, overwrite)
    tidy(path.parent)
    suffix = "".join(path.suffixes[-2:])
    with _scratch(path) as scratch:
        temporary = scratch / f"new{suffix}"
        try:
            yield temporary
            if temporary.is_file():
                with temporary.open("rb+") as stream:
                    os.fsync(stream.fileno())
            check_target(path, overwrite)
            if path.exists():
                _check_kind(path, temporary)
                shutil.copymode(path, temporary)  # private files stay private
            if path.is_dir():
                _replace_folder(temporary, path, scratch)
            else:
                os.replace(temporary, path)
        except OSError as error:
            if type(error) is not OSError:  # a missing folder and the like say what they are
                raise
            msg = f"{path} could not be written: {error.strerror or error}. Is the disk full?"
            raise OSError(msg) from error


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """Make a folder beside `path` that only this user can enter; it is locked while in use, and removed in the end."""
    while True:
        name = tempfile.mkdtemp(prefix=f".{path.name[:32]}.", suffix=".partial", dir=path.parent)
        lock = FileLock(os.path.join(name, LOCK), thread_local=False)
        try:
            lock.acquire(timeout=0)
        except (Timeout, FileNotFoundError):  # another process has taken it for one that was left behind
            continue
        except OSError:  # a file system without locks, where nothing is ever taken to be left behind
            pass
        break
    try:
        yield Path(name)
    finally:
        lock.release()
        if not any(Path(name).glob(f"{OLD}/*")):  # which may be the only copy
            _remove(Path(name))


def _remove(scratch: Path) -> None:
    """Remove a scratch folder, the lock last: without it nobody could tell that the rest is ours."""
    for entry in scratch.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != LOCK:
            entry.unlink()
    shutil.rmtree(scratch, ignore_errors=True)


@cache
def tidy(folder: Path) -> None:
    """Remove, once in each process, what processes that were killed in `replacing` left in a folder.

    A folder that was set aside when the process was killed returns to its place.
    """
    for name in os.listdir(folder):
        left = folder / name
        if not re.fullmatch(r"\..+\.[a-z0-9_]{8}\.partial", name) or left.is_symlink():
            continue
        with suppress(OSError):
            if not (left / LOCK).exists():
                left.rmdir()  # fails unless it is empty
                continue
            lock = FileLock(left / LOCK, thread_local=False)
            lock.acquire(timeout=0)  # fails while its process is alive
            for old in left.glob(f"{OLD}/*"):
                if not (folder / old.name).exists():
                    os.replace(old, folder / old.name)
            _remove(left)
            lock.release()


def _check_kind(path: Path, new: Path) -> None:
    """Raise if a folder is to replace a file, or a file a folder."""
    if path.is_dir() != new.is_dir():
        kinds = ("file", "folder") if path.is_dir() else ("folder", "file")
        msg = f"{path} must be a {kinds[0]} to be replaced by one, got a {kinds[1]}. Choose another name."
        raise FileExistsError(msg)


def _replace_folder(new: Path, path: Path, scratch: Path) -> None:
    """Put `new` in the place of the folder `path`, which moves to `scratch`, or comes back if that fails."""
    old = scratch / OLD / path.name
    old.parent.mkdir()
    try:
        os.replace(path, old)
        os.replace(new, path)
    except BaseException as error:
        if old.exists() and path.exists():
            kept = path.with_name(scratch.name.strip(".").removesuffix("partial") + OLD)
            os.replace(old, kept)
            msg = f"{path} was made by another process meanwhile. What it replaced is kept in {kept}."
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
def locked(path: str | os.PathLike[str], refusal: str, *, timeout: float = 0) -> Iterator[None]:
    """Hold a lock of the operating system, which ends with the process that holds it, however that ends.

    The lock is a small file, removed at the end, that everyone who may write to its folder can lock. If another
    process, or this one, holds it for longer than `timeout` seconds, `Busy` is raised with the text `refusal`.
    """
    path = Path(path)
    lock = FileLock(path, thread_local=False, mode=0o600 | path.parent.stat().st_mode & 0o066)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise Busy(refusal) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps a file that is open
            path.unlink()  # a process that waits for it finds that it is gone, and makes another
        lock.release()
