"""A network that is dropped onto napari joins the user's own."""

from __future__ import annotations

from typing import Any


def get_reader(path: str | list[str]) -> Any:
    """Give the function that adds the network of a ``*.safetensors`` file to the user's own."""
    return add_networks


def add_networks(paths: str | list[str]) -> list[tuple[None]]:
    """Add networks, and say so, or why a file cannot be one; there is no layer to show."""
    from napari.utils.notifications import show_error, show_info

    from napari_vdsr.models.box import NEWS
    from napari_vdsr.models.library import import_model
    from napari_vdsr.words import sentence

    for path in [paths] if isinstance(paths, str) else paths:
        try:
            name = import_model(path).stem
        except (OSError, ValueError) as error:
            show_error(sentence(error))  # napari would show a traceback
            continue
        NEWS.changed.emit("", "")
        show_info(f"Added to your models: “{name}”. Upscale and Fine-tune offer it.")
    return [(None,)]
