"""Divide a training among processes."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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


def sum_over_processes(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one dtype, in place, by their sums over all processes."""
    if find_rank()[1] > 1:
        flat = torch.cat([tensor.ravel() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))


def anyone(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is true in any of the processes; each must call this after the same step."""
    count = torch.tensor(float(flag), device=device)
    sum_over_processes([count])
    return bool(count)
