"""A stop that ends work under way."""

from __future__ import annotations

import threading


class Stopped(Exception):
    """Nobody waits for the result any more."""


def stop_if(stop: threading.Event | None) -> None:
    """Raise `Stopped` if the event is set."""
    if stop is not None and stop.is_set():
        raise Stopped
