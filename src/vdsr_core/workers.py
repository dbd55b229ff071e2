"""Divide a training among processes, and among the cores of a CPU."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def find_rank() -> tuple[int, int]:
    """The number of this process and how many train together: (0, 1) unless `torch.distributed` is initialised."""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


@contextmanager
def joined_processes(device: str | None = None) -> Iterator[str | None]:
    """Join the processes that ``torchrun`` launched, if it did; gives the device of this one, or `device`.

    With CUDA, each process of a machine has a GPU of its own, unless `device` is ``"cpu"``.
    """
    if "RANK" not in os.environ:
        yield device
        return
    gpu = torch.cuda.is_available() and (device is None or device.startswith("cuda"))
    if gpu:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    # Its functions keep the group of their definition as a default. Imported later, by an optimiser, they would keep
    # this one alive when it is destroyed, and gloo's threads with it: those abort a process that exits meanwhile.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one dtype, in place, by their sums over all processes."""
    if find_rank()[1] > 1:
        flat = torch.cat([tensor.ravel() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))


@contextmanager
def divided_work(device: torch.device) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` whose calls run on the cores of the CPU at once, one core each; the plain `map` for other devices.

    The threads of one operation wait for each other at its end, thousands of times a step, so that anything else on
    the machine holds all of them up; these wait once a step.
    """
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
            yield map  # the interpreter ends and starts no more threads; this one goes on
            return
        torch.set_num_threads(cores)  # for threads to come: the number that was set last is theirs
        yield pool.map
