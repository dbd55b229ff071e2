"""One safetensors file holds a network: weights, shape, scales and card."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vdsr_core.arguments import check_path, check_scales
from vdsr_core.files import check_target, replacing
from vdsr_core.network.error_table import ErrorTable
from vdsr_core.network.foreign import OURS, PACKAGE, find_kind, read_foreign, unpack
from vdsr_core.network.model import MAPS, VDSR, VDSRConfig, check_network
from vdsr_core.network.pretrained import DEFAULT, folder, model_names

FORMAT = 1
TRAINER = "trainer."  # before the names of a trainer's tensors

# What a trainer needs to resume: tensors, and what JSON holds.
State = tuple[dict[str, Tensor], dict[str, Any]]


def save_checkpoint(
    path: str | os.PathLike[str], model: VDSR, *, trainer: State | None = None, run: dict[str, Any] | None = None
) -> None:
    """Write a network to one safetensors file, with its shape, scales, card and measured errors in the header.

    The file is written under a temporary name and renamed: a failure leaves the old file, if there was one.

    Parameters
    ----------
    path : path
        The file to write or replace, usually ``*.safetensors``.
    model : VDSR
        The network.
    trainer : (dict of Tensor, dict), optional
        The state of an unfinished training, from `Trainer.state`.
    run : dict, optional
        Which finished training the network is the result of, in types that JSON can hold.

    Raises
    ------
    TypeError
        If `model` is not a network, or its card holds what JSON cannot.
    ValueError
        If its scales are not greater than 1, its weights are not finite, or its restorer is not in the package.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from vdsr_core import VDSR, VDSRConfig
    >>> path = tempfile.gettempdir() + "/small.safetensors"
    >>> save_checkpoint(path, VDSR(VDSRConfig(depth=4, width=8), scales=[2]))
    >>> load_checkpoint(path).scales
    (2.0,)
    """
    check_network(model)
    check_target(check_path("path", path).absolute(), overwrite=True)
    header = {"format": json.dumps(FORMAT), "config": json.dumps(asdict(model.config))}
    header |= {"scales": json.dumps(check_scales(model.scales)), "card": _card_text(model.card)}
    if model.errors is not None:
        header["errors"] = json.dumps(model.errors.to_json())
    if model.restorer is not None:
        header["restorer"] = json.dumps(_check_restorer(model.restorer))
    arrays = to_arrays(model)
    if odd := [name for name, array in arrays.items() if not bool(torch.isfinite(array).all())]:
        msg = f"`model` must hold finite weights, got NaN or infinity in {odd[0]}: its training went wrong. "
        msg += "Train it with a lower `learning_rate`."
        raise ValueError(msg)
    if trainer is not None:
        tensors, record = trainer
        arrays |= {TRAINER + name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        header["trainer"] = json.dumps(record)
    if run is not None:
        header["run"] = json.dumps(run)
    data = save(arrays, header)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _check_restorer(name: str) -> str:
    """The name of a restorer, checked to be one of the package."""
    if name not in model_names():
        msg = f"`restorer` must be one of {', '.join(model_names())}, got {name!r}. Update napari-vdsr if it is newer."
        raise ValueError(msg)
    return name


def _card_text(card: object) -> str:
    """A card as JSON."""
    try:
        if isinstance(card, dict):
            return json.dumps(card)
        reason = f"got {type(card).__name__}"
    except (TypeError, ValueError) as error:
        reason = f"got one where {error}"
    msg = f"`model.card` must be a dict of what JSON holds, {reason}. Use str, float, bool, list and dict."
    raise TypeError(msg)


def fingerprint(model: VDSR) -> str:
    """The SHA-256 of the shape and weights of a network and of its restorer: equal ones give equal pixels."""
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    for name, array in sorted(model.state_dict().items()):
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.detach().cpu().contiguous().numpy().tobytes())
    if model.restorer is not None:
        digest.update(fingerprint(load_model(model.restorer)).encode())
    return digest.hexdigest()


def to_arrays(model: VDSR) -> dict[str, Tensor]:
    """The parameters by their names in a file: ``weight_00``, ``bias_00``, and so on."""
    arrays = {}
    for number, layer in enumerate(model.convolutions):
        for kind, parameter in layer.named_parameters():
            arrays[f"{kind}_{number:02d}"] = parameter.detach().cpu().contiguous()
    return arrays


def load_checkpoint(path: str | os.PathLike[str]) -> VDSR:
    """Read a network from a file that `save_checkpoint` wrote.

    Parameters
    ----------
    path : path
        A safetensors file. Nothing in it is executed.

    Returns
    -------
    VDSR
        On the CPU, in evaluation mode.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no such file.
    ValueError
        If the file is a pickle, is damaged, was written by another program or in a newer format, or its arrays
        do not make a network.

    Examples
    --------
    See `save_checkpoint`.
    """
    path = check_path("path", path)
    arrays, header = _read(path)
    if absent := [key for key in ("config", "scales", "card", "format") if key not in header]:
        msg = f"{path} must have config, scales, card and format in its header, got no {', '.join(absent)}. "
        msg += "Was it saved by another program? Its arrays can be loaded from an .npz file."
        raise ValueError(msg)
    version = _entry(path, header, "format", int)
    if version != FORMAT:
        msg = f"{path} has format {version}; this version reads format {FORMAT}. Please update napari-vdsr."
        raise ValueError(msg)
    model = from_arrays({k: array for k, array in arrays.items() if not k.startswith(TRAINER)}, str(path))
    config = {"residual": True, "fold": 1, "blocks": False, "maps": []} | _entry(path, header, "config", dict)
    scales = _entry(path, header, "scales", list)
    if len(config["maps"]) != len(model.config.maps):
        msg = f"{path} must hold as many maps as its header says, {config['maps']}, got {len(model.config.maps)}. "
        raise ValueError(msg + "It is damaged.")
    try:
        model.config = replace(model.config, residual=config["residual"], blocks=config["blocks"], maps=config["maps"])
        model.scales = check_scales(scales)
    except (TypeError, ValueError) as error:
        msg = f"{path} must have a good header: {error} It is damaged."
        raise ValueError(msg) from error
    if asdict(model.config) | {"maps": list(model.config.maps)} != config:
        msg = f"{path} must hold the network its header says, {config}, got {asdict(model.config)}. It is damaged."
        raise ValueError(msg)
    model.card = _entry(path, header, "card", dict)
    if "errors" in header:
        try:
            model.errors = ErrorTable.from_json(_entry(path, header, "errors", dict))
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{path} must hold good errors in its header, got {error!r}. It is damaged."
            raise ValueError(msg) from error
    if "restorer" in header:
        model.restorer = _check_restorer(_entry(path, header, "restorer", str))
    return model


def load_trainer(path: str | os.PathLike[str]) -> State | None:
    """The state of an unfinished training in a checkpoint; None if it holds none. Raises as `load_checkpoint`."""
    path = check_path("path", path)
    arrays, header = _read(path)
    if "trainer" not in header:
        return None
    tensors = {name.removeprefix(TRAINER): array for name, array in arrays.items() if name.startswith(TRAINER)}
    return tensors, _entry(path, header, "trainer", dict)


def load_run(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What a checkpoint tells of the finished training that it is the result of. Raises as `load_checkpoint`."""
    path = check_path("path", path)
    header = _read(path)[1]
    return _entry(path, header, "run", dict) if "run" in header else None


