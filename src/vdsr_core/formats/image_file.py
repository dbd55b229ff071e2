"""An image with its metadata, and what the file formats share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from vdsr_core.formats.geotiff import scale_geotiff
from vdsr_core.formats.urls import is_url
from vdsr_core.memory import check_free

if TYPE_CHECKING:
    import zarr
    from numpy.typing import NDArray

METRES = {
    "m": 1.0, "cm": 1e-2, "mm": 1e-3, "µm": 1e-6, "nm": 1e-9, "Å": 1e-10, "pm": 1e-12, "inch": 0.0254
}  # fmt: skip
SECONDS = {
    "s": 1.0, "ms": 1e-3, "µs": 1e-6, "min": 60.0, "h": 3600.0,
    "second": 1.0, "millisecond": 1e-3, "microsecond": 1e-6, "minute": 60.0, "hour": 3600.0,
}  # fmt: skip
_UNITS = {
    "um": "µm", "\u03bcm": "µm", "micron": "µm", "microns": "µm", "micrometer": "µm", "micrometre": "µm",
    "nanometer": "nm", "millimeter": "mm", "centimeter": "cm", "meter": "m", "angstrom": "Å",
    "in": "inch", "inches": "inch",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image and its metadata.

    Parameters
    ----------
    data : ndarray or zarr.Array
        Pixels in the file's own axis order and intensities. A zarr array stays lazy: slice windows of it.
    axes : str
        One letter per axis: Y rows, X columns, Z planes, T time, C channels, S colour samples
        (RGB or RGBA, declared by the file, never guessed), any other letter for anything else.
    pixel_size : (float, float) or None
        Height and width of a pixel (rows, columns) in `unit`.
    unit : str or None
        "µm", "nm", "inch" ... as in the file (the spellings of the micrometre and the inch are unified).
    channel_names : tuple of str or None
        One name per channel.
    icc_profile : bytes or None
        The colour profile.
    extra : dict
        Further metadata, each if the file has it:

        * ``z_step`` (float, in `unit`) and ``time_step`` (float, seconds);
        * ``origin``: position of the centre of the first pixel, (rows, columns) in `unit`;
        * ``channel_colors``: (red, green, blue) from 0 to 255 for each channel;
        * ``channel_windows``: a dict of start, end, min and max for each channel, as in OME-Zarr;
        * ``channels``, ``planes``: a dict of OME attributes for each channel, and for each plane in the order of the
          axes;
        * ``samples``: what the samples after red, green and blue are, if there are more channels than these;
        * ``bits``: bits of a sample, if fewer than those of the dtype;
        * ``exif`` and ``xmp`` (bytes, without what depends on orientation or size), ``iptc`` (bytes);
        * ``text``: dict of keyword to text, such as ``Description``, ``Author``, ``Copyright``;
        * ``png``: dict of the PNG chunks that say how values are displayed, such as ``gAMA``;
        * ``geotiff``: dict of tag to (type, count, value), as in tifffile;
        * ``imagej``: dict of display settings and calibration, by ImageJ's own names;
        * ``not_kept``: names of metadata in the file that are not kept;
        * ``provenance``: dict, as JSON, of how this package made the image; `write_pyramid` writes it.
    compression : float
        How strongly JPEG has compressed the pixels: the mean quantisation step of luma as a fraction of 255; 0 if the
        file is not a JPEG.

    Raises
    ------
    ValueError
        If `axes` does not fit `data`, or a size or the number of names is impossible.

    Examples
    --------
    >>> image = ImageFile(np.zeros((2, 3, 4), np.uint16), "CYX", pixel_size=(0.5, 0.5), unit="µm")
    >>> image.channel_axis, image.rgb
    (0, False)
    >>> image.with_data(np.zeros((2, 6, 8), np.uint16), scale=(2, 2)).pixel_size
    (0.25, 0.25)
    """

    data: NDArray[Any] | zarr.Array[Any]
    axes: str
    pixel_size: tuple[float, float] | None = None
    unit: str | None = None
    channel_names: tuple[str, ...] | None = None
    icc_profile: bytes | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    compression: float = 0.0

    def __post_init__(self) -> None:
        """Check that the fields fit each other."""
        check_axes(self.data.shape, self.axes)
        if self.pixel_size is not None and not all(0 < size < math.inf for size in self.pixel_size):
            msg = f"`pixel_size` must be positive and finite, got {self.pixel_size}. Use None if unknown."
            raise ValueError(msg)
        channels = count_channels(self.data.shape, self.axes)
        if self.channel_names is not None and len(self.channel_names) != channels:
            msg = f"`channel_names` must hold {channels} names, got {self.channel_names}. None means no names."
            raise ValueError(msg)

    @property
    def rgb(self) -> bool:
        """Whether the file declares colour (RGB or RGBA samples)."""
        return "S" in self.axes

    @property
    def channel_axis(self) -> int | None:
        """Index of the axis of colour samples or, else, of channels."""
        index = self.axes.find("S" if self.rgb else "C")
        return None if index < 0 else index

    def with_data(self, data: NDArray[Any] | zarr.Array[Any], scale: tuple[float, float] = (1, 1)) -> ImageFile:
        """Return this image upscaled: other pixels, each `scale` (rows, columns) times smaller.

        Parameters
        ----------
        data : ndarray or zarr.Array
            The new pixels; only the numbers of rows and columns may differ.
        scale : (float, float), optional
            Upscaling factor of rows and columns.

        Raises
        ------
        ValueError
            If the length of an axis other than rows and columns changed.
        """
        check_axes(data.shape, self.axes)
        for letter, new, old in zip(self.axes, data.shape, self.data.shape, strict=True):
            if letter not in "YX" and new != old:
                msg = f"`data` must have length {old} along {letter}, got {new}. Only rows and columns change."
                raise ValueError(msg)
        size = self.pixel_size and (self.pixel_size[0] / scale[0], self.pixel_size[1] / scale[1])
        extra = dict(self.extra)
        if self.pixel_size and size and "origin" in extra:  # pixel areas begin where they did; it is that of a centre
            shifts = ((new - old) / 2 for new, old in zip(size, self.pixel_size, strict=True))
            extra["origin"] = tuple(place + shift for place, shift in zip(extra["origin"], shifts, strict=True))
        if "geotiff" in extra:
            extra["geotiff"] = scale_geotiff(extra["geotiff"], scale)
        return replace(self, data=data, pixel_size=size, extra=extra, compression=0.0)


