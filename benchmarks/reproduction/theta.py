"""The bound of gradient clipping, which the paper does not give: what it does to the paper's recipe at rate 0.1.

    python -m benchmarks.reproduction.theta --data FOLDER [--size full] [--budget 9m]

A short training for each theta, from every sixth image of T91, the one folder needed. Measured are the share of
gradient elements clipped in the first 20 steps, and at the end the gain over bicubic on 64 patches of these images: no
test set is touched.
"""

import argparse
import math
from dataclasses import replace
from typing import Any

import torch
from benchmarks.reproduction.study import read_lumas, report, run_rows, start

from vdsr_core import VDSR, Patches, Trainer, VDSRConfig
from vdsr_core.network.model import make_model
from vdsr_core.training.recipe import PRESETS

THETAS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5)
# Depth, width, steps and patches of a batch, by size.
TRAININGS = {"tiny": (4, 8, 4, 4), "brief": (10, 16, 200, 4), "small": (10, 16, 200, 8), "full": (20, 64, 500, 64)}
EARLY = 20  # steps


def main(options: argparse.Namespace) -> None:
    """Train a network for each theta."""
    depth, width, steps, batch = TRAININGS[options.size]
    data = Patches(read_lumas(options.data / "T91")[::6], grid=True, device=options.device)

    def train(theta: float) -> dict[str, Any]:
        config = replace(PRESETS["kim2016"], steps=steps, batch_size=batch, theta=theta)
        trainer = Trainer(make_model(0, VDSRConfig(depth, width)), data, config)
        shares = [progress.clipped for progress in trainer.run()]
        clipped = sum(shares[:EARLY]) / len(shares[:EARLY])
        return {"theta": f"{theta:g}", "clipped": f"{clipped:.0%}", "gain": measure_gain(trainer.result, data)}

    report(options, "theta", run_rows(options, "theta", THETAS, train))


@torch.inference_mode()
def measure_gain(model: VDSR, data: Patches, count: int = 64) -> float:
    """How much closer a network is to the sharp patches than interpolation, in dB; a few patches at a time."""
    ilr, hr = data.gather(data.choose(10**6, count))
    sr = torch.cat([model(part) for part in torch.split(ilr, 8)])
    return 10 * math.log10(float((ilr - hr).square().mean() / (sr - hr).square().mean()))


if __name__ == "__main__":
    start(__doc__, main)
