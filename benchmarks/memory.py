"""Peak memory against image size: it must not grow beyond the image and its result.

    python benchmarks/memory.py [SIZE ...] [--scale 2] [--tile 1024] [--tiles 5] [--most 20]

SIZE is the side of a square uint16 image (1000, 2000, 4000 and 6000 by default). Each size runs in a process
of its own: tiles at the beginning, one in the middle and those at the end (`--tiles` of each; `--most` for the
largest image), since all tiles of a large image take long. The result is written over beforehand, so that all of it
counts.

"peak" is that above the interpreter with torch loaded; "rest" is the same without input and result.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time

import numpy as np
import torch
from measuring import MB, peak_memory

from vdsr_core import super_resolve_tiles


def measure(size: int, count: int, options: argparse.Namespace) -> None:
    """Print bytes of input and result, the peak above torch, the number of tiles and seconds for each."""
    torch.zeros(1)
    before = peak_memory()
    image = np.random.default_rng(0).integers(100, 4096, (size, size), np.uint16)
    out = np.zeros((size * options.scale,) * 2, np.uint16)
    out.fill(1)
    start = time.perf_counter()
    done = 0
    for near, many in (((0, 0), count), ((len(out) // 2,) * 2, 1), ((len(out) - 1,) * 2, count)):
        tiles = super_resolve_tiles(image, options.scale, out, tile=options.tile, near=near)
        done += len(list(itertools.islice(tiles, many)))
        tiles.close()  # type: ignore[attr-defined]
    seconds = (time.perf_counter() - start) / done
    print(image.nbytes, out.nbytes, peak_memory() - before, done, seconds)


def main() -> None:
    """Measure each size in its own process and print a table."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("sizes", type=int, nargs="*", default=[1000, 2000, 4000, 6000], metavar="SIZE")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--tiles", type=int, default=5, help="how many of the first and of the last tiles")
    parser.add_argument("--most", type=int, default=20, help="the same for the largest image")
    parser.add_argument("--measure", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure, options)
        return
    print(f"x{options.scale}, tile {options.tile}, uint16, torch {torch.__version__}\n")
    print("| input | tiles | input, MB | result, MB | peak, MB | less result, MB | rest, MB | s per tile |")
    print("|---|---|---|---|---|---|---|---|")
    for size in options.sizes:
        count = options.most if size == max(options.sizes) else options.tiles
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", str(size), str(count)]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        image, result, peak = (int(value) / MB for value in found[:3])
        print(
            f"| {size} x {size} | {found[3]} | {image:.0f} | {result:.0f} | {peak:.0f} | {peak - result:.0f} "
            f"| {peak - result - image:.0f} | {float(found[4]):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
