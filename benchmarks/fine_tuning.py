"""Fine-tune the default network on single images and print what that gives on the part held out.

python benchmarks/fine_tuning.py cells.tif ... [--model photo] [--scales 2 3 4] [--steps 400]
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

from vdsr_core import FineTuneConfig, fine_tune, read_image


def main() -> None:
    """One line for each image and scale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--scales", nargs="+", type=float, default=[2.0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--model", help="where to start")
    parser.add_argument("--optimizer", default=FineTuneConfig.optimizer)
    parser.add_argument("--learning-rate", type=float, default=FineTuneConfig.learning_rate)
    options = parser.parse_args()
    print("image  scale  bicubic  before  after  minutes  processor minutes", flush=True)
    for path in options.images:
        start, computed = time.perf_counter(), time.process_time()
        with warnings.catch_warnings(action="ignore"):
            network = fine_tune(
                read_image(path),
                model=options.model,
                scales=options.scales,
                optimizer=options.optimizer,
                learning_rate=options.learning_rate,
                steps=options.steps,
                batch_size=options.batch_size,
                validate_every=25,
            )
        minutes = (time.perf_counter() - start) / 60
        computed = (time.process_time() - computed) / 60
        for scale, found in network.card["hold_out"].items():
            figures = "  ".join(f"{found[name]:.2f}" for name in ("bicubic", "before", "after"))
            print(f"{path.stem}  {scale}  {figures}  {minutes:.1f}  {computed:.1f}", flush=True)
        print(network.card["summary"], flush=True)


if __name__ == "__main__":
    main()
