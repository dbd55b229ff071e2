"""The work behind the widget, as generators for a thread that is not the viewer's. No Qt, no napari."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_vdsr._layers import Slices, Source, core_channels

if TYPE_CHECKING:
    from vdsr_core import VDSR, Tile

Range = tuple[float, float]
Ranges = Range | list[Range]

TILES = (256, 384, 512)  # smaller ones would compute more halo than tile
TILE_SECONDS = 4  # between two tiles to look at; a run can be cancelled after each layer of the network
PROBE_SECONDS = 0.25
TRY_SIDE = 512
LAZY_TILE = 256  # what is in view is computed in whole tiles
COARSER = 4  # times fewer pixels a side from one made level to the next
SMALLEST_LEVEL = 256  # pixels a side

_turn = threading.Lock()
_speeds: dict[tuple[Any, ...], float] = {}


class Cancelled(Exception):
    """The user has had enough."""


@dataclass(frozen=True)
class Facts:
    """What is known of a network on a device.

    Attributes
    ----------
    halo : int
        Pixels around a tile that are computed too.
    speed : float
        Output pixels per second.
    summary : str
        The network in words.
    devices : dict
        The devices that are here, each with a few words.
    chosen : str
        The device that is taken, and why.
    """

    halo: int
    speed: float
    summary: str
    devices: dict[str, str]
    chosen: str

    def seconds(self, source: Source, scale: float, tile: int) -> float:
        """How long a source takes: the pixels of all tiles with their halos, by the speed."""
        axes = source.plane_axes
        pixels = 1
        for axis, part in enumerate(source.grid(scale)):
            halos = 2 * self.halo * (_cuts(part, tile) - 1) if axis in axes else 0
            pixels *= part.stop - part.start + halos
        return pixels / self.speed

    @property
    def tile(self) -> int:
        """The largest side of a tile that lets one see the run go on."""
        fits = (side for side in TILES if (side + 2 * self.halo) ** 2 <= TILE_SECONDS * self.speed)
        return max(fits, default=TILES[0])


@dataclass(frozen=True)
class Task:
    """One upscaling.

    Attributes
    ----------
    source : Source
        What to upscale.
    scale : float
        Output pixels per input pixel.
    model : str or None
        Name or file of the network; None for the default.
    device : str or None
        Where to compute; None lets it be chosen.
    tile : int or None
        Side of a tile; None takes the one of `Facts`.
    in_range : (low, high), list of them, or None
        The intensities that become 0 and 1; None finds them in `looked_at`.
    looked_at : array, optional
        All planes of the source, or its coarsest level.
    near : tuple of int, optional
        The pixel of the result to begin at.
    """

    source: Source
    scale: float
    model: str | None = None
    device: str | None = None
    tile: int | None = None
    in_range: Ranges | None = None
    looked_at: Any = None
    near: tuple[int, ...] | None = None


@dataclass
class Pulse:
    """How many layers of the network have been computed; the viewer's thread may read it at any time."""

    layers: int = 0


@dataclass(frozen=True)
class Started:
    """The first step of a run.

    Attributes
    ----------
    out : ndarray
        What is written into.
    in_range : (low, high), or list of them
        As given or found.
    tile, count : int
        Side and number of the tiles.
    pulse : Pulse
        Grows by `depth` with each tile.
    depth : int
        Layers of the network.
    """

    out: NDArray[Any]
    in_range: Ranges
    tile: int
    count: int
    pulse: Pulse
    depth: int


@dataclass(frozen=True)
class Written:
    """A finished tile, and how many there are so far."""

    tile: Tile
    done: int


@dataclass(frozen=True)
class Found:
    """The range of a layer, for an axis of independent channels or none."""

    channel_axis: int | None
    in_range: Ranges


@dataclass(frozen=True)
class Base:
    """The first step of a preview.

    Attributes
    ----------
    in_range : (low, high), or list of them
        As given or found.
    pixels : ndarray
        The source's pixels at the size of the result, each as often as it takes.
    """

    in_range: Ranges
    pixels: NDArray[Any]


@dataclass(frozen=True)
class Pyramid:
    """A result that is computed where one looks: levels, the finest first, and the range."""

    levels: list[Any]
    in_range: Ranges
    tile: int


@dataclass(frozen=True)
class Piece:
    """A finished tile of a preview: its place on the grid of the whole layer's result, and its pixels."""

    place: Slices
    pixels: NDArray[Any]


@dataclass(frozen=True)
class Trial:
    """How well a network restores an image that was made small.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns compared.
    psnr, ssim : dict
        For "bicubic" and "vdsr".
    """

    shape: tuple[int, int]
    psnr: dict[str, float]
    ssim: dict[str, float]


