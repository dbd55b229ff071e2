"""Choices that the paper makes without a table: flips and rotations, disjoint patches, weight decay.

    python -m benchmarks.reproduction.choices --data FOLDER [--size full] [--budget 9m]

Each is changed alone: flips only, random crops, a weight decay of 1e-3. PSNR on Set5. FOLDER holds T91, BSDS200 and
Set5.
"""

import argparse

from benchmarks.reproduction.study import EPOCHS, Setting, report, run, start

CHOICES = {
    "the paper's": Setting(),
    "flips only": Setting(augment="flips"),
    "random crops": Setting(grid=False),
    "weight decay 1e-3": Setting(weight_decay=1e-3),
}


def main(options: argparse.Namespace) -> None:
    """Train four networks."""
    rows = []
    for name, setting in CHOICES.items():
        psnr = run(setting, options, epochs=EPOCHS if setting == Setting() else (80,))[-1].psnr
        rows.append({"recipe": name} | {f"x{scale}": value for scale, value in psnr.items()})
    report(options, "choices", rows)


if __name__ == "__main__":
    start(__doc__, main)
