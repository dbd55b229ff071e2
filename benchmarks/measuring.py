"""What scripts that measure share: images, turns, memory and options."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
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


def take_turns(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, NDArray[np.float64]]:
    """(repeats, 2) seconds of each, by the clock and of the processor, in turns, warmed up once."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start, processor = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - start, time.process_time() - processor))
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def peak_memory() -> int:
    """The largest resident size of this process so far, bytes.

    `ru_maxrss` in Linux's own words: there, a process started by a large one would inherit its figure.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def make_image(size: int) -> Image:
    """A 12-bit image of blobs and noise."""
    rng = np.random.default_rng(0)
    image = rng.integers(100, 400, (size, size), np.uint16)
    image[size // 4 : size // 2, size // 4 : size // 2] += 3000
    return image