class Watched:
    """A part of an array, read when it is sliced, that gives no more pixels when the work is cancelled."""

    def __init__(self, data: Any, cancelled: threading.Event, part: Slices = ()) -> None:
        self.data, self.cancelled = data, cancelled
        self.part = (*part, *(slice(0, n) for n in data.shape[len(part) :]))
        self.shape, self.dtype = tuple(p.stop - p.start for p in self.part), np.dtype(data.dtype)

    def __getitem__(self, key: Slices) -> NDArray[Any]:
        """The pixels, or the end of the work."""
        stop_if(self.cancelled)
        moved = (slice(p.start + k.start, p.start + k.stop) for p, k in zip(self.part, key, strict=True))
        return np.asarray(self.data[tuple(moved)])


def stop_if(cancelled: threading.Event) -> None:
    """Raise if the work is cancelled."""
    if cancelled.is_set():
        raise Cancelled


@contextmanager
def computing(cancelled: threading.Event) -> Iterator[None]:
    """PyTorch for one piece of work at a time, with a core left to the viewer."""
    while not _turn.acquire(timeout=0.05):
        stop_if(cancelled)
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


def load_torch() -> Any:
    """PyTorch, loaded so that the viewer goes on meanwhile.

    Raises
    ------
    ImportError
        With the way out, where it cannot be loaded.
    """
    if "torch" not in sys.modules:
        _preload()
    try:
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


def embedded_models() -> list[str]:
    """The names of the networks that come with the package."""
    return sorted(entry.name[:-12] for entry in (files("vdsr_core") / "pretrained").iterdir() if _is_model(entry.name))


def _is_model(name: str) -> bool:
    return name.endswith(".safetensors")


def load_network(model: str | None) -> VDSR:
    """A network, from memory if its file has not changed."""
    path = Path(model) if model else None
    return _load_network(model, path.stat().st_mtime_ns if path and path.is_file() else 0)


@lru_cache(maxsize=4)
def _load_network(model: str | None, modified: int) -> VDSR:
    from vdsr_core import load_model

    return load_model(model)


def examine(model: str | None, device: str | None, cancelled: threading.Event) -> Iterator[Facts]:
    """Give the facts of a network on a device; its speed is measured once."""
    with computing(cancelled):
        yield _examine(model, device)


def _examine(model: str | None, device: str | None) -> Facts:
    network = load_network(model)
    devices = find_devices()
    key = (id(network), device)
    if key not in _speeds:
        _speeds[key] = measure_speed(network, device)
    return Facts(network.halo, _speeds[key], describe_network(network), devices, explain_device(device, devices))


