"""ncnn in several processes of one thread each: threads that share a layer wait for each other at its end."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from multiprocessing import current_process
from multiprocessing.spawn import get_executable
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, BinaryIO, NoReturn

import numpy as np

from vdsr_core.network.ncnn_network import Floats, Layer, NcnnNetwork
from vdsr_core.network.strips import LARGE, Block, blocks, choose_count, within
from vdsr_core.stopping import Stopped, stop_if

IDLE = 120  # seconds after which a process without work ends
PAUSE = 0.05  # seconds between two looks at whether to stop
LOST = OSError, EOFError, pickle.UnpicklingError  # what is met where a process has ended


class NcnnWorkers:
    """A network whose large images are divided into blocks for `count` processes, which start with the first of them.

    `network` has the same `layers`; it computes small images, and all images if the processes do not work. Any number
    of threads may run it at once.
    """

    def __init__(self, layers: Sequence[Layer], network: NcnnNetwork, count: int, blocks: bool = False) -> None:
        self._arguments, self._network, self._count = (layers, 1, blocks), network, count
        self._begin()

    def _begin(self) -> None:
        """A place for each process; none is started yet."""
        self._free: LifoQueue[Worker | None] = LifoQueue()  # the last one used is ready, others may have to start
        for _ in range(self._count):
            self._free.put(None)
        self._works, self._owner = works_here(), os.getpid()

    def residual(self, squares: Floats, stop: threading.Event | None = None) -> Floats:
        """The output of the last layer, as `NcnnNetwork.residual`; the processes share the blocks of all images.

        When `stop` is set, the work ends at once.
        """
        if squares[:, 0].size < LARGE:
            return self._network.residual(squares, stop)
        places = self._cut(*squares.shape[2:])
        pieces = iter(self._each([image[:, *seen] for image in squares for _, seen in places], stop))
        result = np.empty_like(squares[:, : len(self._arguments[0][-1][1])])  # channels of the last layer
        for out in result:
            for inner, seen in places:
                out[:, *inner] = next(pieces)[:, *within(inner, seen)]
        return result

    def _cut(self, rows: int, columns: int) -> list[Block]:
        """The blocks of an image, which do not depend on what else there is; small ones stay whole."""
        if rows * columns < LARGE:
            whole = slice(0, rows), slice(0, columns)
            return [(whole, whole)]
        return blocks(rows, columns, len(self._arguments[0]), choose_count(rows * columns, self._count))

    def _each(self, pieces: Sequence[Floats], stop: threading.Event | None) -> list[Floats]:
        """The output of the last layer for each piece, by the processes if they work: the same bits."""
        if self._owner != os.getpid():  # a fork: the processes, and perhaps their places, are the parent's
            self._begin()
        if self._works:
            try:
                return self._share(pieces, stop)
            except LOST as error:
                self._works = False
                reason = str(error) or "one has ended"
                warnings.warn(f"ncnn's processes do not work here ({reason}); continuing in one.", stacklevel=2)
        return [self._network.residual(piece[None], stop)[0] for piece in pieces]

    def _share(self, pieces: Sequence[Floats], stop: threading.Event | None) -> list[Floats]:
        """`_each` by the processes; those at work end if it is not waited for."""
        busy: set[Worker] = set()
        ended = threading.Event()
        with ThreadPoolExecutor(self._count) as threads:
            try:
                try:
                    futures = [threads.submit(self._compute, piece, busy, ended) for piece in pieces]
                except RuntimeError:  # the interpreter ends and starts no more threads; this one continues
                    return [self._network.residual(piece[None], stop)[0] for piece in pieces]
                waiting: set[Future[Floats]] = set(futures)
                while waiting:
                    done, waiting = wait(waiting, PAUSE, FIRST_COMPLETED)
                    stop_if(stop)
                    for future in done:
                        future.result()
                return [future.result() for future in futures]
            except BaseException:
                ended.set()
                for worker in list(busy):
                    worker.end()
                raise

    def _compute(self, squares: Floats, busy: set[Worker], ended: threading.Event) -> Floats:
        """The output of the last layer for a piece by the next process that is free."""
        worker = self._wait_for_place(ended)
        try:
            if worker and worker.alive:
                busy.add(worker)
                if not ended.is_set():
                    with contextlib.suppress(*LOST):
                        return worker.compute(squares)
                    busy.discard(worker)  # it has ended, as one without work does: a new one takes over
                stop_if(ended)
            worker = Worker(self._arguments)
            busy.add(worker)
            if ended.is_set():  # perhaps too late for whoever ends those at work
                worker.end()
            return worker.compute(squares)
        except Stopped:
            raise
        except BaseException:
            if worker:
                worker.end()
            raise
        finally:
            busy -= {worker}
            self._free.put(worker)

    def _wait_for_place(self, ended: threading.Event) -> Worker | None:
        """A process that is free, or None for a place where none has been started."""
        while True:
            stop_if(ended)
            with contextlib.suppress(Empty):
                return self._free.get(timeout=PAUSE)


class Worker:
    """A process with an `NcnnNetwork` of its own, which ends with the last reference to this object."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        # Nothing of the caller's own program is imported there, unlike in the processes of `multiprocessing`.
        path = [entry for entry in sys.path if isinstance(entry, str)]
        code = f"import sys; sys.path[:] = {path!r}; from vdsr_core.network.ncnn_workers import serve; serve()"
        ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "  # Ctrl-C is for the caller
        process = subprocess.Popen(
            [str(find_python()), "-c", ignore + code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # of Windows
        )
        self._process = process
        self.end = weakref.finalize(self, end, process, os.getpid())
        send(process.stdin, arguments)  # type: ignore[arg-type]

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.end.alive and self._process.poll() is None

    def compute(self, squares: Floats) -> Floats:
        """The output of the last layer. Raises MemoryError from there, or one of `LOST` if the process ends."""
        send(self._process.stdin, squares)  # type: ignore[arg-type]
        answer: Any = pickle.load(self._process.stdout)  # type: ignore[arg-type]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]


def works_here() -> bool:
    """Whether a process of this program may start others, and by Python's own executable."""
    return not current_process().daemon and not getattr(sys, "frozen", False) and find_python() is not None


def find_python() -> Path | None:
    """Python's own executable, by its name: in a program that embeds Python, `sys.executable` is that program."""
    name = "python.exe" if os.name == "nt" else "bin/python{}.{}".format(*sys.version_info[:2])
    known = get_executable(), getattr(sys, "_base_executable", None), os.path.join(sys.exec_prefix, name)
    paths = (Path(os.fsdecode(path)) for path in known if path)
    return next((path for path in paths if path.name.lower().startswith(("python", "pypy")) and path.exists()), None)


def send(pipe: BinaryIO, thing: Any) -> None:
    """Write an object to a pipe."""
    pickle.dump(thing, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def end(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a process, unless this is a fork of its owner; whoever reads from it finds the end of its output."""
    if os.getpid() != owner:
        return
    process.kill()
    process.wait()
    for pipe in filter(None, (process.stdin, process.stdout)):
        with contextlib.suppress(OSError):
            pipe.close()


def serve() -> None:
    """Worker process: return a residual for each image received, until the caller ends; then end in silence."""
    with contextlib.suppress(*LOST):
        answer_images(sys.stdin.buffer, os.fdopen(os.dup(1), "wb"))
    os._exit(0)  # nobody waits for what has not been sent


def answer_images(source: BinaryIO, target: BinaryIO) -> NoReturn:
    """Read the layers, then answer each image by its residual."""
    with contextlib.suppress(OSError):  # there may be no terminal
        os.dup2(2, 1)  # what libraries print must not come between the answers
    network = NcnnNetwork(*pickle.load(source))
    while True:
        idle = threading.Timer(IDLE, os._exit, [0])
        idle.daemon = True
        idle.start()
        squares = pickle.load(source)
        idle.cancel()
        answer: Any
        try:
            answer = network.residual(squares[None])[0]
        except Exception as error:  # for the caller to raise
            answer = error
        send(target, answer)
