"""One upscaling as it is asked for, and what is found of its image before it begins. No Qt, no napari."""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_vdsr.background.pytorch import load_network, stop_if
from napari_vdsr.layers.image_layers import Slices, Source, core_channels

Range = tuple[float, float]
Ranges = Range | list[Range]
Noise = tuple[float, float]  # gain and offset of its variance

AUTO = "auto"
CHECKED = 1 << 30  # bytes of an array whose checksum is taken; of more, some pixels are left out
RANGE, NOISE, SPREAD = "range", "noise", "noise of windows"  # what is found of pixels
WINDOW, WINDOWS, PLANES = 256, 64, 4  # rows and columns of a window, and how many windows and planes are read at most
KEPT = 32  # findings that are remembered
JPEG = {".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".svs"}  # ends of names of files that may hold JPEG
LEAST = 0.005  # of compression, to be told
MEAN_STEP = 57.6 / 255  # of luma at quality 50 in the tables of libjpeg, which nearly all programs scale


@dataclass(frozen=True)
class Task:
    """One upscaling; what is not explained here is as in `vdsr_core.super_resolve`."""

    source: Source
    scale: float
    model: str | None = None
    device: str | None = None
    tile: int | None = None  # None takes the one of `Facts`
    in_range: Ranges | None = None  # None finds it in `looked_at`
    looked_at: Any = None  # all planes of the source, or its coarsest level
    near: tuple[int, ...] | None = None  # the pixel of the result to begin at
    self_ensemble: bool = False
    noise: Any = AUTO  # also a text such as "3%", of the range
    compression: str | float = AUTO
    path: str | None = None  # the file of the source, which may say how it is compressed

    @property
    def several_levels(self) -> bool:
        """Whether `looked_at` is another level than the finest one."""
        return self.looked_at is not None and self.looked_at is not self.source.data

    @property
    def choices(self) -> str:
        """What the pixels depend on, the source and their place aside; equal for equal choices."""
        asked = self.scale, self.model, self.device, self.in_range, self.self_ensemble, self.noise, self.compression
        return repr((*asked, self.source.channel_axis, self.source.rgb))


@dataclass(frozen=True)
class Found:
    """What was given or found of an image before it is upscaled."""

    in_range: Ranges  # the intensities that become 0 and 1
    noise: list[Noise]  # what the network removes of each channel; empty if it removes none
    compression: float = 0.0  # the traces of JPEG that it removes

    @property
    def removed(self) -> dict[str, Any]:
        """What the core is told of it; nothing for a network that knows nothing of it."""
        noise = {"noise": self.noise if len(self.noise) > 1 else self.noise[0]} if self.noise else {}
        return noise | ({"compression": self.compression} if self.compression else {})

    def options(self, task: Task) -> dict[str, Any]:
        """What the core is told of the image and how to upscale it."""
        image = {"channel_axis": core_channels(task.source), "rgb": task.source.rgb}
        return {**image, "in_range": self.in_range, "self_ensemble": task.self_ensemble, **self.removed}

    def words(self) -> str:
        """What the network has removed, as a sentence; empty if that is nothing."""
        from vdsr_core import describe_quality

        words = describe_quality(self.noise, _each(self.in_range, self.noise))
        jpeg = f"traces of JPEG of quality {to_quality(self.compression):.0f}" if self.compression >= LEAST else ""
        found = " and ".join(filter(None, (words, jpeg)))
        return f" Removed: {found}." if found else ""


@dataclass(frozen=True)
class LayerCondition:
    """How noisy and compressed the layers are, and whether the network fits that."""

    noise: list[float] = field(default_factory=list)  # of each layer and channel, as a fraction of its range
    compression: float = 0.0  # the strongest
    misfit: str = ""  # why the network should not be used for that; empty if it may
    fitting: str = ""  # a network that fits better; empty if there is none
    about: str = ""  # "about " where only parts of layers were looked at


class Cancellable:
    """A part of an array, read when it is sliced, that gives no more pixels when the work is cancelled."""

    def __init__(self, data: Any, cancelled: threading.Event, part: Slices = ()) -> None:
        self.data, self.cancelled = data, cancelled
        self.part = (*part, *(slice(0, n) for n in data.shape[len(part) :]))
        self.shape, self.dtype = tuple(p.stop - p.start for p in self.part), np.dtype(data.dtype)
        self.ndim = len(self.shape)

    def __getitem__(self, key: Slices) -> NDArray[Any]:
        """The pixels, or the end of the work."""
        stop_if(self.cancelled)
        moved = (slice(p.start + k.start, p.start + k.stop) for p, k in zip(self.part, key, strict=True))
        return np.asarray(self.data[tuple(moved)])


def find(task: Task, cancelled: threading.Event) -> Found:
    """What is found of the whole layer: the same for a plane, a region, and all of it."""
    source, maps = task.source, load_network(task.model).maps
    if "noise" in maps and task.noise == AUTO and task.in_range is None and not task.several_levels:
        ranges, noise = (_of_part(found, source) for found in _measure(source, source.data, (RANGE, NOISE), cancelled))
        in_range = ranges if source.channel_axis is not None else ranges[0]
        noise = tolerate(noise, in_range, task)
    else:
        in_range = find_ranges(task, cancelled)
        noise = find_noise(task, in_range, cancelled) if "noise" in maps else []
    return Found(in_range, noise, find_compression(task) if "compression" in maps else 0.0)


def find_ranges(task: Task, cancelled: threading.Event) -> Ranges:
    """The range that was given, or the one of the whole layer."""
    if task.in_range is not None:
        return task.in_range
    source, looked_at = task.source, task.source.data if task.looked_at is None else task.looked_at
    (found,) = _measure(source, looked_at, (RANGE,), cancelled)
    if any(low >= high for low, high in found) and task.several_levels:
        (found,) = _measure(source, source.data, (RANGE,), cancelled)  # only the coarse level is flat
    found = _of_part(found, source)
    return found if source.channel_axis is not None else found[0]


def find_noise(task: Task, in_range: Ranges, cancelled: threading.Event, *, quickly: bool = False) -> list[Noise]:
    """The noise that is to be removed from each channel, as given or as found in the finest level.

    Where several levels are not in memory, or `quickly` where anything is not, only windows
    that are spread over the finest level are read.
    """
    from vdsr_core import survey

    source = task.source
    if task.noise != AUTO:
        image: Any = Cancellable(source.data, cancelled)
        channels = core_channels(source)
        _, found = survey(image, channel_axis=channels, rgb=source.rgb, in_range=(0, 1), noise=task.noise)
        if isinstance(task.noise, str):  # of the range, which is that of the part already
            pairs = in_range if isinstance(in_range, list) else [in_range]
            return [(0.0, found[0][1] * (high - low) ** 2) for low, high in pairs]
    else:
        whole = isinstance(source.data, np.ndarray) or not (quickly or task.several_levels)
        (found,) = _measure(source, source.data, (NOISE if whole else SPREAD,), cancelled)
    found = _of_part(found, source)
    return tolerate(found, in_range, task) if task.noise == AUTO else found


def tolerate(noise: list[Noise], in_range: Ranges, task: Task) -> list[Noise]:
    """The noise that was found, without what is too weak for the network to be removed."""
    return load_network(task.model).tolerance.select_noise(noise, _each(in_range, noise), find_compression(task))


def _measure(source: Source, data: Any, wanted: Sequence[str], cancelled: threading.Event) -> list[list[Any]]:
    """Range, noise or both of each channel of an array, remembered from before or found in one pass.

    The noise of windows is found by itself.
    """
    from vdsr_core import survey

    state = fingerprint(data), source.channel_axis, source.rgb
    keys = {name: (name, *state) for name in wanted}
    missing = [name for name in wanted if keys[name] not in _findings]
    if SPREAD in missing:
        _keep(keys[SPREAD], data, _measure_spread(source, cancelled))
    elif missing:
        channels = core_channels(replace(source, data=data))  # a coarse level may be as narrow as colour
        image: Any = Cancellable(data, cancelled)
        ranges, noises = survey(
            image,
            channel_axis=channels,
            rgb=source.rgb,
            in_range=None if RANGE in missing else (0, 1),
            maps=(NOISE,) if NOISE in missing else (),
            tolerance=(0, 0),
        )
        if channels != source.channel_axis:  # what was declared as channels are planes
            ranges = [(min(low for low, _ in ranges), max(high for _, high in ranges))]
        for name, found in ((RANGE, ranges), (NOISE, noises)):
            if name in missing:
                _keep(keys[name], data, found)
    return [_findings[keys[name]][1] for name in wanted]


def _measure_spread(source: Source, cancelled: threading.Event) -> list[Noise]:
    """The noise of each channel in windows that are spread over an array."""
    from vdsr_core import estimate_noise

    image = Cancellable(source.data, cancelled)
    pixels = np.stack([image[window] for window in spread_windows(source)])
    channels = None if source.channel_axis is None else source.channel_axis + 1
    found = estimate_noise(pixels, channel_axis=channels, rgb=source.rgb)
    return found if isinstance(found, list) else [found]


def spread_windows(source: Source) -> list[Slices]:
    """Windows of equal size, of a few planes, each with all channels and colours.

    Examples
    --------
    >>> source = Source(np.broadcast_to(np.uint16(0), (50, 4000, 100)), "", False, None, (slice(0, 50),) * 3)
    >>> windows = spread_windows(source)
    >>> len(windows), windows[0]
    (16, (slice(6, 7, None), slice(372, 628, None), slice(0, 100, None)))
    """
    lengths = source.data.shape
    leading = [axis for axis in range(len(source.part)) if axis not in (*source.plane_axes, source.channel_axis)]
    planes = math.prod(lengths[axis] for axis in leading)
    count = min(planes, PLANES)
    along = math.isqrt(WINDOWS // count)  # windows along rows, and along columns
    spans = [_spread(lengths[axis], along) for axis in source.plane_axes]
    found: list[Slices] = []
    for number in range(count):
        index = np.unravel_index(int((number + 0.5) * planes / count), [lengths[axis] for axis in leading])
        axes = [[slice(0, length)] for length in lengths]
        for axis, at in zip(leading, index, strict=True):
            axes[axis] = [slice(int(at), int(at) + 1)]
        for axis, span in zip(source.plane_axes, spans, strict=True):
            axes[axis] = span
        found += product(*axes)
    return found


def _spread(length: int, count: int) -> list[slice]:
    """Windows in the middle of each of the equal parts of an axis, as far as they do not overlap."""
    side = min(WINDOW, length)
    count = min(count, length // side)
    starts = [int((number + 0.5) * length / count - side / 2) for number in range(count)]
    return [slice(start, start + side) for start in starts]


def find_compression(task: Task) -> float:
    """How strongly an image is compressed, as given or as its file says."""
    if not isinstance(task.compression, str):
        return task.compression
    path = Path(task.path) if task.path else None
    if path is None or path.suffix.lower() not in JPEG or not path.is_file():
        return 0.0
    return load_network(task.model).tolerance.select_compression(_read_compression(path, path.stat().st_mtime_ns))


@lru_cache(maxsize=64)
def _read_compression(path: Path, modified: int) -> float:
    from vdsr_core import read_image

    try:
        return float(read_image(path, lazy=True).compression)
    except (OSError, ValueError, RuntimeError):  # another plugin has read it
        return 0.0


def share(noise: list[Noise], in_range: Ranges) -> list[float]:
    """The noise of each channel as a fraction of its range."""
    from vdsr_core import noise_fraction

    return [noise_fraction(*both) for both in zip(noise, _each(in_range, noise), strict=True)]


def _each(in_range: Ranges, noise: list[Noise]) -> list[Range]:
    """The range of each channel, if their noise is known."""
    pairs = in_range if isinstance(in_range, list) else [in_range] * len(noise)
    return pairs if noise else []


def to_quality(compression: float) -> float:
    """The quality, from 1 to 100, at which libjpeg's tables compress so strongly.

    Examples
    --------
    >>> [round(to_quality(to_compression(quality))) for quality in (10, 50, 90, 100)]
    [10, 50, 90, 100]
    """
    percent = 100 * compression / MEAN_STEP
    return min(100.0, max(1.0, 5000 / percent if percent > 100 else (200 - percent) / 2))


def to_compression(quality: float) -> float:
    """The mean quantisation step of luma as a fraction of 255; see `to_quality`."""
    return MEAN_STEP * (5000 / quality if quality < 50 else 200 - 2 * quality) / 100


def _of_part(found: list[Any], source: Source) -> list[Any]:
    """What was found of each channel, for the channels of a part; one without channels."""
    return found[:1] if source.channel_axis is None else list(found[source.part[source.channel_axis]])


_findings: dict[Hashable, tuple[Any, Any]] = {}  # by the pixels they were found in, the oldest first


def _keep(key: Hashable, data: Any, found: Any) -> None:
    """Remember what was found; the oldest is forgotten."""
    _findings[key] = (None if isinstance(data, np.ndarray) else data), found  # an id must not come again
    while len(_findings) > KEPT:
        del _findings[next(iter(_findings))]


def fingerprint(data: Any) -> Hashable:
    """What tells the pixels of an array from others, also when they are changed in place."""
    if not isinstance(data, np.ndarray):
        return id(data)
    step = math.ceil((data.nbytes / CHECKED) ** (1 / max(1, data.ndim)))
    sample = np.ascontiguousarray(data[(slice(None, None, max(1, step)),) * data.ndim])
    return data.shape, data.dtype.str, zlib.crc32(sample.reshape(-1).view(np.uint8).data)
