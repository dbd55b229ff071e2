"""The source drawn over the left part of what is in view, up to a slider."""

from __future__ import annotations

import numpy as np
from napari.layers import Image
from napari.viewer import Viewer

from napari_vdsr.layers import regions as _regions
from napari_vdsr.layers import source as _layers

MOST = 4096  # rows or columns that are drawn; of more, some are left out


class Compare:
    """A layer of the source's pixels on top of all others; the result under it stays as it is."""

    def __init__(self, viewer: Viewer, source_layer: Image) -> None:
        self.viewer, self.source_layer = viewer, source_layer
        self.layer: Image | None = None

    def move(self, source: _layers.Source, fraction: float) -> None:
        """Cover a fraction of the columns in view.

        Raises
        ------
        NoRegion
            If the layer is not in view.
        """
        seen = _regions.in_view(self.viewer, self.source_layer, source)
        row, column = seen.plane_axes
        first, last = seen.part[column].start, seen.part[column].stop
        covered = seen.within(seen.part[row], slice(first, first + max(1, round(fraction * (last - first)))))
        lengths = [covered.part[axis].stop - covered.part[axis].start for axis in (row, column)]
        step = -(-max(lengths) // MOST)
        part = tuple(slice(p.start, p.stop, step if i in (row, column) else 1) for i, p in enumerate(covered.part))
        pixels = np.asarray(source.data[part])
        factors = [1 / step if axis in (row, column) else 1 for axis in range(len(part))]
        placement = _layers.placement(self.source_layer, factors, [p.start for p in part])
        if self.layer is not None and self.layer in self.viewer.layers:
            self.layer.data = pixels
            self.layer.scale, self.layer.translate = placement["scale"], placement["translate"]
            return
        names = [layer.name for layer in self.viewer.layers]
        name = _layers.free_name(f"{self.source_layer.name} [VDSR compare]", names)
        looks = _layers.looks(self.source_layer) | {"blending": "translucent_no_depth", "opacity": 1}
        self.layer = Image(pixels, name=name, **placement, **looks)
        active = self.viewer.layers.selection.active
        self.viewer.add_layer(self.layer)
        self.viewer.layers.selection.active = active

    def close(self) -> None:
        """Take the layer away."""
        if self.layer is not None and self.layer in self.viewer.layers:
            self.viewer.layers.remove(self.layer)
        self.layer = None
