"""What an upscale costs per pixel: over the size of the image, for many small ones, and around the network.

    python benchmarks/scaling.py [--sides 256 512 1024 2048 4096] [--small 96 128 256] [--threads 2] [--repeats 3]

uint16 images at x2 through `super_resolve` with the default network, on the CPU, in turns; sides are those of the
result. "whole" is time per Mpx of the result by the clock, "CPU" that of the processor, both as medians; "ratio" is the
median over the turns of the ratio to the largest image that is repeated (the last but one; the largest runs once).

"stack of" small images: as many as give about four megapixels of result, in one call.

The share outside the network is what a network of two layers of one filter each leaves, with its own arithmetic,
over the whole: an upper bound, gray and RGB.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from measuring import make_image, processor_time

from vdsr_core import VDSR, VDSRConfig, load_model, super_resolve

STACK = 2**22  # pixels of the result of a stack


def spent(run: Callable[[], Any], megapixels: float) -> tuple[float, float]:
    """Seconds per Mpx, by the clock and of the processor."""
    cpu, start = processor_time(), time.perf_counter()
    run()
    elapsed = time.perf_counter() - start
    return elapsed / megapixels, (processor_time() - cpu) / megapixels


def measure(options: argparse.Namespace) -> None:
    """Print seconds per Mpx for images of all sizes."""
    model = load_model()

    def upscale(side: int, times: int = 1) -> Callable[[], Any]:
        image = np.stack([make_image(side // 2)] * times)
        return partial(super_resolve, image, 2, model=model, device="cpu")

    runs = {f"{side} x {side}": (upscale(side), side**2 / 1e6) for side in options.sides}
    *_, once = runs
    for side in options.small:
        times = STACK // side**2
        runs[f"stack of {times} x {side} x {side}"] = upscale(side, times), times * side**2 / 1e6
    upscale(256)()  # the network is converted, and processes start
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(options.repeats):
        for name, (run, megapixels) in runs.items():
            if turn == 0 or name != once:
                found[name].append(spent(run, megapixels))
    reference = found[list(runs)[len(options.sides) - 2]]
    print(f"{torch.get_num_threads()} threads\n")
    print("| result | whole, s per Mpx | CPU, s per Mpx | ratio | ratio, CPU |\n|---|---|---|---|---|")
    for name, values in found.items():
        ratios = np.median([np.divide(a, b) for a, b in zip(values, reference, strict=False)], axis=0)
        cells = [f"{value:.2f}" for value in (*np.median(values, axis=0), *ratios)]
        print(f"| {name} | {' | '.join(cells)} |")


def measure_around() -> None:
    """Print the share of what is not the network."""
    model, empty = load_model(), VDSR(VDSRConfig(depth=2, width=1))
    gray = make_image(512)
    color = np.stack([gray >> 4] * 3, -1).astype(np.uint8)
    print("\n| image | without the network, CPU s per Mpx | with it | share |\n|---|---|---|---|")
    for name, image in (("gray, uint16", gray), ("RGB, uint8", color)):
        options = {"rgb": image.ndim == 3, "device": "cpu"}
        runs = [partial(super_resolve, image, 2, model=network, **options) for network in (empty, model)]
        for run in runs:
            run()  # processes start
        around, whole = (spent(run, 4 * gray.size / 1e6)[1] for run in runs)
        print(f"| {name} | {around:.3f} | {whole:.2f} | {around / whole:.1%} |")


def main() -> None:
    """Measure and print the tables."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--small", type=int, nargs="*", default=[96, 128, 256])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measure(options)
    measure_around()


if __name__ == "__main__":
    main()
