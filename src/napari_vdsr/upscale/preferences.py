"""What was chosen last, which the widget begins with; napari 0.9 and newer keeps it, and has a page for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

DEFAULTS: dict[str, Any] = {  # as in the manifest
    "scale": 2.0,
    "model": "",
    "result": "memory",
    "keep": True,
    "best": False,
    "left": "source",
    "proposed": False,
}


_SESSION = SimpleNamespace(**DEFAULTS)  # with an older napari


def preference(name: str) -> Any:
    """What was chosen last, by its name in the manifest."""
    return getattr(_settings(), name)


def remember(**chosen: Any) -> None:
    """Begin with this the next time."""
    settings = _settings()
    for name, value in chosen.items():
        if getattr(settings, name) != value:
            setattr(settings, name, value)


def _settings() -> Any:
    try:
        from napari.settings import get_plugin_settings

        return get_plugin_settings("napari-vdsr").upscale
    except (ImportError, KeyError):  # an older napari, or one that knows the package by its modules only
        return _SESSION
