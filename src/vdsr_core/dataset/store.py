"""Where the pixels of training images lie: on the device, in memory, or in a temporary file."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vdsr_core.memory import free_memory


def find_room(size: int, device: torch.device, store: str | os.PathLike[str] | None) -> tuple[torch.device, Any]:
    """Where arrays of so many bytes lie: the device, and the folder of their files, if they are in files."""
    memory = torch.device("cpu")
    if store is not None:
        return memory, store
    if size <= find_free(device) / 2:
        return device, None
    folder = None if device != memory and size <= find_free(memory) / 2 else tempfile.gettempdir()
    names = [str(device)] * (device != memory) + ["memory"] * (folder is not None)
    warnings.warn(
        f"training images and their interpolations, {size / 1e9:.1f} GB, take more than half of what is free: they "
        f"leave {' and '.join(names)} for {folder or 'memory'}, and steps get slower. Take fewer images or scales, or "
        "choose the folder by `store`.",
        stacklevel=3,
    )
    return memory, folder


def find_free(device: torch.device) -> int:
    """Bytes that are free on a device."""
    return int(torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory())


def join(
    planes: Iterable[NDArray[Any]], store: str | os.PathLike[str] | None, shapes: list[tuple[int, ...]] | None = None
) -> NDArray[np.float32]:
    """The pixels of all planes in one array, in a temporary file of the folder `store` if there is one.

    Their shapes are appended to `shapes`.
    """
    noted = [] if shapes is None else shapes
    if store is None:
        kept = [np.asarray(plane, np.float32) for plane in planes]
        noted += [plane.shape for plane in kept]
        return np.concatenate([plane.ravel() for plane in kept])
    with tempfile.TemporaryFile(dir=store) as file:
        for plane in planes:
            noted.append(plane.shape)
            file.write(np.asarray(plane, np.float32).tobytes())
        file.flush()
        return np.memmap(file, np.float32, "c")  # "c": PyTorch wants what could be written to


def find_starts(sizes: Sequence[int]) -> NDArray[np.int64]:
    """Where arrays of these sizes begin when they are joined."""
    return np.cumsum([0, *sizes])[:-1]
