"""The deeper, the better? PSNR on Set5 with 5 to 25 layers, by two recipes (Figure 3 of the paper goes to 20).

    python -m benchmarks.reproduction.depth --data FOLDER [--size full] [--budget 9m]

FOLDER holds T91, BSDS200 and Set5. The paper shows its figures as curves, without numbers. Each figure is that of two
seeds, their mean and how far they are from it.
"""

import argparse

from benchmarks.reproduction.study import SIZES, Setting, draw, report, run_seeds, start, summarize

DEPTHS = (5, 10, 15, 20, 25)


def main(options: argparse.Namespace) -> None:
    """Train five networks by each recipe and seed."""
    rows, curves = [], {}
    for recipe in ("default", "kim2016"):
        means = []
        for depth in DEPTHS:
            setting = Setting(recipe=recipe, depth=None if depth == SIZES[options.size].depth else depth)
            last = [points[-1].psnr for points in run_seeds(setting, options)]
            rows.append({"recipe": recipe, "layers": depth} | summarize(last))
            means.append([psnr["2"] for psnr in last])
        for number, values in enumerate(zip(*means, strict=True)):
            curves[f"{recipe}, seed {number}"] = DEPTHS, values
    report(options, "depth", rows)
    draw(options, "depth", curves, x="layers", y="PSNR on Set5 x2, dB")


if __name__ == "__main__":
    start(__doc__, main)
