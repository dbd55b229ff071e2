"""The networks that come with the package, and what the files of networks say of themselves; no PyTorch."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vdsr_core.arguments import check_path

DEFAULT = "photo"
SUFFIX = ".safetensors"


def model_names() -> list[str]:
    """The names of the networks that come with the package.

    Returns
    -------
    list of str
        Names that `load_model` takes, the default first.

    Examples
    --------
    >>> model_names()[0]
    'photo'
    """
    names = [entry.name.removesuffix(SUFFIX) for entry in folder().iterdir() if entry.name.endswith(SUFFIX)]
    return sorted(names, key=lambda name: (name != DEFAULT, name))


def read_card(name_or_path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The card of a network; its weights are not read, and PyTorch is not loaded.

    Parameters
    ----------
    name_or_path : str or path, optional
        A name of `model_names`, or a ``*.safetensors`` file; None for the default network.

    Returns
    -------
    dict
        The card, such as ``"summary"``, ``"data"``, ``"recipe"`` and ``"terms"``, ``"scales"``, a list of float, and
        ``"maps"``, a list of str (see `VDSR.maps`).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a network of this package.

    Examples
    --------
    >>> read_card("microscopy")["name"]
    'microscopy'
    """
    name = DEFAULT if name_or_path is None else name_or_path
    if name in model_names():
        with resources.as_file(folder() / f"{name}{SUFFIX}") as path:
            return _read(path)
    return _read(check_path("name_or_path", name))


def _read(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
        maps = json.loads(header["config"]).get("maps", [])  # files of earlier versions have none
        if (restorer := json.loads(header.get("restorer", "null"))) in model_names():
            maps = read_card(restorer)["maps"]
        return {**json.loads(header["card"]), "scales": json.loads(header["scales"]), "maps": maps}
    except (SafetensorError, KeyError, ValueError, TypeError, IsADirectoryError) as error:
        msg = f"`name_or_path` must be a network that this package saved, got {path}. Choose another file."
        raise ValueError(msg) from error


def folder() -> Any:
    """The folder of the networks that come with the package."""
    return resources.files("vdsr_core") / "pretrained"
