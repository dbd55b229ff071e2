"""The deeper, the better: PSNR on Set5 with 5 to 25 layers (Figure 3 of the paper, which goes to 20).

    python -m benchmarks.reproduction.depth --data FOLDER [--size full] [--budget 9m]

FOLDER holds T91, BSDS200 and Set5. The paper shows its figures as curves, without numbers.
"""

import argparse

from benchmarks.reproduction.study import EPOCHS, SIZES, Setting, report, run, start

DEPTHS = (5, 10, 15, 20, 25)


def main(options: argparse.Namespace) -> None:
    """Train five networks."""
    rows = []
    for depth in DEPTHS:
        setting = Setting(depth=None if depth == SIZES[options.size].depth else depth)
        psnr = run(setting, options, epochs=EPOCHS if setting == Setting() else (80,))[-1].psnr
        rows.append({"depth": depth} | {f"x{scale}": value for scale, value in psnr.items()})
    report(options, "depth", rows)


if __name__ == "__main__":
    start(__doc__, main)
