"""Networks trained at some scales, tested at all of them: PSNR on Set5 (Table 2 of the paper).

    python -m benchmarks.reproduction.scales --data FOLDER [--size full] [--budget 9m]

By the paper's recipe and by the default one, two seeds each. FOLDER holds T91, BSDS200 and Set5.
"""

import argparse

from benchmarks.reproduction.study import Setting, check_left, report, run_seeds, start, summarize

BICUBIC = (33.66, 30.39, 28.42)
PAPER = {
    (2.0,): (37.10, 30.42, 28.43),
    (3.0,): (30.05, 32.89, 28.73),
    (4.0,): (28.13, 30.50, 30.84),
    (2.0, 3.0): (37.09, 33.22, 28.70),
    (2.0, 4.0): (37.03, 31.20, 30.86),
    (3.0, 4.0): (32.43, 33.24, 30.94),
    (2.0, 3.0, 4.0): (37.06, 33.27, 30.95),
}


def main(options: argparse.Namespace) -> None:
    """Train seven networks by each recipe and seed."""
    columns = ("x2", "x3", "x4")
    rows = [{"trained": "bicubic", "by": "published"} | dict(zip(columns, BICUBIC, strict=True))]
    for scales, paper in PAPER.items():
        trained = {"trained": ", ".join(f"x{scale:g}" for scale in scales)}
        for recipe in ("default", "kim2016"):
            runs = run_seeds(Setting(recipe=recipe, scales=scales), options)
            if runs:
                rows.append(trained | {"by": f"ours, {recipe}"} | summarize([points[-1].psnr for points in runs]))
        rows.append(trained | {"by": "paper"} | dict(zip(columns, paper, strict=True)))
    report(options, "scales", rows)
    check_left(options)


if __name__ == "__main__":
    start(__doc__, main)
