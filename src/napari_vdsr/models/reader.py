"""A network that is dropped onto napari joins the user's own."""

from __future__ import annotations

from typing import Any


def get_reader(path: str | list[str]) -> Any:
    """Give the function that adds the network of a ``*.safetensors`` file to the user's own."""
    return add_networks


def add_networks(paths: str | list[str]) -> list[tuple[None]]:
    """Add networks, and say so; there is no layer to show. A ValueError if a file holds no network."""
    from napari.utils.notifications import show_info

    from napari_vdsr.models.box import NEWS
    from napari_vdsr.models.library import import_model

    for path in [paths] if isinstance(paths, str) else paths:
        name = import_model(path).stem
        NEWS.changed.emit("", "")
        show_info(f"The network “{name}” is now among your models. Upscale and Fine-tune offer it.")
    return [(None,)]
