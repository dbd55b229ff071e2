"""A network as an ONNX file, which other programs run without PyTorch."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from vdsr_core.arguments import check_integer, check_path, check_scales
from vdsr_core.files import check_target, replacing
from vdsr_core.images.color import OFFSET, TO_RGB, TO_YCBCR, rgb_to_ycbcr, ycbcr_to_rgb
from vdsr_core.images.intensity import Rescale
from vdsr_core.images.resampling import make_taps, resize
from vdsr_core.network.model import LARGEST, VDSR, Condition, check_network

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

OPSET, IR = 13, 7  # old ones, which ONNX Runtime has read since 1.6
AGREEMENT = 1e-4  # of the range, between ONNX Runtime and PyTorch
RULE = "0 and 1 are the darkest and the brightest value that matter, found once for the whole image"


def save_onnx(
    path: str | os.PathLike[str],
    model: VDSR,
    *,
    scale: int | None = None,
    in_range: tuple[float, float] | None = None,
    rgb: bool = False,
) -> float | None:
    """Write a network to an ONNX file, for programs that use neither this package nor PyTorch.

    The graph takes float32 images of shape (batch, channels, rows, columns) of any size. Without `scale` its input
    ``ilr`` is the interpolated image, and its output ``sr`` is as large. With `scale` its input is ``image``, and
    ``sr`` has `scale` times as many rows and columns. The file's metadata hold ``scale``, ``scales``, ``halo`` (in
    output pixels), ``range``, ``config`` and ``card``, each as JSON.

    A network with maps has further inputs, which may be left out: ``noise``, (batch or 1, 2), with the gain and the
    offset of the variance of each image's noise, ``gain * value + offset``, and ``compression``, (batch or 1), both in
    units of the range and zero by default; and, without `scale`, ``scale``, (batch or 1), how many times each image was
    enlarged, 2 by default.

    Parameters
    ----------
    path : path
        The file to write or replace, usually ``*.onnx``.
    model : VDSR
        The network.
    scale : int, optional
        Put the bicubic interpolation by this factor in front of the network.
    in_range : (float, float), optional
        The image values that the graph maps to 0 and 1, and back at its end. Without it the graph takes and gives
        values that are mapped already.
    rgb : bool, optional
        Take three channels, red, green and blue: their luma goes through the network, their chroma is interpolated. By
        default there is one channel.

    Returns
    -------
    float or None
        Largest difference from PyTorch on random images, in units of the range, if ONNX Runtime is installed.

    Raises
    ------
    ModuleNotFoundError
        If the package ``onnx`` is not installed.
    TypeError, ValueError
        If `model` is not a network, or `scale` or `in_range` is invalid.
    RuntimeError
        If ONNX Runtime gives another result than PyTorch; no file is written then.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from vdsr_core import VDSR, VDSRConfig
    >>> path = tempfile.gettempdir() + "/small_x2.onnx"
    >>> _ = save_onnx(path, VDSR(VDSRConfig(depth=4, width=8)), scale=2)
    """
    check_network(model)
    check_target(check_path("path", path).absolute(), overwrite=True)
    data = make_graph(model, scale, in_range, rgb).SerializeToString()
    with replacing(path) as temporary:
        temporary.write_bytes(data)
        return check_graph(temporary, model, scale, in_range, rgb)


class _Nodes:
    """The nodes of a graph in the order in which they run, and the constants that they use."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, operator: str, *inputs: str | NDArray[Any], **attributes: Any) -> str:
        """A node; returns the name of its output. An array among its inputs becomes a constant."""
        from onnx import helper

        name = f"{operator}_{len(self.nodes)}"
        names = [part if isinstance(part, str) else self.keep(f"{name}_{i}", part) for i, part in enumerate(inputs)]
        self.nodes.append(helper.make_node(operator, names, [name], name=name, **attributes))
        return name

    def keep(self, name: str, values: NDArray[Any]) -> str:
        """A constant; returns its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.array(values, order="C"), name))
        return name


def make_graph(
    model: VDSR, scale: int | None = None, in_range: tuple[float, float] | None = None, rgb: bool = False
) -> ModelProto:
    """The ONNX model of a network, as `save_onnx` describes it."""
    if not find_spec("onnx"):
        msg = "`onnx` must be installed to export a network, got none. Use `pip install 'napari-vdsr[export]'`."
        raise ModuleNotFoundError(msg)
    from onnx import TensorProto, checker, helper

    if scale is not None:
        scale = check_integer("scale", scale, 2, "Leave it out, and interpolate the image first.")
    rescale = None if in_range is None else Rescale(*in_range)
    graph, channels = _Nodes(), 3 if rgb else 1
    given = x = "ilr" if scale is None else "image"
    if rescale:
        low, span = (np.array([value], np.float32) for value in (rescale.low, rescale.high - rescale.low))
        x = graph.add("Div", graph.add("Sub", x, low), span)
    if scale is not None:
        x = _interpolate(graph, x, scale, channels)
    factor: str | NDArray[Any] = "scale" if scale is None else np.array([scale], np.float32)
    x = graph.add("Add", x, _find_residual(graph, x, model, rgb, factor))
    if rescale:
        x = graph.add("Add", graph.add("Mul", x, span), low)
    graph.nodes[-1].output[0] = "sr"
    told = [name for name in model.config.maps if name != "scale" or scale is None]
    dims: dict[str, list[str | int]] = {"scale": ["images"], "noise": ["images", 2], "compression": ["images"]}
    conditions = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims[name]) for name in told]
    for name in told:  # an input that is a constant, too, may be left out
        graph.keep(name, np.full([1, 2][: len(dims[name])], 2 if name == "scale" else 0, np.float32))
    sides = {given: ("rows", "columns"), "sr": ("rows", "columns") if scale is None else ("rows_sr", "columns_sr")}
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, *pair])
        for name, pair in sides.items()
    ]
    made = helper.make_model(
        helper.make_graph(graph.nodes, "vdsr", [ends[0], *conditions], ends[1:], graph.constants),
        producer_name="napari-vdsr",
        producer_version=metadata.version("napari-vdsr"),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
    )
    said = {
        "scale": scale,
        "scales": check_scales(model.scales),
        "halo": find_halo(model, scale),
        "range": RULE if rescale is None else [rescale.low, rescale.high],
        "config": asdict(model.config),
        "card": model.card,
    }
    helper.set_model_props(made, {key: json.dumps(value) for key, value in said.items()})
    checker.check_model(made, full_check=True)
    return made


def find_halo(model: VDSR, scale: int | None) -> int:
    """Output pixels of context on each side of a tile, a multiple of the output pixels of a step."""
    step = find_step(model, scale)
    halo = model.halo if scale is None else -(-model.halo // scale) + 2  # bicubic taps reach two input pixels further
    return (halo + -halo % step) * (scale or 1)


def find_step(model: VDSR, scale: int | None) -> int:
    """Input pixels from one place where a tile may begin to the next: there a square of the folding begins, too."""
    return model.config.fold // math.gcd(model.config.fold, scale or 1)


def _interpolate(graph: _Nodes, image: str, scale: int, channels: int) -> str:
    """Bicubic interpolation, equal to `resize`: (B, C, H, W) to (B, C, scale * H, scale * W).

    An output pixel depends on the input pixels within 2 of the one that it lies in, by one of ``scale ** 2`` sets of
    weights: these are the filters of a 5 x 5 convolution, whose channels are the output pixels of an input pixel.
    """
    for axis in (2, 3):  # two mirrored pixels on each side, the edge pixel included
        length = graph.add("Slice", graph.add("Shape", image), np.array([axis]), np.array([axis + 1]))
        before = graph.add("Min", graph.add("Sub", length, np.array([1])), np.array([1, 0]))
        after = graph.add("Max", graph.add("Sub", length, np.array([1, 2])), np.array([0]))
        first, last = (graph.add("Gather", image, index, axis=axis) for index in (before, after))
        image = graph.add("Concat", first, image, last, axis=axis)
    taps = make_taps(5, scale, 2 * scale, 3 * scale)  # those of the middle one of five pixels
    weights = np.zeros((scale, 5))
    np.put_along_axis(weights, taps.index.T + taps.source.start, taps.weight.T, axis=1)
    filters = weights[:, None, :, None] * weights[None, :, None, :]  # (scale, scale, 5, 5)
    filters = np.tile(filters.reshape(-1, 1, 5, 5), (channels, 1, 1, 1)).astype(np.float32)
    return graph.add("DepthToSpace", graph.add("Conv", image, filters, group=channels), blocksize=scale, mode="CRD")


def _find_residual(graph: _Nodes, ilr: str, model: VDSR, rgb: bool, scale: str | NDArray[Any]) -> str:
    """What a network adds to an interpolated image, (B, C, H, W), that was enlarged by `scale`, (B or 1)."""
    luma = ilr
    if rgb:
        luma = graph.add("Conv", ilr, _filters(TO_YCBCR[:1]), OFFSET[:1].astype(np.float32))
    residual = _apply_layers(graph, luma, model, scale)
    if not model.config.residual:
        residual = graph.add("Sub", residual, luma)
    if rgb:  # with unchanged chroma, red, green and blue change by their share in luma
        residual = graph.add("Conv", residual, _filters(TO_RGB[:, :1]))
    return residual


def _filters(matrix: NDArray[Any]) -> NDArray[np.float32]:
    """A matrix that acts on channels, (out, in), as the filters of a 1 x 1 convolution."""
    return matrix[:, :, None, None].astype(np.float32)


def _apply_layers(graph: _Nodes, ilr: str, model: VDSR, scale: str | NDArray[Any]) -> str:
    """The output of a network's last layer, (B, 1, H, W); `VDSR.residual` in the words of ONNX."""

    def convolve(x: str, number: int) -> str:
        parameters = model.convolutions[number].named_parameters()
        names = [graph.keep(f"{kind}_{number:02d}", value.detach().float().cpu().numpy()) for kind, value in parameters]
        return graph.add("Conv", x, *names, pads=[1, 1, 1, 1])

    side, last = model.config.fold, model.config.depth - 1
    sides = x = ilr
    if side > 1:
        sides = graph.add("Slice", graph.add("Shape", ilr), np.array([2]), np.array([4]))  # rows and columns
        missing = graph.add("Mod", graph.add("Sub", np.array([0]), sides), np.array([side]))
        ends = graph.add("Concat", np.zeros(6, np.int64), missing, axis=0)
        x = graph.add("SpaceToDepth", graph.add("Pad", ilr, ends, mode="edge"), blocksize=side)
    x = graph.add("Relu", convolve(_add_maps(graph, x, model.config.maps, scale), 0))
    if model.config.blocks:
        for number in range(1, last, 2):
            x = graph.add("Add", x, convolve(graph.add("Relu", convolve(x, number)), number + 1))
    else:
        for number in range(1, last):
            x = graph.add("Relu", convolve(x, number))
    x = convolve(x, last)
    if side > 1:
        x = graph.add("DepthToSpace", x, blocksize=side)
        x = graph.add("Slice", x, np.array([0, 0]), sides, np.array([2, 3]))
    return x


