"""Open an image that this package saved, as the layers that it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.types import LayerDataTuple
    from napari.viewer import Viewer

    from vdsr_core import ImageFile


PATTERNS = ("*[[]VDSR *].ome.tif", "*[[]VDSR *].ome.tiff")  # names of results


def get_reader(path: str | list[str]) -> Any:
    """Give `read_layers` for a file that says it was saved by this package, where no other plugin reads such files."""
    from npe2 import PluginManager

    from vdsr_core import read_image

    if not isinstance(path, str):
        return None
    readers = PluginManager.instance().iter_compatible_readers([path])
    if any(reader.plugin_name not in ("napari", "napari-vdsr") for reader in readers):
        return None
    try:
        return read_layers if "provenance" in read_image(path, lazy=True).extra else None
    except (OSError, ValueError):  # other readers may know what it is
        return None


def prefer_own_reader() -> None:
    """Let napari open files that are named like our results by `read_layers` without asking which reader to take.

    Other files are left to other readers: their names do not match. What the user has set for such names stays.
    """
    from napari.settings import get_settings

    settings = get_settings().plugins
    settings.extension2reader = dict.fromkeys(PATTERNS, "napari-vdsr") | dict(settings.extension2reader)


def open_ome_zarr(viewer: Viewer) -> None:
    """Let the user choose the folder of an OME-Zarr, and show it with its place, size, colours and levels."""
    from napari.utils.notifications import show_error
    from qtpy.QtWidgets import QFileDialog

    if path := QFileDialog.getExistingDirectory(None, "The folder of an OME-Zarr"):
        try:
            for data, keywords, _ in read_layers(path):
                viewer.add_image(data, **keywords)
        except (OSError, ValueError) as error:
            show_error(str(error))


def lacks_place(layer: Image) -> bool:
    """Whether napari itself has opened an OME-Zarr, or an OME-TIFF of ours: without pixel size, place and colours."""
    path = Path(layer.source.path) if layer.source.path else None
    if path is None or layer.source.reader_plugin not in ("napari", "builtins"):
        return False
    if path.name.endswith((".ome.tif", ".ome.tiff")):
        return _is_ours(str(path))
    return path.suffix == ".zarr" and ((path / "zarr.json").is_file() or (path / ".zattrs").is_file())


@lru_cache(maxsize=64)
def _is_ours(path: str) -> bool:
    """Whether `get_reader` reads a file; asked again and again."""
    return get_reader(path) is not None


def open_again(viewer: Viewer, layer: Image) -> None:
    """Show an image with what its file says of it, in the place of the layer that napari has made of it."""
    made = read_layers(str(layer.source.path))
    viewer.layers.remove(layer)
    for data, keywords, _ in made:
        viewer.add_image(data, **keywords)


def read_layers(path: str) -> list[LayerDataTuple]:
    """Read the levels of an OME-Zarr or OME-TIFF, which stay in the file until they are shown.

    Gives one layer as it was saved from napari; else one for each channel, with the colours and sizes of the file. Its
    ``metadata["vdsr"]`` says how it was made.
    """
    from vdsr_core import read_pyramid

    levels = read_pyramid(path)
    says = dict(levels[0].extra.get("provenance", {}))
    name = Path(path).name.split(".ome.")[0]
    if "napari" in says:
        axes, keywords = restore_layer(says.pop("napari"))
        keywords = {"name": name, **keywords}
    else:
        axes, keywords = describe_file(levels[0], says, name)
    pixels = [_ordered(level, axes) for level in levels]
    made = says.get("vdsr", says)
    keywords |= {"metadata": {"vdsr": made} if made else {}, "multiscale": len(pixels) > 1}
    return [(pixels if len(pixels) > 1 else pixels[0], keywords, "image")]


def restore_layer(says: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The axes of a layer in its order, and its keywords, from what the writer noted."""
    from napari.utils import Colormap

    keywords = {key: value for key, value in says.items() if key not in ("axes", "colormap")}
    if "colormap" in says:
        keywords["colormap"] = Colormap(**says["colormap"])
    if "affine" in keywords:
        keywords["affine"] = np.asarray(keywords["affine"])
    return says["axes"], keywords


def describe_file(image: ImageFile, says: Mapping[str, Any], name: str) -> tuple[str, dict[str, Any]]:
    """The axes in napari's order, and the keywords, of a file that was not saved from napari."""
    from napari.utils import Colormap

    rgb = image.rgb or "S" in says.get("axes", "")  # OME-Zarr knows channels only
    axes = image.axes.replace("C", "S") if rgb else image.axes
    axes = axes.replace("S", "") + "S" * rgb
    size = image.pixel_size or (1.0, 1.0)
    steps = {"Y": size[0], "X": size[1]}
    steps |= {letter: image.extra[key] for letter, key in (("Z", "z_step"), ("T", "time_step")) if key in image.extra}
    # Pixel areas begin where those of the source do; a file without an origin has its source's at 0.
    shifts = [n * (1 - factor) / 2 for n, factor in zip(size, says.get("scale", (1, 1)), strict=True)]
    place = dict(zip("YX", image.extra.get("origin", shifts), strict=True))
    units = {letter: image.unit for letter in "ZYX" if image.unit} | ({"T": "s"} if "time_step" in image.extra else {})
    shown = [letter for letter in axes if letter not in ("S", "C")]
    keywords: dict[str, Any] = {
        "name": name,
        "rgb": rgb,
        "scale": [steps.get(letter, 1.0) for letter in shown],
        "translate": [place.get(letter, 0.0) for letter in shown],
        "units": [units.get(letter) or "pixel" for letter in shown],
        "axis_labels": [letter.lower() for letter in shown],
    }
    if "C" in axes:
        keywords["channel_axis"] = axes.index("C")
        keywords["name"] = [f"{name} {channel}" for channel in image.channel_names or ()] or name
        colors = [np.array([(0, 0, 0), color]) / 255 for color in image.extra.get("channel_colors", ())]
        if colors:
            keywords["colormap"] = [Colormap(color, name=str(color[1])) for color in colors]
        if windows := image.extra.get("channel_windows"):
            keywords["contrast_limits"] = [(window["start"], window["end"]) for window in windows]
    return axes, keywords


def _ordered(image: ImageFile, axes: Sequence[str]) -> Any:
    """The pixels of a level with their axes in this order, lazily; axes that the file added are left out."""
    import dask.array as da

    letters = image.axes if "S" not in axes else image.axes.replace("C", "S")
    pixels = da.from_array(image.data)
    pixels = pixels[tuple(slice(None) if letter in axes else 0 for letter in letters)]
    kept = [letter for letter in letters if letter in axes]
    return pixels.transpose([kept.index(letter) for letter in axes])
