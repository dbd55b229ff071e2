"""Following a viewer, as long as the panel that shows it is there."""

from __future__ import annotations

from typing import Any


class Follower:
    """Connections to events and signals, which are all ended at once."""

    def __init__(self) -> None:
        self._connections: list[tuple[Any, Any]] = []

    def follow(self, *connections: tuple[Any, Any]) -> None:
        """Call back when these events or signals are emitted, (event, callback)."""
        for event, callback in connections:
            event.connect(callback)
        self._connections += connections

    def leave(self) -> None:
        """Follow them no longer."""
        for event, callback in self._connections:
            event.disconnect(callback)
        self._connections = []

    @property
    def following(self) -> bool:
        """Whether anything is followed."""
        return bool(self._connections)
