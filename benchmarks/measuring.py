"""What scripts that measure share: images, turns, memory and options."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

Image = NDArray[np.uint16]
MB = 1e6


def make_parser(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """The options that all have."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--model", help="a network other than the default")
    return parser


def processor_time() -> float:
    """Seconds of the processor that this process and those it has started have used."""
    running = 0.0
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            running += sum(child.cpu_times()[:2])
    ended = os.times()
    return time.process_time() + running + ended.children_user + ended.children_system


def take_turns(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, NDArray[np.float64]]:
    """(repeats, 2) seconds of each, by the clock and of the processor, in turns, warmed up once."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            processor, start = processor_time(), time.perf_counter()  # to look for other processes takes a while
            run()
            elapsed = time.perf_counter() - start
            seconds[name].append((elapsed, processor_time() - processor))
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def peak_memory() -> int:
    """The largest resident size of this process so far, and of those it has started and that still run, bytes.

    `ru_maxrss` in Linux's own words: there, a process started by a large one would inherit its figure.
    """
    if not Path("/proc/self/status").exists():
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        children = sum(child.memory_info().rss for child in psutil.Process().children())
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit + children
    numbers = ["self", *(child.pid for child in psutil.Process().children())]
    return sum(
        int(Path(f"/proc/{number}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024 for number in numbers
    )


def make_image(size: int) -> Image:
    """A 12-bit image of blobs and noise."""
    rng = np.random.default_rng(0)
    image = rng.integers(100, 400, (size, size), np.uint16)
    image[size // 4 : size // 2, size // 4 : size // 2] += 3000
    return image
