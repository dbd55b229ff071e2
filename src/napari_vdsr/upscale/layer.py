"""An image layer in, the upscaled layer out: the function behind the widget, for scripts and `magic_factory`."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

from napari_vdsr.layers import image_layers
from napari_vdsr.upscale.generators import Started, build_pyramid, upscale
from napari_vdsr.upscale.task import AUTO, Task

if TYPE_CHECKING:
    import napari.layers
    import napari.types

# No `from __future__ import annotations` here: magicgui reads these.
Hidden = Annotated[Any, {"bind": None}]  # an argument without a control


def offer_models(widget: Any) -> list[tuple[str, str | None]]:
    """The networks that come with the package, for a list of choices."""
    from vdsr_core import model_names

    default, *others = model_names()
    return [(default, None), *((name, name) for name in others)]


def upscale_layer(
    layer: "napari.layers.Image",
    scale: Annotated[float, {"min": 1.01, "max": 1000, "step": 0.5}] = 2.0,
    *,
    model: Annotated[str | None, {"choices": offer_models}] = None,
    channel_axis: Hidden = None,
    part: Hidden = None,
    in_range: Hidden = None,
    noise: Hidden = AUTO,
    compression: Hidden = AUTO,
    tile: Hidden = None,
    device: Hidden = None,
    self_ensemble: bool = False,
    lazy: bool = False,
    target: Hidden = None,
) -> "napari.types.LayerDataTuple":
    """Upscale an image layer; the result lies exactly on its source.

    Parameters
    ----------
    layer : Image
        The source; it stays as it is.
    scale : float, optional
        Output pixels per input pixel along rows and columns.
    model : str, optional
        Name or file of the network; by default ``photo``.
    channel_axis : int, optional
        The axis of independent channels, each of which gets its own range of intensities.
    part : tuple of slice, optional
        What to upscale along each axis of the layer, the whole by default. The pixels are those of the whole result.
    in_range : (low, high) or list of them, optional
        The intensities that become 0 and 1 for the network. By default they are found in all planes of the layer, in
        its coarsest level if it has several.
    noise, compression : optional
        What to remove, as in `vdsr_core.super_resolve`. By default the noise that is found in the layer, and the
        compression that its file states. The noise may also be a fraction of the range, such as ``"3%"``.
    tile : int, optional
        Side of a tile in output pixels; the result does not depend on it.
    device : str, optional
        Where to compute, such as ``"cpu"`` or ``"cuda:0"``.
    self_ensemble : bool, optional
        Take the mean over the flips and rotations of the image: the best quality, in eight times the time.
    lazy : bool, optional
        Return levels of which the finest is computed only where and when it is looked at.
    target : str, optional
        The OME-Zarr folder to write the result into; an interrupted run is resumed.

    Returns
    -------
    LayerDataTuple
        Pixels or levels, the keywords of the layer, and ``"image"``: what ``Layer.create`` takes.

    Raises
    ------
    ValueError
        If the layer cannot be upscaled.
    """
    source = image_layers.whole(layer, channel_axis)
    if reason := image_layers.why_not(layer, channel_axis):
        raise ValueError(reason)
    if part is not None:
        source = replace(source, part=tuple(part))
    asked: dict[str, Any] = {"self_ensemble": self_ensemble, "noise": noise, "compression": compression}
    asked |= {"looked_at": image_layers.coarsest(layer), "path": layer.source.path}
    task = Task(source, scale, model, device, tile, in_range, **asked)
    levels = list(layer.data) if layer.multiscale else [layer.data]
    never, record = threading.Event(), dict[str, Any]()
    steps: Iterator[Any]
    if target is not None:
        from napari_vdsr.layers.writer import describe_source
        from napari_vdsr.upscale.disk import save

        steps, record = save(task, describe_source(layer, source), levels, target, never), {"target": str(target)}
    elif lazy:
        steps, record = build_pyramid(task, levels, never), {"lazy": True}
    else:
        steps = upscale(task, never)
    made: list[Any] = list(steps)
    data = made[0].data if target is None else made[-1].levels
    return layer_data(layer, task, data, made[0], **record)


def layer_data(
    layer: "napari.layers.Image", task: Task, data: Any, started: Started, **record: Any
) -> "napari.types.LayerDataTuple":
    """A result with all that its layer needs: `data` are the pixels, or the levels, that a task made of a layer.

    `record` is what ``metadata["vdsr"]`` says besides.
    """
    if not isinstance(data, list):
        levels = image_layers.views(data, task.source.plane_axes)
        data = levels if len(levels) > 1 else data
    found, keywords = started.found, image_layers.layer_keywords(layer, task.source, task.scale, name_of(task))
    said = result_record(layer, task) | {"in_range": found.in_range, **found.removed, "tile": started.tile}
    keywords |= {"multiscale": isinstance(data, list), "metadata": {"vdsr": said | record}}
    return data, keywords, "image"


def name_of(task: Task) -> str:
    """Network, scale and quality in a few words."""
    return f"{image_layers.model_name(task.model)} x{task.scale:g}{' best' if task.self_ensemble else ''}"


def result_record(layer: "napari.layers.Image", task: Task) -> dict[str, Any]:
    """What ``metadata["vdsr"]`` says of a result, apart from what was found in the image."""
    source = task.source
    return {
        "model": task.model or image_layers.model_name(None),
        "scale": task.scale,
        "self_ensemble": task.self_ensemble,
        "channel_axis": source.channel_axis,
        "rgb": source.rgb,
        "device": task.device or "automatic",
        "source": {
            "layer": layer.name,
            "path": str(layer.source.path) if layer.source.path else None,
            "shape": tuple(source.data.shape),
            "part": tuple((p.start, p.stop) for p in source.part),
        },
        "versions": {name: version(name) for name in ("napari-vdsr", "napari", "torch", "numpy")},
    }