def _entry(path: Path, header: Mapping[str, str], key: str, kind: type) -> Any:
    """An entry of a header, checked to be of the kind that `save_checkpoint` writes."""
    try:
        value = json.loads(header[key])
    except (ValueError, RecursionError):
        value = header[key]
    if type(value) is not kind:
        what = {int: "an integer", list: "a list", dict: "an object", str: "a text"}[kind]
        text = header[key] if len(header[key]) <= 60 else header[key][:57] + "..."
        msg = f"{path} must have {what} in JSON as the {key} of its header, got {text}. It is damaged."
        raise ValueError(msg)
    return value


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All arrays of a safetensors file, and its header."""
    if path.is_dir():
        msg = f"{path} must be a file, got a folder. Name the checkpoint in it."
        raise IsADirectoryError(msg)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        msg = f"{path} is not a safetensors file, or is damaged: {error}. Copy or save it again."
        raise ValueError(msg) from error


def load_arrays(path: str | os.PathLike[str]) -> VDSR:
    """A network that another program saved: a plain stack of 3 x 3 convolutions, of which biases may be missing.

    It is a state dict of PyTorch (``.pth``, ``.pt``, ``.safetensors``), itself or in a checkpoint, whose layers are
    found by their shapes and their order; an ``.npz`` file, in which ``weight_00`` may also be of shape (filters, fold
    ** 2, 3, 3); or a ``.mat`` file with the published network's cells of filters and biases. Its scales are those that
    the file claims, if any. A ValueError says why a file makes no network. Nothing in it is executed.
    """
    path = check_path("path", path)
    arrays, scales = read_foreign(path, find_kind(path))
    model = from_arrays(arrays, str(path))
    model.scales = scales
    model.card = {"name": path.stem, "data": "not known", "terms": "not known: ask whoever trained the network"}
    return model


def from_arrays(arrays: Mapping[str, Tensor], name: str = "arrays") -> VDSR:
    """A network from its arrays; `name` is for the messages."""
    depth = sum(key.startswith("weight_") for key in arrays)
    expected = {f"{kind}_{number:02d}" for kind in ("weight", "bias") for number in range(depth)}
    if depth < 2 or set(arrays) != expected:
        odd = sorted(set(arrays) ^ expected)[:3] or "no layers"
        msg = f"{name} must hold weight_00, bias_00, weight_01 ... and nothing else, got {odd} missing or too many."
        raise ValueError(msg)
    if arrays["weight_00"].ndim != 4:
        got = tuple(arrays["weight_00"].shape)
        msg = f"{name} must hold weights of shape (out, in, 3, 3), got {got} for weight_00."
        raise ValueError(msg)
    width, channels = arrays["weight_00"].shape[:2]
    outputs = len(arrays[f"bias_{depth - 1:02d}"])
    maps = MAPS[: max(0, channels - outputs)]  # their number counts here; a header names them
    config = VDSRConfig(depth, width, fold=max(1, math.isqrt(outputs)), maps=maps)
    widths = [config.fold**2 + len(maps)] + [width] * (depth - 1) + [config.fold**2]
    # Before the network is made, for a file may claim any width.
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        for kind, shape in (("weight", (outputs, inputs, 3, 3)), ("bias", (outputs,))):
            array = arrays[f"{kind}_{number:02d}"]
            if array.shape != shape or not array.is_floating_point():
                msg = f"{name}: {kind}_{number:02d} must be of shape {shape} and a float dtype, "
                msg += f"got {tuple(array.shape)} of {array.dtype}. It holds another network than VDSR."
                raise ValueError(msg)
            if not bool(torch.isfinite(array.float()).all()):
                msg = f"{name}: {kind}_{number:02d} must be finite, got NaN or infinity. Its training went wrong."
                raise ValueError(msg)
    model = VDSR(config, scales=())
    for number, layer in enumerate(model.convolutions):
        for kind, parameter in layer.named_parameters():
            parameter.data.copy_(arrays[f"{kind}_{number:02d}"])
    return model.eval()


def load_model(name_or_path: str | os.PathLike[str] | None = None) -> VDSR:
    """Load a network: the default one, one of the package by its name, or one from a file.

    Parameters
    ----------
    name_or_path : str or path, optional
        None for the default, ``photo``; a name of `model_names`, such as ``microscopy``; or the path of a file: a
        ``.safetensors`` or ``.bioimageio.zip`` file of this package, or a state dict of PyTorch, an ``.npz`` or
        ``.mat`` file of another program that holds a plain stack of 3 x 3 convolutions. No code in a file is executed.

    Returns
    -------
    VDSR
        On the CPU, in evaluation mode.

    Raises
    ------
    ValueError
        If there is no such network, or the file does not hold one.

    Examples
    --------
    >>> load_model().config
    VDSRConfig(depth=20, width=64, fold=2, blocks=True, maps=('scale',))
    """
    try:
        if isinstance(name_or_path, bytes):
            raise TypeError
        name = DEFAULT if name_or_path is None else os.fspath(name_or_path)
    except TypeError as error:
        kind = type(name_or_path).__name__
        msg = f"`model` must be a VDSR, a name, a path or None, got {kind}. Use None for the default."
        raise TypeError(msg) from error
    if name in model_names():
        with resources.as_file(folder() / f"{name}.safetensors") as path:
            return load_checkpoint(path)
    path = Path(name)
    if not path.is_file():
        msg = f"`model` must be one of {', '.join(model_names())} or a file, got {name!r}. Check the spelling."
        raise ValueError(msg)
    kind = find_kind(path)
    if kind == PACKAGE:
        with unpack(path) as checkpoint:
            return load_checkpoint(checkpoint)
    return load_checkpoint(path) if kind == OURS else load_arrays(path)


def to_network(model: VDSR | str | os.PathLike[str] | None) -> VDSR:
    """A network itself, or what `load_model` takes as one."""
    return model if isinstance(model, VDSR) else load_model(model)