def measure_speed(network: VDSR, device: str | None) -> float:
    """Output pixels per second, from ever larger windows; a quarter of a second in all."""
    from vdsr_core import super_resolve

    def seconds_of(side: int) -> float:
        image = np.random.default_rng(0).random((side // 2, side // 2), dtype=np.float32)
        start = time.perf_counter()
        super_resolve(image, 2, model=network, in_range=(0, 1), tile=None, device=device)
        return time.perf_counter() - start

    spent = seconds_of(32)  # the first call also prepares the device
    for side in (32, 64, 128, 256, 512):
        seconds = seconds_of(side)
        spent += seconds
        if spent + 4 * seconds > PROBE_SECONDS:
            break
    return side**2 / seconds


def find_devices() -> dict[str, str]:
    """The devices that are here, by PyTorch's names, each with a few words."""
    torch = load_torch()
    found = {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found | {"cpu": "processor"}


def explain_device(device: str | None, devices: dict[str, str]) -> str:
    """One sentence on which device is taken and why."""
    if device is not None:
        return f"{device} ({devices.get(device, 'as chosen')}) is used because you chose it."
    first = next(iter(devices))
    if first == "cpu":
        return "The CPU is used because PyTorch finds no GPU here. One core is left to the viewer."
    if first == "mps":
        return "The Apple GPU is used if it agrees with the CPU on a test tile, else the CPU."
    return f"{devices[first]} is used because it is the first GPU that PyTorch finds."


def describe_network(network: VDSR) -> str:
    """A network in words, from its card."""
    summary = network.card.get("summary")
    shape = f"{network.config.depth} layers of {network.config.width} filters"
    scales = ", ".join(f"{scale:g}" for scale in network.scales) or "scales unknown"
    return f"{summary or shape} Made for: {scales}."


@contextmanager
def watching(network: VDSR, cancelled: threading.Event, pulse: Pulse) -> Iterator[None]:
    """Have the copies that are made of a network meanwhile look before each layer whether to go on."""

    def look(*_: object) -> None:
        stop_if(cancelled)
        pulse.layers += 1

    handles = [layer.register_forward_pre_hook(look) for layer in network.convolutions]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def upscale(task: Task, cancelled: threading.Event) -> Iterator[Started | Written]:
    """Upscale tile by tile; the first step comes when the image is known to be sound."""
    with computing(cancelled):
        tile = task.tile or _examine(task.model, task.device).tile
        in_range = find_ranges(task, cancelled)
        source, shape = task.source, task.source.result_shape(task.scale)
        out = np.zeros(shape, np.dtype(source.data.dtype))
        pulse = Pulse()
        options: dict[str, Any] = {"channel_axis": core_channels(source), "rgb": source.rgb, "in_range": in_range}
        if (window := source.window(task.scale)) is not None:
            options["window"] = window
        image = Watched(source.data, cancelled, source.planes)
        tiles = run_tiles(task, tile, image, out, cancelled, pulse, near=task.near, **options)
        depth = load_network(task.model).config.depth
        yield Started(out, in_range, tile, count_tiles(source.grid(task.scale), source.plane_axes, tile), pulse, depth)
        for done, written in enumerate(tiles, 1):
            yield Written(written, done)
            stop_if(cancelled)


def preview(task: Task, grid: Slices, places: Sequence[Slices], cancelled: threading.Event) -> Iterator[Base | Piece]:
    """Give the source's own pixels of a grid, then the tiles that are wanted, in their order."""
    source = task.source
    with computing(cancelled):
        in_range = find_ranges(task, cancelled)
        yield Base(in_range, repeat(source, task.scale, grid))
        image = Watched(source.data, cancelled, source.planes)
        options = {"channel_axis": core_channels(source), "rgb": source.rgb, "in_range": in_range}
        for place in places:
            shape = tuple(p.stop - p.start for p in place) + tuple(source.data.shape[len(place) :])
            out = np.empty(shape, np.dtype(source.data.dtype))
            window = tuple(place[axis] for axis in source.plane_axes)
            for _ in run_tiles(task, None, image, out, cancelled, Pulse(), window=window, **options):
                stop_if(cancelled)
            yield Piece(place, out)


def repeat(source: Source, scale: float, grid: Slices) -> NDArray[Any]:
    """The nearest pixel of a source for each pixel of a grid."""
    part, nearest = list(grid), {}
    for axis in source.plane_axes:
        wanted = np.arange(grid[axis].start, grid[axis].stop)
        index = np.minimum(((wanted + 0.5) / scale).astype(int), source.data.shape[axis] - 1)
        part[axis] = slice(int(index[0]), int(index[-1]) + 1)
        nearest[axis] = index - index[0]
    pixels = np.asarray(source.data[tuple(part)])
    for axis, index in nearest.items():
        pixels = pixels.take(index, axis)
    return pixels


def build_pyramid(task: Task, levels: Sequence[Any], cancelled: threading.Event) -> Iterator[Pyramid]:
    """Put a super-resolved level, of which nothing is computed yet, on top of the levels of a source."""
    import dask.array as da

    from vdsr_core import super_resolve

    source = task.source
    with computing(cancelled):
        in_range = find_ranges(task, cancelled)
        tile = task.tile or LAZY_TILE
        data = da.asarray(source.data)[source.part]
        network = load_network(task.model)
        options: dict[str, Any] = {"channel_axis": core_channels(source), "rgb": source.rgb, "in_range": in_range}
        finest = super_resolve(data, task.scale, model=network, tile=tile, device=task.device, **options)
        yield Pyramid([finest, *coarse_levels(source, levels)], in_range, tile)


def coarse_levels(source: Source, levels: Sequence[Any]) -> list[Any]:
    """The levels of a source that show its part when one looks from afar; made by leaving pixels out if it has one."""
    import dask.array as da

    kept = [axis for axis in range(len(source.part)) if axis not in source.plane_axes]
    if len(levels) > 1:
        same = [level for level in levels if all(level.shape[a] == source.data.shape[a] for a in kept)]
        part = tuple(slice(None) if axis in source.plane_axes else p for axis, p in enumerate(source.part))
        return [level[part] for level in same]
    found = [source.data if isinstance(source.data, np.ndarray) else da.asarray(source.data)]
    found[0] = found[0][source.part]
    fewer = tuple(slice(None, None, COARSER if axis in source.plane_axes else None) for axis in range(len(source.part)))
    while min(found[-1].shape[axis] for axis in source.plane_axes) > COARSER * SMALLEST_LEVEL:
        found.append(found[-1][fewer])
    return found


def run_tiles(
    task: Task,
    tile: int | None,
    image: Watched,
    out: NDArray[Any],
    cancelled: threading.Event,
    pulse: Pulse,
    **options: Any,
) -> Iterator[Tile]:
    """The core's tiles with the task's network, ready to be cancelled while they read and compute."""
    from vdsr_core import super_resolve_tiles

    network = load_network(task.model)
    with watching(network, cancelled, pulse):
        return super_resolve_tiles(
            image,  # type: ignore[arg-type]  # it is sliced, never converted
            task.scale,
            out,
            model=network,
            tile=tile,
            device=task.device,
            **options,
        )


def count_tiles(grid: Slices, plane_axes: tuple[int, int], tile: int) -> int:
    """How many tiles a run has; they are cut where those of the whole result are."""
    return math.prod(_cuts(p, tile) if axis in plane_axes else p.stop - p.start for axis, p in enumerate(grid))


def _cuts(part: slice, tile: int) -> int:
    """How many tiles a part of an axis touches."""
    return -(-int(part.stop) // tile) - int(part.start) // tile


def find_ranges(task: Task, cancelled: threading.Event) -> Ranges:
    """The range that was given, or the one of the whole layer: the same for a plane and for all planes."""
    from vdsr_core import find_range

    if task.in_range is not None:
        return task.in_range
    channels = core_channels(task.source)

    def find(data: Any) -> Ranges:
        image: Any = Watched(data, cancelled)
        return find_range(image, channel_axis=channels, rgb=task.source.rgb)

    looked_at = task.source.data if task.looked_at is None else task.looked_at
    found = find(looked_at)
    if _pinched(found) and looked_at is not task.source.data:  # a coarse level may be flat where the finest is not
        found = find(task.source.data)
    if isinstance(found, list) and channels != task.source.channel_axis:
        return (min(low for low, _ in found), max(high for _, high in found))
    return found


def _pinched(found: Ranges) -> bool:
    pairs = found if isinstance(found, list) else [found]
    return any(low >= high for low, high in pairs)


def try_out(task: Task, cancelled: threading.Event) -> Iterator[Trial]:
    """Make the middle of a plane small, upscale it back, and compare with what it was."""
    from vdsr_core import degrade, psnr, resize, ssim

    with computing(cancelled):
        tile = task.tile or _examine(task.model, task.device).tile
        in_range = find_ranges(task, cancelled)
        low, high = in_range[0] if isinstance(in_range, list) else in_range
        if low >= high:
            msg = "`image` must not be constant. Choose a layer or a range with some contrast."
            raise ValueError(msg)
        hr = middle(task.source).astype(np.float32)  # (colours, rows, columns)
        ilr = resize(small := degrade(hr, task.scale), task.scale)
        sr = np.empty_like(ilr)
        colour = {"rgb": True, "channel_axis": 0} if task.source.rgb else {"channel_axis": 0}
        for _ in run_tiles(
            task, tile, Watched(small, cancelled), sr, cancelled, Pulse(), in_range=(low, high), **colour
        ):
            stop_if(cancelled)
        hr = hr[:, : ilr.shape[1], : ilr.shape[2]]
        border = math.ceil(task.scale)

        def mean_ssim(image: NDArray[Any]) -> float:
            pairs = zip(hr, image, strict=True)
            return float(np.mean([ssim(*pair, data_range=high - low, crop_border=border) for pair in pairs]))

        results = {"bicubic": ilr, "vdsr": sr}
        yield Trial(
            hr.shape[1:],
            {name: psnr(hr, image, data_range=high - low, crop_border=border) for name, image in results.items()},
            {name: mean_ssim(image) for name, image in results.items()},
        )


def middle(source: Source) -> NDArray[Any]:
    """Up to 512 x 512 pixels in the middle of the first plane of a source, (colours, rows, columns)."""
    row, column = source.plane_axes
    part = [slice(p.start, p.start + 1) for p in source.part]
    for axis in (row, column):
        whole = source.part[axis]
        side = min(TRY_SIDE, whole.stop - whole.start)
        first = whole.start + (whole.stop - whole.start - side) // 2
        part[axis] = slice(first, first + side)
    pixels = np.asarray(source.data[tuple(part)])
    sides = pixels.shape[row], pixels.shape[column]
    colours = pixels.shape[-1] if source.rgb else 1
    return np.moveaxis(pixels.reshape(*sides, colours)[..., :3], -1, 0)
