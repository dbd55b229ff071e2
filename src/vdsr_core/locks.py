"""Let one process at a time do a piece of work, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout


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
