"""The rows and columns of a layer that are in view, or inside a shape. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_vdsr.layers.image_layers import Source, bare

if TYPE_CHECKING:
    from napari.layers import Image, Shapes
    from napari.viewer import Viewer

ROUNDING = 0.01  # pixels: vertices of shapes are 32-bit floats, whose rounding is 0.006 pixels at pixel 100000


class NoRegion(Exception):
    """There is no such region; the text says why."""


def in_view(viewer: Viewer, layer: Image, source: Source) -> Source:
    """The part of a source that the canvas shows; `NoRegion` if it is shown in 3D, along other axes, or not at all."""
    displayed = list(viewer.dims.displayed)
    offset = viewer.dims.ndim - layer.ndim
    if len(displayed) != 2:
        msg = "The view is 3D: switch to 2D to upscale what is in view."
        raise NoRegion(msg)
    if sorted(axis - offset for axis in displayed) != sorted(source.plane_axes):
        msg = "The view shows other axes than rows and columns: roll or transpose the axes of the viewer."
        raise NoRegion(msg)
    center = np.asarray(camera(viewer).center, dtype=np.float64)[-2:]
    half = np.asarray(canvas_size(viewer), dtype=np.float64) / camera(viewer).zoom / 2
    point = np.asarray(viewer.dims.point, dtype=np.float64)
    corners = []
    for signs in product((-1, 1), repeat=2):
        corner = point.copy()
        corner[displayed] = center + signs * half
        corners.append(layer.world_to_data(corner))
    return _around(source, corners, f"“{layer.name}” is out of view: move it back, as with the home button.")


def in_shapes(viewer: Viewer, layer: Image, source: Source, shapes: Shapes) -> Source:
    """The smallest part of a source that holds the selected shapes, or the last one if none is selected.

    Raises `NoRegion` if there is no shape, or it lies beside the layer.
    """
    if not shapes.data:
        msg = f"“{shapes.name}” has no shape yet: draw a rectangle in it."
        raise NoRegion(msg)
    chosen = sorted(shapes.selected_data) or [len(shapes.data) - 1]
    return around_vertices(layer, source, shapes, np.concatenate([shapes.data[i] for i in chosen]), viewer.dims.point)


def around_vertices(
    layer: Image, source: Source, shapes: Shapes, vertices: ArrayLike, point: Sequence[float]
) -> Source:
    """The smallest part of a source that holds vertices, (N, D), of a layer of shapes, in its own coordinates.

    The layer of shapes may have fewer axes than `layer`, whose planes are the source, or more. Along the leading axes
    that it lacks, the vertices lie at `point`, in world coordinates. Raises `NoRegion` if they lie beside the layer.
    """
    world = np.asarray([shapes.data_to_world(vertex) for vertex in np.asarray(vertices)])
    missing = max(0, layer.ndim - world.shape[1])
    leading = np.broadcast_to(np.asarray(point, dtype=np.float64)[-layer.ndim :][:missing], (len(world), missing))
    corners = [layer.world_to_data(vertex) for vertex in np.hstack([leading, world])]
    return _around(source, corners, f"The shape in “{shapes.name}” lies beside “{layer.name}”: move it onto the image.")


def centre_of_view(viewer: Viewer, layer: Image, source: Source, scale: float) -> tuple[int, ...]:
    """The pixel in the middle of the canvas, on the grid of a source's result; it may lie beside it."""
    point = np.asarray(viewer.dims.point, dtype=np.float64)
    displayed = list(viewer.dims.displayed)[-2:]
    point[displayed] = np.asarray(camera(viewer).center)[-2:]
    pixel = np.asarray(layer.world_to_data(point)) + 0.5
    grid = zip(pixel, source.factors(scale), source.grid(scale), strict=True)
    near = tuple(int(np.floor(p * factor)) - part.start for p, factor, part in grid)
    return near + (0,) * source.rgb


def _around(source: Source, corners: Sequence[ArrayLike], outside: str) -> Source:
    """The pixels of a source whose areas touch the bounding box of points."""
    points: NDArray[np.float64] = np.asarray(corners, dtype=np.float64)[:, list(source.plane_axes)] + 0.5
    sides = []
    for low, high, axis in zip(points.min(0), points.max(0), source.plane_axes, strict=True):
        length = source.data.shape[axis]
        # What lies within rounding of a pixel's edge touches no further pixel.
        start, stop = int(np.floor(low + ROUNDING)), int(np.ceil(high - ROUNDING))
        start, stop = max(start, 0), min(stop, length)
        if start >= stop:
            raise NoRegion(outside)
        sides.append(slice(start, stop))
    return source.within(*sides)


def camera(viewer: Any) -> Any:
    """What looks at the layers."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera  # napari 0.9 and newer, or older


def canvas_size(viewer: Any) -> tuple[int, int]:
    """Height and width of the canvas in screen pixels."""
    canvas = viewer.canvas if hasattr(viewer, "canvas") else None  # napari 0.9 and newer
    height, width = bare(viewer)._canvas_size if canvas is None else canvas.size
    return int(height), int(width)
