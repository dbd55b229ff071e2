"""What folding pixels into channels saves: the network of the paper, plain, and folded in blocks; and the small one.

    python benchmarks/folding.py [--sides 512 2048] [--scales 2 3 4] [--tiles 4] [--threads 2] [--repeats 3]

uint16 images through `super_resolve_tiles` on the CPU, in turns, with random weights, which cost what trained ones do;
of large images the TILES in the middle, all others inside the time but the search for the range. "folded" is `photo`,
"small" is `fast`. Their columns are how many times as fast as the plain network they are, by the clock and in processor
time, as the median over the turns; "around" is the share of the time that is left with a network of two layers of one
filter each (an upper bound: it has arithmetic of its own). "peak" is memory above the interpreter with the library
loaded, of each network in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import torch
from measuring import MB, make_image, peak_memory, take_turns

from vdsr_core import VDSR, VDSRConfig, super_resolve_tiles
from vdsr_core.network.devices import make_engine

NETWORKS = {
    "plain": VDSRConfig(),
    "folded": VDSRConfig(fold=2, blocks=True),
    "small": VDSRConfig(depth=8, width=48, fold=2, blocks=True),
    "empty": VDSRConfig(depth=2, width=1, fold=2),
}


@cache
def get_engine(name: str) -> Any:
    """A network made ready, once."""
    return make_engine(VDSR(NETWORKS[name]), "cpu")


def upscale(name: str, side: int, scale: int, tiles: int) -> None:
    """Upscale the middle of an image with one of the networks."""
    out = np.empty((side * scale,) * 2, np.uint16)
    middle = (len(out) // 2,) * 2
    steps = super_resolve_tiles(make_image(side), scale, out, model=get_engine(name), near=middle)
    for _ in itertools.islice(steps, tiles):
        pass


def find_peak(name: str, side: int, scale: int, tiles: int) -> float:
    """Peak memory in a new process, MB."""
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", name, *map(str, (side, scale, tiles))]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / MB


def main() -> None:
    """Measure each size and scale and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 2048], help="of the image")
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--tiles", type=int, default=4, help="how many at most, of 1024 x 1024 pixels")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        name, *numbers = options.measure
        before = peak_memory()
        upscale(name, *map(int, numbers))
        print(peak_memory() - before)
        return
    print(f"{options.threads} threads\n")
    print("| image | scale | folded | CPU | around | small | CPU | around | peak, plain, MB | peak, folded, MB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for side, scale in itertools.product(options.sides, options.scales):
        task = (side, scale, options.tiles)
        runs = {name: (lambda name=name, task=task: upscale(name, *task)) for name in NETWORKS}
        found = take_turns(runs, options.repeats)
        cells = []
        for name in ("folded", "small"):
            cells += [f"{value:.2f}" for value in np.median(found["plain"] / found[name], axis=0)]
            cells.append(f"{np.median(found['empty'][:, 1] / found[name][:, 1]):.1%}")
        cells += [f"{find_peak(name, *task):.0f}" for name in ("plain", "folded")]
        print(f"| {side} x {side} | {scale} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