def _add_maps(graph: _Nodes, squares: str, maps: Sequence[str], scale: str | NDArray[Any]) -> str:
    """The folded image and the maps beside it, as channels; `VDSR.prepare` in the words of ONNX."""
    if not maps:
        return squares
    mean = graph.add("ReduceMean", squares, axes=[1])  # (B, 1, H / fold, W / fold)
    parts = [squares]

    def spread(values: str) -> str:  # (B or 1) to the shape of the mean
        return graph.add("Expand", graph.add("Unsqueeze", values, np.array([1, 2, 3])), graph.add("Shape", mean))

    if "scale" in maps:
        known = graph.add("Clip", scale, np.array(1, np.float32), np.array(LARGEST, np.float32))
        parts.append(spread(graph.add("Div", graph.add("Log", known), np.log([LARGEST]).astype(np.float32))))
    if "noise" in maps:
        gain, offset = (graph.add("Gather", "noise", np.array([number]), axis=1) for number in (0, 1))  # (B, 1) each
        gain, offset = (graph.add("Unsqueeze", value, np.array([2, 3])) for value in (gain, offset))
        variance = graph.add("Add", graph.add("Mul", gain, mean), offset)
        parts.append(graph.add("Sqrt", graph.add("Relu", variance)))
    if "compression" in maps:
        parts.append(spread("compression"))
    return graph.add("Concat", *parts, axis=1)


