"""A job of upscaling one file into another: all that its pixels depend on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from vdsr_core.arguments import check_integer
from vdsr_core.formats import ome_zarr
from vdsr_core.formats.image_file import ImageFile
from vdsr_core.formats.ome_xml import fits_ome
from vdsr_core.formats.pyramid import TIFF, check_place, choose_format
from vdsr_core.formats.urls import is_url
from vdsr_core.images.noise import Noise
from vdsr_core.images.resampling import scale_pair, scaled_shape
from vdsr_core.network.checkpoint import fingerprint, to_network
from vdsr_core.network.model import VDSR
from vdsr_core.streaming.notes import read_note
from vdsr_core.streaming.source import identify, naming_chunks, open_source, stamp
from vdsr_core.upscaling.inference import super_resolve
from vdsr_core.upscaling.job import find_compression
from vdsr_core.upscaling.survey import read_percent, survey

Index = tuple[int, ...]
Range = tuple[float, float]
COMPRESSION = 100  # how much smaller than its pixels a result may be on disk
PLACES = ("source", "target", "overwrite", "name", "stamp")  # fields of a plan that its pixels do not depend on


def find_version() -> str:
    """The version of this package; "unknown" where it is not installed."""
    try:
        return metadata.version("napari-vdsr")
    except metadata.PackageNotFoundError:
        return "unknown"


def work_folder(target: Path) -> Path:
    """The hidden folder beside a target in which its shards are collected."""
    return target.with_name(f".{target.name}.partial")


@dataclass(frozen=True)
class Plan:
    """A plan to upscale one file into another: everything that its pixels depend on, in types that JSON can hold.

    `plan` makes it and `stream` carries it out. A shard is what one task writes: a window of one plane (with all its
    colours) in one level of the pyramid.

    Attributes
    ----------
    source, target : str
        Paths; `source` is empty for an image in memory.
    identity : str
        A checksum of the source's shape, dtype and samples of its pixels.
    axes : str
        Axes of the source, one letter each. The target has them in the order T, C, Z, Y, X; colour samples are
        channels.
    shape : tuple of int
        Shape of the target, in the order of its axes.
    dtype : str
        Dtype of source and target.
    scale : (float, float)
        Output pixels per input pixel of rows and columns.
    network : str
        A checksum of the network.
    in_range : tuple of (low, high)
        The range of each channel; a single one for colour, or without channels.
    tile, shard : int
        Sides in output pixels of a tile and of a shard.
    format : str
        ``0.5`` or ``0.4``, versions of OME-Zarr, or ``OME-TIFF``.
    version : str
        Version of this package.
    overwrite : bool
        Whether an existing target may be replaced.
    name : str or None
        Name of the image in a source that holds several.
    nan : str
        ``raise`` or ``keep``, as in `super_resolve`.
    self_ensemble : bool
        As in `super_resolve`.
    noise : tuple of (gain, offset)
        The noise that is removed from each channel, in units of the image; empty if the network removes no noise.
    compression : float
        The compression that is removed, as in `super_resolve`.
    stamp : str
        A checksum of sizes and times of the source's files, by which `stream` notices that the source has changed.

    Examples
    --------
    >>> job = Plan("cells.zarr", "cells_x2.ome.zarr", "", "YX", (9000, 5000), "uint16", (2.0, 2.0), "", ((0, 4095),))
    >>> job.levels, len(job.shards(0)), job.nbytes
    (5, 15, 90000000)
    >>> Plan.from_json(job.to_json()) == job
    True
    """

    source: str
    target: str
    identity: str
    axes: str
    shape: Index
    dtype: str
    scale: tuple[float, float]
    network: str
    in_range: tuple[Range, ...]
    tile: int = 1024
    shard: int = 2048
    format: str = "0.5"
    version: str = field(default_factory=find_version)
    overwrite: bool = False
    name: str | None = None
    nan: str = "raise"
    self_ensemble: bool = False
    noise: tuple[Noise, ...] = ()
    compression: float = 0.0
    stamp: str = ""

    def __post_init__(self) -> None:
        """Check what the shapes of levels and shards follow from: a damaged file may hold other numbers."""
        if min(self.tile, self.shard, *self.shape) < 1:
            msg = f"`tile`, `shard` and `shape` must be at least 1, got {self.tile}, {self.shard} and {self.shape}. "
            raise ValueError(msg + "Make a new plan.")

    def to_json(self) -> str:
        """All fields, as text."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The inverse of `to_json`; a ValueError if a text is that of no plan."""
        try:
            given = json.loads(text)
            pairs = {name: tuple(map(tuple, given.get(name, ()))) for name in ("in_range", "noise")}
            return cls(**given | pairs | {"shape": tuple(given["shape"]), "scale": tuple(given["scale"])})
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            msg = f"the text of a plan must hold all of its fields, got {error}. Make a new plan."
            raise ValueError(msg) from error

    @property
    def signature(self) -> str:
        """A checksum of everything that the pixels depend on, which the paths are not."""
        fields = {name: value for name, value in asdict(self).items() if name not in PLACES}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """The hidden folder beside the target in which the work is done."""
        return work_folder(Path(self.target))

    @property
    def tiff(self) -> bool:
        """Whether the target is an OME-TIFF, packed from shards when all are there."""
        return self.format == TIFF

    @property
    def count(self) -> int:
        """How many shards there are in all levels."""
        return sum(len(self.shards(level)) for level in range(self.levels))

    @property
    def total(self) -> int:
        """How many records `stream` yields when nothing is there yet."""
        return self.count * (1 + self.tiff)

    @property
    def done(self) -> set[tuple[int, Index]]:
        """The shards, (level, index), that were written and wait in `folder` for the others."""
        tasks = ((level, index) for level in range(self.levels) for index in self.shards(level))
        return {task for task in tasks if read_note(self.folder, *task) is not None}

    @property
    def rgb(self) -> bool:
        """Whether the source has colour samples."""
        return "S" in self.axes

    @property
    def letters(self) -> str:
        """The axes of the source in the order of the target."""
        return ome_zarr.order_axes(self.axes)

    @property
    def shapes(self) -> list[Index]:
        """Shapes of the levels of the pyramid."""
        return ome_zarr.level_shapes(self.shape, self.tile)

    @property
    def levels(self) -> int:
        """Number of levels of the pyramid."""
        return len(self.shapes)

    @property
    def block(self) -> Index:
        """The shape of a shard, unless the edge of the image cuts it."""
        return self._sized(max(1, self.shard // self.tile) * self.tile)

    @property
    def chunk(self) -> Index:
        """The shape of a chunk: shards are made of whole ones."""
        return self._sized(self.tile)

    def _sized(self, side: int) -> Index:
        lengths = {"Y": side, "X": side, "S": self.shape[self.letters.index("S")] if self.rgb else 1}
        return tuple(lengths.get(letter, 1) for letter in self.letters)

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels of the finest level, before compression."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def shards(self, level: int) -> list[Index]:
        """The indices of the shards of a level, in C order."""
        counts = (range(-(-n // size)) for n, size in zip(self.shapes[level], self.block, strict=True))
        return list(product(*counts))

    def window(self, level: int, index: Index) -> tuple[slice, ...]:
        """The slices of a level that a shard holds, in the order of the target's axes."""
        sizes = zip(index, self.block, self.shapes[level], strict=True)
        return tuple(slice(i * size, min((i + 1) * size, n)) for i, size, n in sizes)


def plan(
    source: str | os.PathLike[str] | ImageFile,
    scale: float | tuple[float, float],
    target: str | os.PathLike[str],
    *,
    model: VDSR | str | os.PathLike[str] | None = None,
    axes: str | None = None,
    in_range: Range | Sequence[Range] | None = None,
    noise: str | float | Noise | Sequence[Noise] = "auto",
    compression: str | float = "auto",
    tile: int = 1024,
    nan: str = "raise",
    self_ensemble: bool = False,
    shard: int = 2048,
    format: str | None = None,
    overwrite: bool = False,
    name: str | None = None,
) -> Plan:
    """Plan to upscale an image into a pyramid (an image with coarser levels), OME-Zarr or OME-TIFF.

    The whole source is read once to find `in_range` and `noise`, unless they are given or not needed: the range of
    8-bit RGB is known, and a network without maps and restorer removes no noise. Nothing is written.

    Parameters
    ----------
    source : path or ImageFile
        A zarr array, an OME-Zarr group (its finest level), a TIFF file or another image. An image in memory can be
        streamed in this process only.
    scale : float or (float, float)
        As in `super_resolve`.
    target : path
        The file of an OME-TIFF if it ends in ``.tif`` or ``.tiff``, else the folder of an OME-Zarr image; it appears
        when it is complete.
    model, in_range, noise, compression, tile, nan, self_ensemble
        As in `super_resolve`; the noise may also be a fraction of the range, such as ``"3%"``. Each tile is a chunk of
        the target.
    axes : str, optional
        The axes of the source, one letter each, if it does not name them or names them wrongly.
    shard : int, optional
        Side in output pixels of a shard: the piece that one task computes, and in OME-Zarr 0.5 one file. It is rounded
        down to whole tiles, at least one.
    format : {"0.5", "0.4", "OME-TIFF"}, optional
        By default OME-TIFF if the name of the target says so, else OME-Zarr 0.5; 0.4 has a file for each chunk.
    overwrite : bool, optional
        Whether an existing target may be replaced when the new one is complete.
    name : str, optional
        Which image of a TIFF that holds several, as `image_names` calls it.

    Returns
    -------
    Plan

    Raises
    ------
    FileNotFoundError, PermissionError, FileExistsError
        If the source is missing, or the target exists or cannot be written.
    ValueError, TypeError
        If the source or an option cannot be used.

    Examples
    --------
    >>> import tempfile
    >>> image = ImageFile(np.eye(300, dtype=np.uint8), "YX")
    >>> job = plan(image, 2, tempfile.gettempdir() + "/eye_x2.ome.zarr", model="fast")
    >>> job.shape, job.shards(0)
    ((600, 600), [(0, 0)])
    """
    format = choose_format(Path(target), format)
    check_place(Path(target), format, overwrite)
    place = "" if isinstance(source, ImageFile) else str(source if is_url(source) else Path(source).resolve())
    if place and Path(place).is_relative_to(Path(target).resolve()):
        msg = f"`target` must not hold the source, {source}, got {target}. Choose another name."
        raise ValueError(msg)
    tile = check_integer("tile", tile, 1)
    image = open_source(source, axes, name)
    letters = ome_zarr.order_axes(image.axes)
    if format == TIFF and not fits_ome(image.data.dtype, letters):
        msg = f"`target` must be an .ome.zarr for pixels of {image.data.dtype}, got {target}. Rename it."
        raise ValueError(msg)
    network = to_network(model)
    options: dict[str, Any] = {"channel_axis": image.channel_axis, "rgb": image.rgb, "nan": nan}
    compression = find_compression(compression, image.compression, network)
    data: Any = image.data
    one = tuple(slice(0, 1 if letter in "YX" else n) for letter, n in zip(image.axes, data.shape, strict=True))
    with naming_chunks(data):
        more: dict[str, Any] = options | {"tile": tile, "self_ensemble": self_ensemble}
        percent = read_percent(noise)
        more |= {"noise": noise if percent is None else percent, "compression": compression}
        super_resolve(np.zeros_like(data[one]), scale, model=network, **more)  # raises for wrong options
    pair, sizes = scale_pair(scale), dict(zip(image.axes, data.shape, strict=True))
    sizes["Y"], sizes["X"] = scaled_shape((sizes["Y"], sizes["X"]), pair)
    check_room(Path(target), math.prod(sizes.values()) * data.dtype.itemsize)
    with naming_chunks(data):
        options |= {"maps": network.maps, "tolerance": network.tolerance, "compression": compression}
        ranges, noises = survey(data, in_range=in_range, noise=noise, **options)
    return Plan(
        source=place,
        target=str(Path(target).resolve()),
        identity=identify(image),
        axes=image.axes,
        shape=tuple(sizes[letter] for letter in letters),
        dtype=image.data.dtype.newbyteorder("=").name,
        scale=pair,
        network=fingerprint(network),
        in_range=tuple(ranges),
        noise=tuple(noises) if "noise" in network.maps else (),
        compression=float(compression),
        tile=tile,
        shard=shard,
        format=format,
        overwrite=overwrite,
        name=name,
        nan=nan,
        self_ensemble=self_ensemble,
        stamp=stamp(image, place),
    )


def check_room(target: Path, nbytes: int) -> None:
    """Raise if a result is far too large for the disk, however well it is compressed, as after a false shape."""
    free = shutil.disk_usage(target.resolve().parent).free
    if nbytes > COMPRESSION * free:
        msg = f"`target` needs room for {nbytes / 1e9:.3g} GB before compression, got {free / 1e9:.3g} GB free at "
        msg += f"{target}. Check the shape of the source, or choose another disk."
        raise ValueError(msg)
