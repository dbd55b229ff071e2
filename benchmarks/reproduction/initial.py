"""First weights: random as the paper's, or layers that begin as identities. Gain over bicubic on held-out images.

    python -m benchmarks.reproduction.initial --data FOLDER [--size full] [--budget 9m]

The recipe is the modern preset, at two rates; 20 layers in all sizes, since depth is what it is about. Every sixth
image of T91, the one folder needed, is held out; no test set is touched.
"""

import argparse
from dataclasses import replace
from itertools import product
from typing import Any

from benchmarks.reproduction.study import read_lumas, report, run_rows, start

from vdsr_core import Patches, Trainer, VDSRConfig
from vdsr_core.dataset.hold_out import HoldOut
from vdsr_core.network.model import make_model
from vdsr_core.training.recipe import PRESETS

SCALES = (2, 3, 4)
RATES = (5e-4, 1e-3)
# Width, steps and patches of a batch, by size.
TRAININGS = {"tiny": (4, 8, 2), "brief": (16, 400, 4), "small": (16, 400, 8), "full": (64, 4000, 64)}
PIECES = 12


def main(options: argparse.Namespace) -> None:
    """Train two networks at each rate."""
    width, steps, batch = TRAININGS[options.size]
    images = read_lumas(options.data / "T91")
    others = [image for number, image in enumerate(images) if number % 6]
    data = Patches(others[::2], SCALES, patch=32, device=options.device)
    measure = HoldOut(images[::6][:PIECES], SCALES, pieces=PIECES, device=options.device)
    config = replace(PRESETS["default"], steps=steps, batch_size=batch, warmup=steps // 20, average=0.99)

    def train(case: tuple[float, str]) -> dict[str, Any]:
        rate, first = case
        model = make_model(0, VDSRConfig(20, width), start=first)
        recipe = replace(config, learning_rate=rate)
        trainer = Trainer(model, data, recipe, validate=measure.validate, validate_every=max(1, steps // 4))
        gains = [progress.gain for progress in trainer.run() if progress.gain is not None]
        shares = {
            f"{share} % of the steps": f"{gain:+.2f}" for share, gain in zip((25, 50, 75, 100), gains, strict=True)
        }
        return {"rate": str(rate), "first weights": first} | shares

    report(options, "initial", run_rows(options, "initial", list(product(RATES, ("he", "identity"))), train))


if __name__ == "__main__":
    start(__doc__, main)
