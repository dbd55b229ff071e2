"""Speed and peak memory of `super_resolve` against the plain forward pass of other implementations.

    python benchmarks/throughput.py [SIZE ...] [--scale 2] [--tile 1024] [--repeats 5] [--model FILE]

SIZE is the side of a square uint16 image (128, 256 and 512 by default). Both give uint16 for uint16, through
the same network, loaded beforehand:

    eager   what other implementations run: the whole image interpolated, then one float32 forward pass, NCHW
            and contiguous, under `torch.no_grad`; layers as `nn.Conv2d` and `nn.ReLU(inplace=True)`
    ours    `super_resolve` with everything in it: checks, the scan for the range, tiles, rounding

They alternate, and the median counts; "CPU" is the ratio of processor time, which other jobs on the machine
disturb less (least so with `OMP_NUM_THREADS=1`). The peak memory of each is that of a process of its own,
above the interpreter with torch loaded (input and output included).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from measuring import MB, Image, make_image, make_parser, peak_memory, take_turns
from torch import nn

from vdsr_core.checkpoint import load_model
from vdsr_core.inference import super_resolve


def make_eager(model: Any, scale: int) -> Callable[[Image], Image]:
    """The plain forward pass of the whole image."""
    layers: list[nn.Module] = []
    for layer in model.layers:
        layers += [layer, nn.ReLU(inplace=True)]
    network = nn.Sequential(*layers[:-1]).eval()

    def run(image: Image) -> Image:
        low, high = float(image.min()), float(image.max())
        with torch.no_grad():
            pixels = (torch.from_numpy(image.astype(np.float32))[None, None] - low) / (high - low)
            ilr = nn.functional.interpolate(pixels, scale_factor=scale, mode="bicubic", align_corners=False)
            sr = (ilr + network(ilr))[0, 0].numpy()
        return np.clip(np.rint(sr * (high - low) + low), 0, 65535).astype(np.uint16)  # type: ignore[no-any-return]

    return run


def contenders(options: argparse.Namespace) -> dict[str, Callable[[Image], Image]]:
    """The two ways to upscale an image."""
    model = load_model(options.model)

    def ours(image: Image) -> Image:
        return super_resolve(image, options.scale, model=model, tile=options.tile or None, device="cpu")

    return {"eager": make_eager(model, options.scale), "ours": ours}


def measure_memory(name: str, size: int, options: argparse.Namespace) -> None:
    """Print the peak of one contender in this process, above the interpreter with torch loaded."""
    torch.zeros(1)
    before = peak_memory()
    contenders(options)[name](make_image(size))
    print(peak_memory() - before)


def memory_of(name: str, size: int) -> int:
    """The same from a process of its own, with the arguments of this one."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name, str(size)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure and print a table."""
    parser = make_parser(__doc__, repeats=5)
    parser.add_argument("sizes", type=int, nargs="*", default=[128, 256, 512], metavar="SIZE")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--tile", type=int, default=1024, help="0: the whole image in one piece")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        measure_memory(options.memory_of[0], int(options.memory_of[1]), options)
        return
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"x{options.scale}, tile {options.tile}, {threads}; Mpx: of the result\n")
    heads = "eager, s | ours, s | eager, Mpx/s | ours, Mpx/s | speed | CPU | eager, MB | ours, MB | memory"
    print(f"| input | {heads} |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    runs = contenders(options)
    for size in options.sizes:
        image = make_image(size)
        seconds = take_turns({name: partial(run, image) for name, run in runs.items()}, options.repeats)
        eager, ours = (float(np.median(seconds[name][:, 0])) for name in ("eager", "ours"))
        speed, cpu = np.median(seconds["eager"] / seconds["ours"], axis=0)
        pixels = (size * options.scale) ** 2 / 1e6
        before, now = (memory_of(name, size) / MB for name in ("eager", "ours"))
        print(
            f"| {size} x {size} | {eager:.2f} | {ours:.2f} | {pixels / eager:.3f} | {pixels / ours:.3f} "
            f"| {speed:.2f} x | {cpu:.2f} x | {before:.0f} | {now:.0f} | {now / before:.2f} x |",
            flush=True,
        )


if __name__ == "__main__":
    main()
