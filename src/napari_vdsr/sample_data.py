"""The sample image that comes with the package."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.types import LayerDataTuple


def open_u2os() -> list[LayerDataTuple]:
    """Give fluorescent cells, one layer per channel (CC0, see the README beside the file)."""
    from vdsr_core import read_image

    with as_file(files("vdsr_core") / "sample" / "u2os.tif") as path:
        image = read_image(path)
    return [(image.data, {"name": "U2OS cells", "channel_axis": image.channel_axis}, "image")]
