"""PyTorch beside a viewer: one piece of work at a time, the networks, and what is known of them. No Qt, no napari."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_vdsr.layers.image_layers import Source, count_pixels

if TYPE_CHECKING:
    from vdsr_core import VDSR

TILES = (128, 192, 256, 384, 512)
TILE_SECONDS = 2.5  # between two tiles: often enough to see progress
PROBE_SECONDS = 0.5
TURNS = 8  # flips and rotations, over which `self_ensemble` takes the mean

_next, _turn = threading.Lock(), threading.Lock()  # whoever waits for the turn holds `_next`


class Cancelled(Exception):
    """Raised when the user cancels."""


@dataclass(frozen=True)
class Facts:
    """What is known of a network on a device."""

    halo: int  # pixels around a tile that are computed, too
    speed: float  # output pixels per second
    summary: str  # the network in words
    devices: dict[str, str]  # the devices that are here, each with a few words
    chosen: str  # the device that is taken, and why
    scales: tuple[float, ...] = ()  # that the network was trained for
    maps: tuple[str, ...] = ()  # what it can remove: noise, compression

    def seconds(self, source: Source, scale: float, tile: int) -> float:
        """How long a source takes: the pixels of all tiles with their halos, by the speed."""
        return count_pixels(source.grid(scale), source.plane_axes, tile, self.halo) / self.speed

    @property
    def tile(self) -> int:
        """The largest side of a tile that is done often enough to see progress."""
        fits = (side for side in TILES if (side + 2 * self.halo) ** 2 <= TILE_SECONDS * self.speed)
        return max(fits, default=TILES[0])


def stop_if(cancelled: threading.Event) -> None:
    """Raise if the work is cancelled."""
    if cancelled.is_set():
        raise Cancelled


@contextmanager
def computing(cancelled: threading.Event) -> Iterator[None]:
    """PyTorch for one piece of work at a time, with a core left to the viewer."""
    _take(_next, cancelled)  # work that has just had its turn waits here for the one that is next
    try:
        _take(_turn, cancelled)
    finally:
        _next.release()
    try:
        torch = load_torch()
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads - 1))
        try:
            yield
        finally:
            torch.set_num_threads(threads)
    finally:
        _turn.release()


def _take(lock: threading.Lock, cancelled: threading.Event) -> None:
    """Acquire a lock, unless the work is cancelled before."""
    while not lock.acquire(timeout=0.05):
        stop_if(cancelled)


def load_torch() -> Any:
    """PyTorch, loaded so that the viewer stays usable meanwhile; an ImportError with the way out if that fails."""
    first = "torch" not in sys.modules
    if first:
        _preload()
    try:
        with collecting_after() if first else nullcontext():
            import torch
    except (ImportError, OSError) as error:
        msg = f"PyTorch cannot be loaded ({str(error).splitlines()[0]}). "
        if sys.platform == "win32":
            msg += "On Windows it must be loaded before Qt: start napari with "
            msg += '`python -c "import torch, napari; napari.Viewer(); napari.run()"`, '
            msg += "or install the Microsoft Visual C++ Redistributable."
        else:
            msg += "Install it again: `pip install --force-reinstall torch`."
        raise ImportError(msg) from error
    return torch


@contextmanager
def collecting_after() -> Iterator[None]:
    """Collect garbage once after something that makes many objects: not several times meanwhile, nor at the next click.

    A collection over PyTorch's objects holds all threads for a quarter of a second.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        gc.collect()


def _preload() -> None:
    """Map PyTorch's largest library by a call that lets other Python threads run, as `import` does not."""
    name = {"linux": "libtorch_cpu.so", "darwin": "libtorch_cpu.dylib"}.get(sys.platform)
    spec = find_spec("torch")
    if name is None or spec is None or not spec.submodule_search_locations:
        return
    path = Path(spec.submodule_search_locations[0]) / "lib" / name
    if path.exists():
        dlopen = ctypes.CDLL(None).dlopen
        dlopen.restype, dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
        dlopen(os.fsencode(path), os.RTLD_LAZY)


def load_network(model: str | None) -> VDSR:
    """A network, from memory if its file has not changed."""
    return _load_network(*_state_of(model))


def _state_of(model: str | None) -> tuple[str | None, int]:
    """A network, and when its file was changed last."""
    path = Path(model) if model else None
    return model, path.stat().st_mtime_ns if path and path.is_file() else 0


@lru_cache(maxsize=4)
def _load_network(model: str | None, modified: int) -> VDSR:
    from vdsr_core import load_model

    return load_model(model)


def examine(
    model: str | None, device: str | None, cancelled: threading.Event, *, self_ensemble: bool = False
) -> Iterator[Facts]:
    """Give the facts of a network on a device; its speed is measured once, and known while others compute."""
    key = (*_state_of(model), device, self_ensemble)
    if key not in _known:
        with computing(cancelled):
            _known[key] = examine_now(model, device, self_ensemble=self_ensemble)
    yield _known[key]


_known: dict[tuple[str | None, int, str | None, bool], Facts] = {}


def examine_now(model: str | None, device: str | None, *, self_ensemble: bool = False) -> Facts:
    """The facts of a network on a device; to be called inside `computing`."""
    from vdsr_core import list_devices

    network = load_network(model)
    devices = list_devices()
    speed = measure_speed(network, device) / (TURNS if self_ensemble else 1)
    summary = str(network.card.get("summary", ""))
    chosen, scales = explain_device(device, devices), tuple(network.scales)
    return Facts(network.halo, speed, summary, devices, chosen, scales, network.maps)


@lru_cache(maxsize=8)
def measure_speed(network: VDSR, device: str | None) -> float:
    """Output pixels per second, from ever larger windows; half a second after the first call."""
    from vdsr_core import super_resolve

    def seconds_of(side: int) -> float:
        image = np.random.default_rng(0).random((side // 2, side // 2), dtype=np.float32)
        start = time.perf_counter()
        super_resolve(image, 2, model=network, in_range=(0, 1), tile=None, device=device)
        return time.perf_counter() - start

    seconds_of(32)  # it also prepares the network and the device, which tells nothing of their speed
    spent = 0.0
    for side in (32, 64, 128, 256, 512):
        seconds = seconds_of(side)
        spent += seconds
        if spent + 4 * seconds > PROBE_SECONDS:
            break
    return side**2 / seconds


def explain_device(device: str | None, devices: dict[str, str]) -> str:
    """One sentence on which device is taken and why."""
    if device is not None:
        return f"{device} ({devices.get(device, 'as chosen')}) is used because you chose it."
    first = next((name for name in devices if name != "cpu"), "cpu")
    if first == "cpu":
        return "The CPU is used because PyTorch finds no GPU here. One core is left to the viewer."
    if first == "mps":
        return "The Apple GPU is used if it agrees with the CPU on a test tile, else the CPU."
    return f"{devices[first]} is used because it is the first GPU that PyTorch finds."