def check_axes(shape: tuple[int, ...], axes: str) -> None:
    """Raise unless `axes` names the axes of an image."""
    problem, way_out = None, "Use Q for an axis without a letter."
    if len(axes) != len(shape) or not {"Y", "X"} <= set(axes):
        problem = f"name every axis of shape {shape}, Y and X among them, got {axes!r}. {way_out}"
    elif any(axes.count(letter) > 1 for letter in "TZCYXS"):
        problem = f"name T, Z, C, Y, X and S at most once, got {axes!r}. {way_out}"
    elif "S" in axes and shape[axes.index("S")] not in (3, 4):
        problem = f"use S for 3 or 4 colour samples, got {axes!r} for shape {shape}. Use C for channels."
    if problem:
        msg = f"`axes` must {problem}"
        raise ValueError(msg)


def count_channels(shape: tuple[int, ...], axes: str) -> int:
    """The length of the axis of channels; 1 without one."""
    return shape[axes.index("C")] if "C" in axes else 1


def unify_unit(name: str | None) -> str | None:
    """One spelling for each unit; None for pixels and for what is not a unit."""
    name = (name or "").strip()
    if "\\u" in name:  # ImageJ writes µm as Java does
        name = name.encode("latin-1", "replace").decode("unicode_escape")
    name = _UNITS.get(name, name)
    return None if name.lower() in ("", "pixel", "pixels", "reference frame") else name


class Unreadable(Exception):
    """Why a file cannot be read, and a way out; `read_image` adds the name of the file."""


def refuse(cause: str) -> NoReturn:
    """Raise `Unreadable`."""
    raise Unreadable(cause)


def inside(folder: Path, name: object) -> Path:
    """The path of a part of a folder, as a file in it names it; refused if it leads outside, even by a link."""
    if is_url(folder):
        leads_out = is_url(name) or str(name).startswith("/") or ".." in re.split(r"[/\\]|%2f", str(name).lower())
    else:
        path = folder / str(name)
        leads_out = ".." in path.parts[len(folder.parts) :] or not path.resolve().is_relative_to(folder.resolve())
    if leads_out:
        refuse(f"it names {str(name)!r} as a part of itself, which lies outside of it. Give the path of that image.")
    return folder / str(name)


def check_memory(nbytes: int) -> None:
    """Raise if that many bytes of pixels do not fit in the free memory, before they are allocated."""
    check_free(nbytes, "the pixels", "If that size is right, use zarr, which is read and written in windows.")


def in_memory(image: ImageFile, order: Sequence[int]) -> NDArray[Any]:
    """The pixels as a contiguous native array, its axes in that order."""
    if not isinstance(image.data, np.ndarray):
        check_memory(math.prod(image.data.shape) * image.data.dtype.itemsize)
    return np.ascontiguousarray(native(np.asarray(image.data[...])).transpose(order))


def native(data: NDArray[Any]) -> NDArray[Any]:
    """The pixels in the byte order of the machine."""
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def upright(image: ImageFile, orientation: int) -> ImageFile:
    """The image as EXIF or TIFF orientation 1 to 8 wants it seen; others mean 1."""
    y, x = image.axes.index("Y"), image.axes.index("X")
    flips = {2: (x,), 3: (y, x), 4: (y,), 5: (), 6: (x,), 7: (y, x), 8: (y,)}.get(orientation)
    if flips is None:
        return image
    data, size = np.asarray(image.data), image.pixel_size
    if orientation > 4:
        data, size = np.swapaxes(data, y, x), size and (size[1], size[0])
    return replace(image, data=np.ascontiguousarray(np.flip(data, flips)), pixel_size=size)


def gray_alpha_to_rgba(data: NDArray[Any]) -> NDArray[Any]:
    """(..., gray, alpha) as (..., red, green, blue, alpha)."""
    return data[..., [0, 0, 0, 1]]


def fitting_profile(profile: bytes | None, axes: str) -> bytes | None:
    """The profile unless it is one for gray and the image is (now) RGB."""
    return None if profile is None or ("S" in axes and profile[16:20] == b"GRAY") else profile
