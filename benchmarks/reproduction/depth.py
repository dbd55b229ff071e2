"""The deeper, the better? PSNR on Set5 with 5 to 25 layers, by two recipes (Figure 3 of the paper goes to 20).

    python -m benchmarks.reproduction.depth --data FOLDER [--size full] [--budget 9m]

FOLDER holds T91, BSDS200 and Set5. The paper shows its figures as curves, without numbers. Each figure is that of two
seeds, their mean and how far they are from it.
"""

import argparse

from benchmarks.reproduction.study import SIZES, Setting, check_left, draw, report, run_seeds, start, summarize

DEPTHS = (5, 10, 15, 20, 25)


def main(options: argparse.Namespace) -> None:
    """Train five networks by each recipe and seed."""
    rows, curves = [], {}
    for recipe in ("default", "kim2016"):
        depths, means = [], []
        for depth in DEPTHS:
            setting = Setting(recipe=recipe, depth=None if depth == SIZES[options.size].depth else depth)
            last = [points[-1].psnr for points in run_seeds(setting, options)]
            if not last:
                continue
            rows.append({"recipe": recipe, "layers": depth} | summarize(last))
            depths.append(depth)
            means.append([psnr["3"] for psnr in last])
        for number, values in enumerate(zip(*means, strict=True)):
            curves[f"{recipe}, seed {number}"] = depths, values
    report(options, "depth", rows)
    draw(options, "depth", curves, x="layers", y="PSNR on Set5 x3, dB")
    check_left(options)


if __name__ == "__main__":
    start(__doc__, main)
