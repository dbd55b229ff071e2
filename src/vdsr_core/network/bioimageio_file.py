"""A network as a BioImage.IO package: a zip file with its description, ONNX weights, test images and a cover."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tifffile
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from vdsr_core.arguments import check_path
from vdsr_core.files import check_target, replacing
from vdsr_core.images.intensity import Rescale, check_pixels
from vdsr_core.images.ranges import MARGIN
from vdsr_core.images.resampling import resize
from vdsr_core.network.checkpoint import save_checkpoint
from vdsr_core.network.foreign import PACKED
from vdsr_core.network.model import VDSR
from vdsr_core.network.onnx_file import OPSET, apply_network, find_halo, find_step, save_onnx
from vdsr_core.network.pretrained import model_names

FORMAT = "0.5.12"
PERCENTILES = 0.01, 99.99  # of the format, in the place of our robust minimum and maximum
COVER = 256  # pixels
PAPER = {
    "text": "J. Kim, J. K. Lee, K. M. Lee, Accurate Image Super-Resolution Using Very Deep Convolutional Networks",
    "doi": "10.1109/CVPR.2016.182",
}


def save_bioimageio(
    path: str | os.PathLike[str],
    model: VDSR,
    *,
    scale: int | None = None,
    in_range: tuple[float, float] | None = None,
    image: ArrayLike | None = None,
    authors: Sequence[str] = (),
    license: str | None = None,
) -> float | None:
    """Write a network as a BioImage.IO package, for Fiji, QuPath, ilastik and other programs that read the model zoo.

    Its weights are the graph of `save_onnx`; `load_model` reads the package back.

    Parameters
    ----------
    path : path
        The file to write or replace, usually ``*.bioimageio.zip``.
    model : VDSR
        The network. Its card's data, recipe and terms become part of the description.
    scale : int, optional
        Put the bicubic interpolation by this factor in front of the network, for programs that cannot interpolate.
    in_range : (float, float), optional
        The image values that are mapped to 0 and 1, and back at the end. By default these are percentiles of each
        image, and the result stays in these units, 0 for the lower percentile and 1 for the upper one, because the
        format cannot map percentiles back.
    image : (M, N) array_like, optional
        An image for the test and the cover; by default a channel of the bundled sample.
    authors : sequence of str, optional
        Who trained the network.
    license : str, optional
        SPDX identifier of the licence of the weights, such as CC-BY-4.0. By default the package holds what the card
        says of its terms.

    Returns
    -------
    float or None
        Largest difference between ONNX Runtime and PyTorch, as of `save_onnx`.

    Raises
    ------
    ModuleNotFoundError
        If the package ``onnx`` is not installed.
    TypeError, ValueError
        If an argument is invalid.
    RuntimeError
        If ONNX Runtime gives another result than PyTorch; no file is written then.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from vdsr_core import VDSR, VDSRConfig
    >>> path = tempfile.gettempdir() + "/small.bioimageio.zip"
    >>> _ = save_bioimageio(path, VDSR(VDSRConfig(depth=4, width=8)), scale=2)
    """
    check_target(check_path("path", path).absolute(), overwrite=True)
    given = _sample() if image is None else np.asarray(image)
    check_pixels(given.dtype, given.shape)
    if given.ndim != 2:
        msg = f"`image` must have two axes, rows and columns, got shape {given.shape}. Leave it out for the sample."
        raise ValueError(msg)
    with TemporaryDirectory() as name:
        folder = Path(name)
        difference = save_onnx(folder / "weights.onnx", model, scale=scale)
        save_checkpoint(folder / PACKED, model)
        _write_images(folder, model, given.astype(np.float32), scale, in_range)
        if license is None:
            (folder / "LICENSE.md").write_text(f"{model.card.get('terms') or 'not known'}\n", encoding="utf-8")
        (folder / "README.md").write_text(_document(model, scale, in_range), encoding="utf-8")
        description = _describe(model, scale, in_range, folder)
        own = model.card.get("name") in model_names()
        names = authors or (["napari-vdsr developers"] if own else [])
        description["authors"] = [{"name": author} for author in names]
        description["license"] = license or {"source": "LICENSE.md"}
        # JSON is YAML, too.
        (folder / "rdf.yaml").write_text(json.dumps(description, indent=2), encoding="utf-8")
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for part in sorted(folder.iterdir()):
                archive.write(part, part.name)
    return difference


def _sample() -> NDArray[np.uint16]:
    """A part of the bundled sample: nuclei."""
    data = (resources.files("vdsr_core") / "sample" / "u2os.tif").read_bytes()
    channels: NDArray[np.uint16] = tifffile.imread(io.BytesIO(data))
    return channels[0, :128, :128]


def _write_images(
    folder: Path, model: VDSR, image: NDArray[np.float32], scale: int | None, in_range: tuple[float, float] | None
) -> None:
    """The tensors of the test, (1, 1, M, N), and a cover: the interpolated image beside the result."""
    axis = _size(model, scale)
    if scale is None:
        image = resize(image, 2)
    grown = np.pad(image, [(0, max(0, axis["min"] - n)) for n in image.shape], mode="symmetric")
    image = grown[tuple(slice(n - (n - axis["min"]) % axis["step"]) for n in grown.shape)]
    low, high = in_range or np.percentile(image, PERCENTILES).tolist()
    margin = 0 if in_range else MARGIN
    outer = Rescale(low - margin * (high - low), high + margin * (high - low))  # what the network sees as 0 to 1
    values = outer.forward(image)[None, None]
    sr = apply_network(model, values, scale)
    units = outer.inverse(sr, np.float32)
    np.save(folder / "input.npy", image[None, None])
    np.save(folder / "output.npy", units if in_range else Rescale(low, high).forward(units).astype(np.float32))
    pair = [part[0, 0, :COVER, :COVER] for part in (resize(values, scale or 1), sr)]
    cover = np.concatenate(pair, axis=1)
    cover = (cover - cover.min()) / max(np.ptp(cover), 1e-9)
    Image.fromarray(np.rint(255 * cover).astype(np.uint8)).save(folder / "cover.png")


def _size(model: VDSR, scale: int | None) -> dict[str, int]:
    """Rows or columns that the input of a tile may have: what is left of the smallest without its halo is one step."""
    step = find_step(model, scale)
    return {"min": 2 * find_halo(model, scale) // (scale or 1) + step, "step": step}


def _describe(model: VDSR, scale: int | None, in_range: tuple[float, float] | None, folder: Path) -> dict[str, Any]:
    """The resource description of a folder with the files of a package."""
    card = model.card
    name = " ".join(["VDSR", str(card.get("name") or "network"), f"x{scale}" if scale else ""])
    name = re.sub(r"[^\w+ ()-]", "-", name, flags=re.ASCII).strip()[:64]  # the characters that the format allows
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": name,
        "description": str(card.get("summary", "A VDSR network for super-resolution."))[:1024],
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "cite": [PAPER],
        "tags": ["super-resolution", "image-restoration", "2d", "vdsr", "onnx"],
        "documentation": _refer(folder, "README.md"),
        "covers": [_refer(folder, "cover.png")],
        "attachments": [_refer(folder, PACKED)],
        **_describe_tensors(model, scale, in_range, folder),
        "weights": {"onnx": _refer(folder, "weights.onnx") | {"opset_version": OPSET}},
        "training_data": {
            "type": "dataset",
            "format_version": "0.3.4",
            "name": f"Training data of {name}",
            "description": str(card.get("data") or "not known")[:1024],
        },
        "config": {
            "bioimageio": {
                "model_parameter_count": sum(parameter.numel() for parameter in model.parameters()),
                "architecture_type": "VDSR",
            },
            "vdsr": {"scales": list(model.scales), "config": asdict(model.config), "card": card},
        },
    }


def _refer(folder: Path, name: str) -> dict[str, str]:
    """A file of the package, with its checksum."""
    return {"source": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}


def _describe_tensors(
    model: VDSR, scale: int | None, in_range: tuple[float, float] | None, folder: Path
) -> dict[str, Any]:
    """The input and the output: their axes, how their values are mapped, and their tests."""
    source = "ilr" if scale is None else "image"
    leading = [{"type": "batch"}, {"type": "channel", "id": "channel", "channel_names": ["intensity"]}]
    before, after = _describe_range(in_range)
    given = {
        "id": source,
        "description": "image" if scale else "image, interpolated to the size of the result (bicubic)",
        # The unit of `scale` is the output pixel.
        "axes": leading
        + [{"type": "space", "id": axis, "size": _size(model, scale), "scale": scale or 1} for axis in "yx"],
        "data": {"type": "float32"},
        "preprocessing": before,
        "test_tensor": _refer(folder, "input.npy"),
    }
    halo = {"halo": find_halo(model, scale), "scale": 1}
    made = {
        "id": "sr",
        "description": "super-resolved image",
        "axes": leading
        + [{"type": "space", "id": axis, "size": {"tensor_id": source, "axis_id": axis}, **halo} for axis in "yx"],
        "data": {"type": "float32"},
        "postprocessing": after,
        "test_tensor": _refer(folder, "output.npy"),
    }
    return {"inputs": [given], "outputs": [made]}


def _describe_range(in_range: tuple[float, float] | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """How the values are mapped before and after the network."""
    if in_range is None:
        low, high = PERCENTILES
        spread = 1 + 2 * MARGIN
        percentiles = {"axes": ["y", "x"], "min_percentile": low, "max_percentile": high, "eps": 1e-12}
        before = [
            {"id": "scale_range", "kwargs": percentiles},
            {"id": "scale_linear", "kwargs": {"gain": 1 / spread, "offset": MARGIN / spread}},
        ]
        return before, [{"id": "scale_linear", "kwargs": {"gain": spread, "offset": -MARGIN}}]
    low, span = in_range[0], in_range[1] - in_range[0]
    if (low, span) == (0, 1):  # the format refuses what changes nothing
        return [], []
    forward, back = {"gain": 1 / span, "offset": -low / span}, {"gain": span, "offset": low}
    return [{"id": "scale_linear", "kwargs": forward}], [{"id": "scale_linear", "kwargs": back}]


def _document(model: VDSR, scale: int | None, in_range: tuple[float, float] | None) -> str:
    """The README of a package."""
    card, halo = model.card, find_halo(model, scale)
    units = "in the units of the input" if in_range else "in units of the range: 0 is its lower end and 1 its upper one"
    scales = ", ".join(f"{value:g}" for value in model.scales) or "not known"
    takes = f"the image, and interpolates it by {scale} (bicubic)" if scale else "the interpolated image"
    lines = [
        f"# VDSR {card.get('name', '')}".strip(),
        str(card.get("summary", "A VDSR network for super-resolution.")),
        f"It takes {takes}. The result is {units}. It was trained for the scales {scales}.",
        f"A tile needs {halo} output pixels of context on each side.",
        "## Data",
        str(card.get("data") or "Not known."),
        "## Training",
        str(card.get("recipe") or "Not known."),
        "## Licence of the weights",
        str(card.get("terms") or "Not known."),
        "## Validation",
        "Reduce images that the network has not seen, restore them, and compare with the originals and with bicubic "
        "interpolation, as `vdsr evaluate FOLDER --model THIS.bioimageio.zip` does (`pip install napari-vdsr`).",
        "Detail in the result is predicted, not measured: do not count or measure what only the result shows.",
    ]
    return "\n\n".join(lines) + "\n"
