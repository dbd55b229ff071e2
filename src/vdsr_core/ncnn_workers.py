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
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from multiprocessing import current_process
from multiprocessing.spawn import get_executable
from queue import SimpleQueue
from typing import Any, BinaryIO

import numpy as np

from vdsr_core.ncnn_network import Floats, Layer, NcnnNetwork
from vdsr_core.strips import LARGE, Block, blocks, stop_if, within

IDLE = 120  # seconds after which a process without work ends
PAUSE = 0.05  # seconds between two looks at whether to stop


class NcnnWorkers:
    """A network whose large images are shared out, block by block, to processes, which start with the first of them.

    Any number of threads may run it at once.

    Parameters
    ----------
    layers : sequence of (weight, bias)
        (out, in, 3, 3) and (out,), from input to output.
    network : NcnnNetwork
        Of these layers, for small images, and for all if the processes do not work.
    count : int
        How many processes.
    """

    def __init__(self, layers: Sequence[Layer], network: NcnnNetwork, count: int) -> None:
        self._layers, self._network, self._count = layers, network, count
        self._free: SimpleQueue[Worker | None] = SimpleQueue()  # a place for each process
        for _ in range(count):
            self._free.put(None)
        self._works = works_here()

    def residual(self, ilr: Floats, stop: threading.Event | None = None) -> Floats:
        """The output of the last layer.

        Parameters
        ----------
        ilr : (H, W) ndarray
            An interpolated image.
        stop : Event, optional
            Ends the work at once.

        Returns
        -------
        (H, W) ndarray

        Raises
        ------
        MemoryError
            If memory runs out.
        Stopped
            If `stop` is set.
        """
        if ilr.size < LARGE:
            return self._network.residual(ilr, stop)
        places = blocks(ilr.shape[0], ilr.shape[1], len(self._layers), self._count)
        result = np.empty_like(ilr)
        if self._works:
            try:
                self._share(ilr, places, result, stop)
            except (OSError, EOFError, pickle.UnpicklingError) as error:
                self._works = False
                reason = str(error) or "one has ended"
                warnings.warn(f"ncnn's processes do not work here ({reason}); going on in one.", stacklevel=2)
            else:
                return result
        for inner, seen in places:  # the same blocks: the same result
            result[inner] = self._network.residual(ilr[seen], stop)[within(inner, seen)]
        return result

    def _share(self, ilr: Floats, places: list[Block], result: Floats, stop: threading.Event | None) -> None:
        """Fill `result` by the processes; those at work end if it is not waited for."""
        busy: set[Worker] = set()
        ended = threading.Event()
        with ThreadPoolExecutor(self._count) as threads:
            waiting = {threads.submit(self._compute, ilr[seen], busy, ended): (inner, seen) for inner, seen in places}
            try:
                while waiting:
                    done, _ = wait(waiting, PAUSE, FIRST_COMPLETED)
                    stop_if(stop)
                    for future in done:
                        inner, seen = waiting.pop(future)
                        result[inner] = future.result()[within(inner, seen)]
            except BaseException:
                ended.set()
                for future in waiting:
                    future.cancel()
                for worker in list(busy):
                    worker.end()
                raise

    def _compute(self, ilr: Floats, busy: set[Worker], ended: threading.Event) -> Floats:
        """The output of the last layer for a block by the next process that is free."""
        worker = self._free.get()
        try:
            if worker is None or not worker.alive:
                worker = Worker(self._layers)
            busy.add(worker)
            if ended.is_set():
                worker.end()
            return worker.compute(ilr)
        except BaseException:
            if worker:
                worker.end()
            raise
        finally:
            busy -= {worker}
            self._free.put(worker)


class Worker:
    """A process with a network of its own, which ends with the last reference to this object.

    Parameters
    ----------
    layers : sequence of (weight, bias)
        As in `NcnnWorkers`.

    Raises
    ------
    OSError
        If it does not start.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        # Nothing of the caller's own program is imported there, unlike in the processes of `multiprocessing`.
        code = f"import sys; sys.path[:] = {sys.path!r}; from vdsr_core.ncnn_workers import serve; serve()"
        ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "  # Ctrl-C is for who waits
        process = subprocess.Popen(
            [os.fsdecode(get_executable()), "-c", ignore + code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # of Windows
        )
        self._process = process
        self.end = weakref.finalize(self, end, process)
        self._send(layers)

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.end.alive and self._process.poll() is None

    def compute(self, ilr: Floats) -> Floats:
        """The output of the last layer.

        Raises
        ------
        MemoryError
            If memory runs out there.
        OSError, EOFError
            If the process ends.
        """
        self._send(ilr)
        answer: Any = pickle.load(self._process.stdout)  # type: ignore[arg-type]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def _send(self, thing: Any) -> None:
        send(self._process.stdin, thing)  # type: ignore[arg-type]


def works_here() -> bool:
    """Whether a process of this program may start others, and by Python's own executable."""
    return not current_process().daemon and not getattr(sys, "frozen", False) and bool(get_executable())


def send(pipe: BinaryIO, thing: Any) -> None:
    """Write an object to a pipe."""
    pickle.dump(thing, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process; whoever reads from it finds the end of its output."""
    process.kill()
    process.wait()
    for pipe in filter(None, (process.stdin, process.stdout)):
        with contextlib.suppress(OSError):
            pipe.close()


def serve() -> None:
    """Be such a process: read the layers, then answer images by residuals, until there are no more."""
    source, target = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    with contextlib.suppress(OSError):  # there may be no terminal
        os.dup2(2, 1)  # what libraries print must not come between the answers
    network = NcnnNetwork(pickle.load(source), 1)
    while True:
        idle = threading.Timer(IDLE, os._exit, [0])
        idle.daemon = True
        idle.start()
        try:
            ilr = pickle.load(source)
        except EOFError:
            return
        idle.cancel()
        answer: Any
        try:
            answer = network.residual(ilr)
        except Exception as error:  # for the caller to raise
            answer = error
        send(target, answer)
