"""What the user has set under File > Preferences; napari has a page for each plugin from version 0.9 on."""

from __future__ import annotations

from typing import Any

DEFAULTS = {"scale": 2.0, "keep": True}  # as in the manifest


def preference(name: str) -> Any:
    """A preference for the Upscale widget, by its name in the manifest."""
    try:
        from napari.settings import get_plugin_settings

        return getattr(get_plugin_settings("napari-vdsr").upscale, name)
    except (ImportError, KeyError):  # an older napari, or one that knows the package by its modules only
        return DEFAULTS[name]
