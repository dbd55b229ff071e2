"""Which device a network runs on, and one engine there for all who use it."""

from __future__ import annotations

import os
import threading
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from vdsr_core.images.resampling import make_taps
from vdsr_core.network.engine import Engine, raise_if_out_of_memory
from vdsr_core.network.model import VDSR, make_model

# How far a device may be from the CPU, as a fraction of the largest result; GPUs compute in half precision.
AGREEMENT = 1e-4
AGREEMENTS = {"cuda": 2e-2}


def choose_device(device: str | torch.device | None = None, *, double: bool = False) -> torch.device:
    """The device of that name, or else CUDA or Apple's MPS, if a tile comes out there as on the CPU, or the CPU.

    `double` excludes MPS, which does not compute in float64. Raises ValueError if there is no such device, MemoryError
    if other programs have all of its memory.
    """
    if device is None:
        here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available() and not double}
        good = (name for name, there in here.items() if there and agrees_with_cpu(name))
        return torch.device(next(good, "cpu"))
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()  # "meta" holds no values
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        raise_if_out_of_memory(error)
        names = ", ".join(list_devices())
        msg = f"`device` must be one of {names} here, got {str(device)!r}. Leave it out to let it be chosen."
        raise ValueError(msg) from error
    return found


def list_devices() -> dict[str, str]:
    """The devices that PyTorch finds here.

    Returns
    -------
    dict of str to str
        A short description of each device by its PyTorch name, which the argument `device` takes; the CPU first.

    Examples
    --------
    >>> next(iter(list_devices()))
    'cpu'
    """
    devices = {"cpu": f"{torch.get_num_threads()} threads"}
    if torch.cuda.is_available():  # devices are counted even where the driver is too old for them
        devices |= {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return devices | ({"mps": "Apple GPU"} if torch.backends.mps.is_available() else {})


def agrees_with_cpu(name: str) -> bool:
    """Whether a tile of a random network comes out on a device as on the CPU; a warning if not, once."""
    try:
        return _compare_with_cpu(name)
    except MemoryError:  # of what another program leaves: the next call may find more
        warnings.warn(f"{name} has no memory left now; continuing with the CPU.", stacklevel=3)
        return False


@lru_cache
def _compare_with_cpu(name: str) -> bool:
    model = make_model(0)
    window = np.random.default_rng(0).random((1, 32, 32), dtype=np.float32)
    taps = (make_taps(32, 2, 0, 64), make_taps(32, 2, 0, 64))
    expected = Engine(model, torch.device("cpu"), fast=False).run([window], [taps])
    try:
        error = float(np.abs(Engine(model, torch.device(name)).run([window], [taps]) - expected).max())
    except MemoryError:
        raise
    except Exception as cause:  # a device that is too old or has a wrong driver fails in ways of its own
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    else:
        if error < AGREEMENTS.get(name, AGREEMENT) * float(np.abs(expected).max()):
            return True
        reason = f"its result differs by {error:.1g}"
    warnings.warn(f"{name} is here but does not work ({reason}); continuing with the CPU.", stacklevel=4)
    return False


def make_engine(model: VDSR, device: str | torch.device | None, *, half: bool | None = None) -> Engine:
    """An engine of a network on a device, or on the best one for it."""
    return Engine(model, choose_device(device, double=next(model.parameters()).dtype == torch.float64), half=half)


class SharedEngine:
    """A network that is made ready in each process that uses it, once; threads take turns on it.

    One thread at a time computes on a GPU; on a CPU as many as there are cores for, since PyTorch uses several for one
    tile. Only the network goes to other processes, each of which chooses the device for itself.
    """

    def __init__(self, model: VDSR, device: str | torch.device | None) -> None:
        self.model, self.device = model, device
        self._engine: Engine | None = None
        self._first = threading.Lock()
        self._turns = threading.Semaphore()

    def __reduce__(self) -> tuple[Any, ...]:
        """What goes to another process."""
        return SharedEngine, (self.model, self.device)

    def __enter__(self) -> Engine:
        """Wait for a turn."""
        with self._first:
            if self._engine is None:
                self._engine = make_engine(self.model, self.device)
                if self._engine.device.type == "cpu":
                    self._turns = threading.Semaphore(max(1, (os.cpu_count() or 1) // torch.get_num_threads()))
        self._turns.acquire()
        return self._engine

    def __exit__(self, *_: object) -> None:
        """Let the next thread have its turn."""
        self._turns.release()
