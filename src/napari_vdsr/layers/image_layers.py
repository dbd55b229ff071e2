"""Between napari's image layers and the arrays of `vdsr_core`: what is read, and where the result lies. No Qt."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_vdsr.words import TIMES

if TYPE_CHECKING:
    from napari.layers import Image

Slices = tuple[slice, ...]
Window = tuple[slice, slice]

SMALLEST = 4  # rows and columns
LARGE = 8192  # rows or columns: more are slow to draw in one piece
CHANNEL_LABELS = ("c", "ch", "channel", "channels")
STACK_LABELS = ("t", "time", "z", "plane", "y", "x", "row", "column")  # of axes that hold no channels
OPAQUE = ("opaque", "translucent", "translucent_no_depth")
LOOKS = ("blending", "opacity", "interpolation2d", "interpolation3d", "projection_mode", "rendering")
GRAY_LOOKS = ("colormap", "contrast_limits", "gamma")


@dataclass(frozen=True)
class Source:
    """The part of a layer to upscale."""

    data: Any  # pixels of the finest level; only sliced, never read as a whole
    name: str  # of the layer
    rgb: bool  # whether the last axis holds red, green, blue (and alpha); it is not an axis of the layer
    channel_axis: int | None  # the axis of independent channels
    part: Slices  # what to take along each axis of the layer

    @property
    def plane_axes(self) -> tuple[int, int]:
        """The axes of rows and columns."""
        return plane_axes(len(self.part), self.channel_axis)

    @property
    def planes(self) -> Slices:
        """The part with all rows and columns."""
        lengths = self.data.shape
        return tuple(slice(0, lengths[i]) if i in self.plane_axes else p for i, p in enumerate(self.part))

    def factors(self, scale: float) -> tuple[float, ...]:
        """How many times more pixels the result has along each axis of the layer."""
        return tuple(float(scale) if axis in self.plane_axes else 1.0 for axis in range(len(self.part)))

    def grid(self, scale: float) -> Slices:
        """What the part becomes on the grid of the whole layer's result, along each axis of the layer."""
        found = []
        for part, factor, length in zip(self.part, self.factors(scale), self.data.shape, strict=False):
            stop = min(round(factor * part.stop), max(1, round(factor * length)))
            found.append(slice(min(round(factor * part.start), stop - 1), stop))
        return tuple(found)

    def window(self, scale: float) -> Window | None:
        """Rows and columns of the whole result that the part becomes; None for all of them."""
        if self.part == self.planes:
            return None
        rows, columns = (self.grid(scale)[axis] for axis in self.plane_axes)
        return rows, columns

    def start(self, scale: float) -> tuple[float, ...]:
        """Where the near corner of the result lies, in pixels of the layer: it is that of a whole output pixel."""
        return tuple(p.start / f for p, f in zip(self.grid(scale), self.factors(scale), strict=True))

    def result_shape(self, scale: float) -> tuple[int, ...]:
        """The shape of the result, with colour."""
        return tuple(p.stop - p.start for p in self.grid(scale)) + tuple(self.data.shape[len(self.part) :])

    def within(self, rows: slice, columns: slice) -> Source:
        """The same planes, a region of each."""
        part = list(self.part)
        part[self.plane_axes[0]], part[self.plane_axes[1]] = rows, columns
        return replace(self, part=tuple(part))

    def about_middle(self, most: int) -> Source:
        """The same planes, at most so many rows and columns of each."""
        parts = [self.part[axis] for axis in self.plane_axes]
        starts = [max(part.start, (part.start + part.stop - most) // 2) for part in parts]
        spans = zip(starts, parts, strict=True)
        return self.within(*(slice(start, min(part.stop, start + most)) for start, part in spans))


def count_tiles(grid: Slices, plane_axes: tuple[int, int], tile: int) -> int:
    """How many tiles a run has; they are cut where those of the whole result are."""
    return math.prod(_count_cuts(p, tile) if axis in plane_axes else p.stop - p.start for axis, p in enumerate(grid))


def count_pixels(grid: Slices, plane_axes: tuple[int, int], tile: int, halo: int) -> int:
    """How many pixels the tiles of a run compute, with their halos."""
    pixels = 1
    for axis, part in enumerate(grid):
        halos = 2 * halo * (_count_cuts(part, tile) - 1) if axis in plane_axes else 0
        pixels *= part.stop - part.start + halos
    return pixels


def _count_cuts(part: slice, tile: int) -> int:
    """How many tiles a part of an axis touches."""
    return -(-int(part.stop) // tile) - int(part.start) // tile


def bare(layer: Any) -> Any:
    """A layer itself: a plugin's viewer gives proxies, a new one at each look."""
    return getattr(layer, "__wrapped__", layer)


def list_events(layers: Any) -> list[Any]:
    """What a layer list says when a layer has come, gone, or got another name; napari 0.6 does not say the last."""
    events = layers.events
    return [getattr(events, name) for name in ("inserted", "removed", "renamed") if hasattr(events, name)]


def plane_axes(ndim: int, channel_axis: int | None) -> tuple[int, int]:
    """The axes of rows and columns of a layer: the last two that do not hold channels."""
    row, column = [axis for axis in range(ndim) if axis != channel_axis][-2:]
    return row, column


def finest(layer: Image) -> Any:
    """The pixels of a layer in full resolution."""
    return layer.data[0] if layer.multiscale else layer.data


def coarsest(layer: Image) -> Any:
    """The pixels of the smallest level of a layer, for a look at its intensities."""
    return layer.data[-1] if layer.multiscale else layer.data


def choices_of_channels(layer: Image) -> list[tuple[str, int | None]]:
    """What can be said about the channels of a layer: (words, channel axis), the likeliest first."""
    if layer.rgb:
        return [("Colour photo: brightness enhanced, colour interpolated", None)]
    choices: list[tuple[str, int | None]] = [("Gray", None)]
    if layer.ndim > 2:
        shape, labels = finest(layer).shape, [label.lower() for label in layer.axis_labels]
        axes = [axis for axis, label in enumerate(labels) if label not in STACK_LABELS]
        axes.sort(key=lambda axis: (labels[axis] not in CHANNEL_LABELS, shape[axis]))  # few are likelier than many
        choices += [(f"{shape[axis]} channels (axis {axis}), each on its own", axis) for axis in axes]
        if axes and labels[axes[0]] in CHANNEL_LABELS:
            choices[:2] = reversed(choices[:2])
    return choices


def likely_channels(layer: Image) -> int | None:
    """An axis of two to four positions whose label does not say what it holds; None if there is none."""
    (_, first), *others = choices_of_channels(layer)
    axis = others[0][1] if others and first is None else None
    return axis if axis is not None and 2 <= finest(layer).shape[axis] <= 4 else None


def is_ours(layer: Any) -> bool:
    """Whether a layer is a result of the widget, or one that it shows for a while."""
    return "vdsr" in layer.metadata


def results_of(layer: Image, layers: Iterable[Any]) -> list[Any]:
    """The layers, among others, that were made of a layer."""
    made = [other for other in map(bare, layers) if other.metadata.get("vdsr", {}).get("source")]
    return [other for other in made if other.metadata["vdsr"]["source"]["layer"] == layer.name]


def put_above(layers: Any, layer: Image, shown: Image) -> list[Any]:
    """Insert what shows a layer right above it and all that was made of it; give those of them that are visible.

    If these are hidden, the picture is the same but for this layer, with any blending of any layer.
    """
    stack = [other for other in (layer, *results_of(layer, layers)) if other in layers]
    layers.insert(max((layers.index(other) for other in stack), default=len(layers) - 1) + 1, shown)
    return [other for other in stack if other.visible]


def hide_checks(layers: Iterable[Any]) -> list[Any]:
    """Hide what was found of results, for it lies on top of all; give what was visible of it."""
    checks = [other for other in map(bare, layers) if "check" in other.metadata.get("vdsr", {}) and other.visible]
    for other in checks:
        other.visible = False
    return checks


def group_of(layer: Image) -> tuple[Any, ...]:
    """What the layers of one file, or of one array with channels, have in common; results are no channels."""
    stem = layer.name if is_ours(layer) else re.sub(r" \[\d+\]$", "", layer.name)
    where = layer.source.path or layer.source.sample or stem
    return (str(where), tuple(finest(layer).shape), layer.rgb)


def covers(layer: Image) -> bool:
    """Whether a layer hides what lies under it, so that the same layer twice looks like one."""
    return layer.blending in OPAQUE and layer.opacity == 1


def whole(layer: Image, channel_axis: int | None = None) -> Source:
    """All planes of a layer."""
    data = finest(layer)
    part = tuple(slice(0, n) for n in data.shape[: layer.ndim])
    return Source(data, layer.name, layer.rgb, channel_axis, part)


def current_plane(layer: Image, point: Sequence[float], channel_axis: int | None = None) -> Source:
    """The plane that is shown at a point of the world, with all of its channels.

    `point` are world coordinates, such as ``viewer.dims.point``; the last ones belong to the layer.
    """
    source = whole(layer, channel_axis)
    if layer.ndim == 2:
        return source
    here = np.rint(np.asarray(layer.world_to_data(np.asarray(point)[-layer.ndim :]))).astype(int)
    kept = (*source.plane_axes, channel_axis)
    part = list(source.part)
    for axis in (axis for axis in range(layer.ndim) if axis not in kept):
        index = min(max(int(here[axis]), 0), source.data.shape[axis] - 1)
        part[axis] = slice(index, index + 1)
    return Source(source.data, layer.name, layer.rgb, channel_axis, tuple(part))


def why_not(layer: Image, channel_axis: int | None = None) -> str:
    """One sentence on why a layer cannot be upscaled; empty if it can."""
    data = finest(layer)
    if np.dtype(data.dtype).kind not in "uif":
        return f"“{layer.name}” holds {np.dtype(data.dtype)} values: convert it to integers or floats first."
    if layer.ndim < (2 if channel_axis is None else 3):
        return f"“{layer.name}” has {layer.ndim} axes: rows and columns must remain beside the channels."
    rows, columns = (data.shape[axis] for axis in plane_axes(layer.ndim, channel_axis))
    if min(data.shape) == 0 or min(rows, columns) < SMALLEST:
        hint = ""
        if channel_axis is None and not layer.rgb and layer.ndim > 2:
            hint = " If an axis holds channels, choose it under Channels."
        size = f"{rows} {TIMES} {columns}"
        return f"“{layer.name}” has planes of {size} pixels: at least {SMALLEST} rows and columns are needed.{hint}"
    return ""


def core_channels(source: Source) -> int | None:
    """The `channel_axis` that `vdsr_core` must be told.

    A gray stack whose last axis is as short as colour is refused there unless its channels are declared; an axis
    before the planes can be declared instead, which finds a range for each of its positions.
    """
    if source.channel_axis is None and not source.rgb and len(source.data.shape) > 2:
        return 0 if 2 <= source.data.shape[-1] <= 4 else None
    return source.channel_axis


def linear(layer: Image) -> NDArray[np.float64]:
    """The matrix that turns steps between pixels of a layer into steps before its `affine`."""
    from napari.utils.transforms import Affine

    affine = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear, ndim=layer.ndim)
    return np.asarray(affine.linear_matrix, dtype=np.float64)


def pixel_size(layer: Image, source_axes: tuple[int, int]) -> tuple[float, float, str]:
    """Height and width of a pixel and their unit, as the layer says; the unit is empty if it has none."""
    row, column = source_axes
    unit = f"{layer.units[column]:~}".replace("pixel", "").replace("px", "")
    return abs(float(layer.scale[row])), abs(float(layer.scale[column])), unit


def placement(layer: Image, factors: Sequence[float], start: Sequence[float]) -> dict[str, Any]:
    """The keywords that put a result exactly on its source.

    The areas of the first pixels share their near corner, so centres move by half a pixel less half an output pixel.
    `factors` are output pixels per input pixel along each axis of the layer; `start` is the near corner of the part
    that was taken, in pixels of the source from its own near corner.
    """
    s = np.asarray(factors, dtype=np.float64)
    return {
        "scale": np.asarray(layer.scale) / s,
        "translate": np.asarray(layer.translate) + linear(layer) @ (np.asarray(start) + (1 - s) / (2 * s)),
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def looks(layer: Image) -> dict[str, Any]:
    """The keywords that show a result as its source is shown."""
    names = LOOKS if layer.rgb else LOOKS + GRAY_LOOKS
    return {"rgb": layer.rgb} | {name: getattr(layer, name) for name in names}


def layer_keywords(layer: Image, source: Source, scale: float, words: str) -> dict[str, Any]:
    """All keywords of the result's layer, `metadata` and `multiscale` aside; `words` say how it was made."""
    found = placement(layer, source.factors(scale), source.start(scale)) | looks(layer)
    return found | {"name": f"{layer.name} [VDSR {words}]"}


def model_name(model: str | None) -> str:
    """A network in one word or two, for names of layers."""
    if model is None:
        from vdsr_core import model_names

        return model_names()[0]
    return Path(model).stem


def views(out: NDArray[Any], axes: tuple[int, int]) -> list[NDArray[Any]]:
    """An array, and where it is large smaller views of it, so that napari draws no more than the screen shows."""
    levels = [out]
    if max(out.shape[axis] for axis in axes) > LARGE:
        half = tuple(slice(None, None, 2 if axis in axes else None) for axis in range(out.ndim))
        while max(levels[-1].shape[axis] for axis in axes) > LARGE // 8:
            levels.append(levels[-1][half])
    return levels


def widen_range(result: Image, layer: Image) -> None:
    """Give a result the contrast slider of its source; no constructor takes it."""
    if not layer.rgb:
        result.contrast_limits_range = layer.contrast_limits_range
        result.contrast_limits = layer.contrast_limits


def free_name(name: str, names: Iterable[str]) -> str:
    """`name`, with a number if it is taken: a result replaces no layer."""
    taken = set(names)
    number = 0
    found = name
    while found in taken:
        number += 1
        found = f"{name} [{number}]"
    return found
