"""Where the time goes, from a file to a file: a photograph, a stack, and the start of a script.

    python benchmarks/end_to_end.py [--side 4000] [--frames 50] [--repeats 3]

A photograph (PNG, RGB) whose result has SIDE x SIDE pixels, and a stack (TIFF, 16 bit) of FRAMES that become 512 x 512,
both at x2 with the default network, read and written as `vdsr upscale` does. Medians of seconds by the clock: the
network is what is spent within it, the rest of `super_resolve` is interpolation, colour and conversion. The start is
that of Python with the import and the first, small result, in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import make_image

from vdsr_core import ImageFile, load_model, read_image, super_resolve, write_image
from vdsr_core.network.engine import Engine

STARTS = {
    "python": "",
    "and import vdsr_core": "import vdsr_core",
    "and a result of 64 x 64": "import vdsr_core, numpy as np; vdsr_core.super_resolve(np.eye(32), 2)",
}


class TimedEngine(Engine):
    """An engine that adds up the seconds spent in the network."""

    spent = 0.0

    def _residual(self, *args: Any) -> Any:
        start = time.perf_counter()
        try:
            return super()._residual(*args)
        finally:
            self.spent += time.perf_counter() - start


def measure(source: Path, target: Path, engine: TimedEngine) -> tuple[float, ...]:
    """Seconds to read, in the network, in the rest of `super_resolve`, and to write."""
    engine.spent = 0.0
    marks = [time.perf_counter()]
    image = read_image(source)
    data = np.asarray(image.data)
    marks.append(time.perf_counter())
    result = super_resolve(data, 2, model=engine, rgb=image.rgb)
    marks.append(time.perf_counter())
    write_image(target, ImageFile(result, image.axes), overwrite=True)
    marks.append(time.perf_counter())
    read, compute, write = np.diff(marks)
    return read, engine.spent, compute - engine.spent, write


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4000)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    import torch

    engine = TimedEngine(load_model(), torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        photo, stack = Path(folder, "photo.png"), Path(folder, "stack.tif")
        gray = make_image(options.side // 2) // 16
        write_image(photo, ImageFile(np.stack([gray, gray[::-1], gray.T], -1).astype(np.uint8), "YXS"))
        write_image(stack, ImageFile(np.stack([make_image(256)] * options.frames), "TYX"))
        print("| | read | network | rest of super_resolve | write | outside the network |\n|---|---|---|---|---|---|")
        for path in (photo, stack):
            measure(path, path.with_stem("out"), engine)  # processes start
            runs = [measure(path, path.with_stem("out"), engine) for _ in range(options.repeats)]
            read, network, rest, write = np.median(runs, axis=0)
            share = 1 - network / (read + network + rest + write)
            print(f"| {path.stem} | {read:.2f} | {network:.2f} | {rest:.2f} | {write:.2f} | {share:.1%} |", flush=True)
    print("\n| start | seconds |\n|---|---|")
    for name, code in STARTS.items():
        seconds = []
        for _ in range(options.repeats + 1):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds.append(time.perf_counter() - start)
        print(f"| {name} | {np.median(seconds[1:]):.2f} |", flush=True)


if __name__ == "__main__":
    main()
