"""Choices that the paper makes without a table: flips and rotations, disjoint patches, weight decay.

    python -m benchmarks.reproduction.choices --data FOLDER [--size full] [--budget 9m]

Each is changed alone, in networks of 20 layers: flips only, random crops; a weight decay of 1e-3 for
SGD (Muon has none). PSNR on Set5, of two seeds each. FOLDER holds T91, BSDS200 and Set5.
"""

import argparse
from dataclasses import replace

from benchmarks.reproduction.study import DEPTH, SIZES, Setting, check_left, report, run_seeds, start, summarize

CHOICES = {
    "default": {"as it is": {}, "flips only": {"augment": "flips"}} | {"random crops": {"grid": False}},
    "kim2016": {"as it is": {}, "flips only": {"augment": "flips"}, "weight decay 1e-3": {"weight_decay": 1e-3}},
}


def main(options: argparse.Namespace) -> None:
    """Train six networks by each seed."""
    rows = []
    for recipe, choices in CHOICES.items():
        for name, changed in choices.items():
            setting = Setting(recipe=recipe, depth=None if SIZES[options.size].depth == DEPTH else DEPTH)
            last = [points[-1].psnr for points in run_seeds(replace(setting, **changed), options)]
            if last:
                rows.append({"recipe": recipe, "changed": name} | summarize(last))
    report(options, "choices", rows)
    check_left(options)


if __name__ == "__main__":
    start(__doc__, main)
