"""Errors, times and sizes in words that a user of the widgets reads. No Qt."""

from __future__ import annotations

import errno
import math

TIMES = "\u00d7"
SHOWN = {  # the arguments of the core, as the widget calls them
    "image": "The layer",
    "scale": "Scale",
    "model": "The model",
    "tile": "tile size",
    "in_range": "The range",
    "device": "The device",
}


def sentence(error: Exception | None) -> str:
    """An error in words that a user of the widget can act on."""
    words = str(error) or type(error).__name__
    if isinstance(error, MemoryError) and "`" not in words:
        words = f"There is not enough memory ({words}). Choose a smaller tile, the current plane or a smaller scale."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        words = "The disk is full: make room, and try again."
    for name, shown in SHOWN.items():
        words = words.replace(f"`{name}`", shown)
    return words.replace("`", "")


def duration(seconds: float) -> str:
    """A time in words, as precise as an estimate can be."""
    if seconds < 1:
        return "less than a second"
    if seconds < 100:
        return f"{math.ceil(seconds)} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:,.0f} days"


def size(count: float) -> str:
    """An amount of memory in words."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB" if count >= 10 else f"{count:.2g} GB"
