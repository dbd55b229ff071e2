"""Divide work among the cores of a CPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch


@cache
def mind_forks() -> None:
    """Let forks of this process compute with one thread: OpenMP waits forever for threads that only the parent has."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


@contextmanager
def divided_work(device: torch.device) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` whose calls run on the cores of the CPU at once, one core each; the plain `map` for other devices.

    The threads of one operation wait for each other at its end, thousands of times a step, so that anything else on
    the machine holds all of them up; these wait once a step.
    """
    mind_forks()
    cores = torch.get_num_threads()
    if device.type != "cpu" or cores == 1:
        yield map
        return
    ready = threading.Barrier(cores + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # from now on this thread keeps its number
        ready.wait()

    with ThreadPoolExecutor(cores, initializer=begin) as pool:
        try:
            for _ in range(cores):  # each starts a thread, since none is ready yet
                pool.submit(int)
            ready.wait()
        except BaseException as error:
            ready.abort()  # nobody waits for the others any more
            if not isinstance(error, RuntimeError):
                raise
            yield map  # the interpreter ends and starts no more threads; this one continues
            return
        torch.set_num_threads(cores)  # for threads to come: the number that was set last is theirs
        yield pool.map
