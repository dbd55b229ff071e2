"""Residual against non-residual learning: PSNR on Set5 x2 at epochs 10, 20, 40 and 80 (Table 1 of the paper).

    python -m benchmarks.reproduction.residual --data FOLDER [--size full] [--budget 9m]

Networks that predict what is missing from the interpolated image, and networks that predict the image itself, at
three initial learning rates. FOLDER holds T91, BSDS200 and Set5.
"""

import argparse

from benchmarks.reproduction.study import EPOCHS, Setting, draw, report, run, start

PAPER = {
    (0.1, True): (36.90, 36.64, 37.12, 37.05),
    (0.1, False): (27.42, 19.59, 31.38, 35.66),
    (0.01, True): (36.74, 36.87, 36.91, 36.93),
    (0.01, False): (30.33, 33.59, 36.26, 36.42),
    (0.001, True): (36.31, 36.46, 36.52, 36.52),
    (0.001, False): (33.97, 35.08, 36.11, 36.11),
}


def main(options: argparse.Namespace) -> None:
    """Train six networks."""
    columns = [f"epoch {epoch}" for epoch in EPOCHS]
    rows, curves = [], {}
    for (rate, residual), paper in PAPER.items():
        setting = Setting(learning_rate=rate, residual=residual)
        # The network of the paper is part of other tables, which want all scales.
        points = run(setting, options, test=(2, 3, 4) if setting == Setting() else (2,))
        kind = "residual" if residual else "non-residual"
        for who, values in (("ours", [p.psnr["2"] for p in points]), ("paper", paper)):
            rows.append({"rate": str(rate), "learning": kind, "by": who} | dict(zip(columns, values, strict=True)))
        curves[f"{kind}, {rate}"] = [p.epoch for p in points], [p.psnr["2"] for p in points]
    report(options, "residual", rows)
    draw(options, "residual", curves)


if __name__ == "__main__":
    start(__doc__, main)