def check_graph(
    path: str | os.PathLike[str],
    model: VDSR,
    scale: int | None = None,
    in_range: tuple[float, float] | None = None,
    rgb: bool = False,
) -> float | None:
    """Largest difference between ONNX Runtime and PyTorch on random images; None without ONNX Runtime.

    A difference beyond rounding is a RuntimeError.
    """
    if not find_spec("onnxruntime"):
        return None
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors: it warns of inputs that may be left out
    session = runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    rescale, rng, largest = Rescale(*(in_range or (0.0, 1.0))), np.random.default_rng(0), 0.0
    conditions = [Condition(0.01, 1e-4, 0.05, scale or 2), Condition(0.0, 4e-4, 0.0, scale or 3)]
    given = {
        "scale": [condition.scale for condition in conditions],
        "noise": [condition[:2] for condition in conditions],
        "compression": [condition.compression for condition in conditions],
    }
    wanted = {entry.name for entry in session.get_overridable_initializers()}
    for shape in ((1, 1), (23, 40)):
        image = rescale.inverse(rng.random((2, 3 if rgb else 1, *shape)), np.float32)
        feeds = {name: np.array(given[name], np.float32) for name in given if name in wanted}
        (sr,) = session.run(None, feeds | {session.get_inputs()[0].name: image})
        expected = apply_network(model, rescale.forward(image), scale, conditions)
        difference = np.abs(rescale.forward(sr) - expected).max() / max(1, np.abs(expected).max())
        largest = max(largest, float(difference))
    if not largest <= AGREEMENT:
        msg = f"ONNX Runtime {runtime.__version__} must agree with PyTorch, got a difference of {largest:.2g} of the "
        msg += "range. Another version of it may help."
        raise RuntimeError(msg)
    return largest


def apply_network(
    model: VDSR, images: NDArray[Any], scale: int | None = None, conditions: Sequence[Condition] | None = None
) -> NDArray[np.float64]:
    """What PyTorch makes of images, (B, 1 or 3, H, W) in [0, 1], which are interpolated first if there is a scale.

    Without `conditions` a network with maps is told this scale, or 2.
    """
    conditions = conditions or [Condition(scale=scale or 2)] * len(images)
    ilr = resize(images.astype(np.float64), scale) if scale else images.astype(np.float64)
    ycbcr = rgb_to_ycbcr(ilr.swapaxes(0, 1)) if images.shape[1] == 3 else ilr.swapaxes(0, 1)  # (C, B, H, W)
    with torch.inference_mode():
        luma = torch.from_numpy(ycbcr[0][:, None]).float()
        table = torch.tensor(conditions)
        ycbcr[0] += copy.deepcopy(model).float().cpu().residual(luma, table)[:, 0].numpy()
    return (ycbcr_to_rgb(ycbcr) if images.shape[1] == 3 else ycbcr).swapaxes(0, 1)
