"""What to fine-tune with: layers, parts of them, pairs, or a folder of images. No Qt, no napari."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_vdsr.background.pytorch import stop_if
from napari_vdsr.layers.image_layers import Source
from napari_vdsr.layers.regions import NoRegion, around_vertices

if TYPE_CHECKING:
    from napari.layers import Image, Shapes

    from vdsr_core import ImageFile

OTHER_AXES = "TZQVWUABDEFGHIJKLMNOPR"  # letters for axes that are neither planes nor channels
MEASURED = 512  # pixels of the sides of what blur and noise are measured in
KINDS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp", ".zarr")  # as `vdsr_core.read_folder` reads


@dataclass(frozen=True)
class Data:
    """What is chosen to train with: parts of layers, or pairs of a blurred and a sharp layer, or a folder of images."""

    sources: dict[str, Source] = field(default_factory=dict)
    pairs: dict[str, tuple[Source, Source]] = field(default_factory=dict)
    folder: str | None = None


@dataclass(frozen=True)
class Material:
    """What is trained with, in memory: images, pairs of a blurred and a sharp one, and why files were left out."""

    images: dict[str, ImageFile]
    pairs: dict[str, tuple[ImageFile, ImageFile]]
    left_out: dict[str, str] = field(default_factory=dict)


def shape_of(source: Source) -> tuple[int, ...]:
    """How many pixels a source has along each axis of its layer."""
    return tuple(part.stop - part.start for part in source.part)


def axes_of(source: Source) -> str:
    """A letter for each axis of a source, as `ImageFile` has them."""
    row, column = source.plane_axes
    known = {row: "Y", column: "X"} | ({} if source.channel_axis is None else {source.channel_axis: "C"})
    others = iter(OTHER_AXES)
    return "".join(known.get(axis) or next(others) for axis in range(len(source.part))) + "S" * source.rgb


def gather(data: Data, cancelled: threading.Event) -> Material:
    """Read what is chosen into memory; a ValueError if a folder holds no image that can be read."""
    from vdsr_core import ImageFile

    def read(source: Source) -> ImageFile:
        stop_if(cancelled)
        return ImageFile(np.array(source.data[source.part]), axes_of(source))  # a copy: the layer may change meanwhile

    if data.folder is not None:
        return gather_folder(Path(data.folder), cancelled)
    images = {name: read(source) for name, source in data.sources.items()}
    return Material(images, {name: (read(low), read(high)) for name, (low, high) in data.pairs.items()})


def rectangles(layer: Image, source: Source, shapes: Shapes) -> list[Source]:
    """The parts of a source around each shape of a layer; a ValueError if no shape lies on it, or two overlap."""
    start = layer.data_to_world((0,) * layer.ndim)
    parts = {}
    for number, vertices in enumerate(shapes.data, 1):
        with suppress(NoRegion):  # a shape may be meant for another layer
            parts[number] = around_vertices(layer, source, shapes, vertices, start)
    if not parts:
        msg = f"“{shapes.name}” has no shape on “{source.name}”: draw rectangles on the image."
        raise ValueError(msg)
    for (first, one), (second, other) in combinations(parts.items(), 2):
        if all(a.start < b.stop and b.start < a.stop for a, b in zip(one.part, other.part, strict=True)):
            msg = f"Shapes {first} and {second} overlap: what is held out of one would be trained with in the other. "
            msg += "Move them apart."
            raise ValueError(msg)
    return list(parts.values())


def gather_folder(folder: Path, cancelled: threading.Event) -> Material:
    """All images of a folder; those that cannot be read are left out."""
    from vdsr_core import read_folder

    images: dict[str, ImageFile] = {}
    left_out = {}
    for path, image in read_folder(folder):
        stop_if(cancelled)
        try:
            if isinstance(image, Exception):
                raise image
            images[path.name] = replace(image, data=np.asarray(image.data))
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            left_out[path.name] = str(error)
    if not images:
        first = next(iter(left_out.values()), "")
        msg = f"“{folder.name}” holds no image that can be read: {len(left_out)} files were tried. {first}"
        raise ValueError(msg.strip())
    return Material(images, {}, left_out)


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder, not of those inside it."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS and not path.name.startswith("."))


def measure_low_side(source: Source, scale: float, cancelled: threading.Event) -> Iterator[tuple[float, float]]:
    """Give blur, in pixels, and noise, as a fraction of the range, of the middle of a source's middle plane."""
    from vdsr_core import estimate_degradation, find_range

    stop_if(cancelled)
    middle = [slice((p.start + p.stop) // 2, (p.start + p.stop) // 2 + 1) for p in source.part]
    for axis in source.plane_axes:
        middle[axis] = source.about_middle(MEASURED).part[axis]
    plane = np.asarray(source.data[tuple(middle)], dtype=np.float64)
    plane = plane[..., :3].mean(-1) if source.rgb else plane
    plane = plane.reshape([n for n in plane.shape if n > 1])
    found: Any = find_range(plane)
    if not np.isfinite(plane).all() or found[0] >= found[1]:
        msg = f"“{source.name}” holds NaN, infinity or one value only: nothing can be measured."
        raise ValueError(msg)
    blur, noise = estimate_degradation(plane, scale)
    yield blur, noise / (found[1] - found[0])
