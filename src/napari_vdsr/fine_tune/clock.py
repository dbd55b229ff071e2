"""How long a training has taken, and how long the rest will take."""

from __future__ import annotations

import time


class Clock:
    """The time that a training has taken, pauses not counted, and what is left."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None  # time and fraction of the first report
        self._idle = 0.0
        self._paused: float | None = None

    def pause(self) -> None:
        """Do not count from here."""
        self._paused = time.monotonic()

    def resume(self) -> None:
        """Count again."""
        if self._paused is not None:
            self._idle += time.monotonic() - self._paused
            self._paused = None

    def left(self, share: float) -> float | None:
        """Seconds left when the fraction `share` is done; None if nothing is known yet."""
        now = time.monotonic() - self._idle
        if self._first is None:
            self._first = (now, share)
        begun, first = self._first
        return (now - begun) / (share - first) * (1 - share) if share > first else None
