"""The tags of a GeoTIFF, which place its pixels on the earth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)  # places, keys, and what GDAL adds


def scale_geotiff(tags: Mapping[int, Any], scale: tuple[float, float]) -> dict[int, Any]:
    """The tags of a GeoTIFF for pixels that are `scale` (rows, columns) times smaller.

    Raster coordinates count pixels from the corner of the first one, or from its centre where GTRasterTypeGeoKey
    (1025) is 2, PixelIsPoint: there the centre of the first new pixel lies at (1 / scale - 1) / 2.
    """
    tags, factors = dict(tags), (scale[1], scale[0])
    keys = tags.get(34735, ("", 0, ()))[2]
    point = any(tuple(keys[i : i + 4]) == (1025, 0, 1, 2) for i in range(4, len(keys), 4))
    starts = [(1 / factor - 1) / 2 if point else 0.0 for factor in factors]
    if 33550 in tags:  # ModelPixelScale: size of a pixel along columns, rows and height
        kind, count, sizes = tags[33550]
        tags[33550] = kind, count, (sizes[0] / factors[0], sizes[1] / factors[1], *sizes[2:])
    if 33922 in tags:  # ModelTiepoint: raster (column, row, height), then model (x, y, z), for each point
        kind, count, ties = tags[33922]
        places = list(ties)
        for axis, (factor, start) in enumerate(zip(factors, starts, strict=True)):
            places[axis::6] = [(place - start) * factor for place in places[axis::6]]
        tags[33922] = kind, count, tuple(places)
    if 34264 in tags:  # ModelTransformation: 4 x 4, of raster (column, row, height, 1)
        kind, count, matrix = tags[34264]
        new = np.diag([1 / factors[0], 1 / factors[1], 1, 1])
        new[:2, 3] = starts
        tags[34264] = kind, count, tuple((np.reshape(matrix, (4, 4)) @ new).ravel().tolist())
    return tags
