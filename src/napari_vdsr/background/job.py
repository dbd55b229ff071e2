"""Run a generator in a thread and report its steps to the viewer's thread."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterator
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, QThreadPool, Signal  # type: ignore[attr-defined]

_running: set[Job] = set()
SPARE = 2  # threads for other work of napari
LAST_WAIT = 10_000  # milliseconds for the work to end when Python ends

Work = Callable[[threading.Event], Iterator[Any]]


class Job(QObject):
    """A generator at work in a thread.

    The whole generator runs inside one plain function: a generator worker loses every `RuntimeError`, of which
    CUDA's lack of memory is one, and leaves a generator that is aborted without its last steps.

    `work` takes the event that says "stop" and gives the generator; it may raise `Cancelled` when the event is set.
    `words` say what it does, for napari, which lists what is at work when its window is closed.
    """

    stepped = Signal(object, object)  # the job and a step; the generator waits until the first one has been handled
    ended = Signal(object, object)  # the job, and None or the exception that ended the generator

    def __init__(self, work: Work, words: str = "looking at images and networks") -> None:
        super().__init__()
        self._words = words
        self.cancelled = threading.Event()
        self._taken = threading.Event()
        self._work = work
        self.worker = create_worker(self, _start_thread=False, _ignore_errors=True)

    def start(self) -> None:
        """Begin."""
        _running.add(self)
        self.stepped.connect(self._take)  # after all others
        self.worker.finished.connect(self._forget)
        pool = QThreadPool.globalInstance()  # of a thread for each core, while most work only waits for its turn
        if pool is not None:
            pool.setMaxThreadCount(max(pool.maxThreadCount(), len(_running) + SPARE))
        self.worker.start()

    def cancel(self) -> None:
        """Ask for the end; `ended` follows."""
        self.cancelled.set()

    def __str__(self) -> str:
        """What napari calls it when it lists what is at work."""
        return f"VDSR super-resolution: {self._words}"

    def __call__(self) -> None:
        """Do the work, in the thread."""
        error: Exception | None = None
        try:
            for step in self._work(self.cancelled):
                self.stepped.emit(self, step)
                # The first step adds a layer: beside work that takes Python's lock in turns, that is twice as long.
                while not (self._taken.wait(0.1) or self.cancelled.is_set()):
                    pass
        except Exception as caught:  # of any kind: the user is told
            error = caught
        self.ended.emit(self, error)

    def _take(self, *_: object) -> None:
        """Let the work continue: its first step has been handled."""
        self._taken.set()

    def _forget(self) -> None:
        _running.discard(self)


class Latest(QObject):
    """One piece of work at a time: when another begins, the one before is cancelled and no longer heard.

    `stepped` takes each step, `ended` None or the exception, when the work has ended by itself. It is a QObject because
    PySide6 would still call the methods of another object that is no longer there.
    """

    def __init__(self, stepped: Callable[[Any], Any], ended: Callable[[Exception | None], Any]) -> None:
        super().__init__()
        self._hear_step, self._hear_end = stepped, ended
        self._job: Job | None = None

    @property
    def running(self) -> bool:
        """Whether there is work."""
        return self._job is not None

    def start(self, work: Work) -> None:
        """Begin, instead of what is at work."""
        self.stop()
        self._job = Job(work)
        self._job.stepped.connect(self._stepped)
        self._job.ended.connect(self._ended)
        self._job.start()

    def stop(self) -> None:
        """Cancel; a step that is on its way is not heard."""
        if self._job is not None:
            self._job.cancel()
            self._job = None

    def _stepped(self, job: Job, step: Any) -> None:
        if job is self._job:
            self._hear_step(step)

    def _ended(self, job: Job, error: Exception | None) -> None:
        if job is self._job:
            self._job = None
            self._hear_end(error)


@atexit.register
def _stop_all() -> None:
    """Let no thread outlive the Qt objects that it reports to."""
    for job in _running:
        job.cancel()
    pool = QThreadPool.globalInstance()
    if _running and pool is not None:
        pool.waitForDone(LAST_WAIT)
