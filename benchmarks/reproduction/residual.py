"""Residual against non-residual learning: PSNR on Set5 x2 at epochs 10, 20, 40 and 80 (Table 1 of the paper).

    python -m benchmarks.reproduction.residual --data FOLDER [--size full] [--budget 9m]

Networks that predict what is missing from the interpolated image, and networks that predict the image itself: by the
paper's SGD at its three learning rates, and by Muon at three of its own; two seeds each. FOLDER holds T91, BSDS200 and
Set5.
"""

import argparse

from benchmarks.reproduction.study import EPOCHS, RECIPES, Setting, check_left, draw, report, run_seeds, spread, start

PAPER = {
    (0.1, True): (36.90, 36.64, 37.12, 37.05),
    (0.1, False): (27.42, 19.59, 31.38, 35.66),
    (0.01, True): (36.74, 36.87, 36.91, 36.93),
    (0.01, False): (30.33, 33.59, 36.26, 36.42),
    (0.001, True): (36.31, 36.46, 36.52, 36.52),
    (0.001, False): (33.97, 35.08, 36.11, 36.11),
}
MUON = (3e-3, 1e-3, 3e-4)


def main(options: argparse.Namespace) -> None:
    """Train twelve networks by each seed."""
    columns = [f"epoch {epoch}" for epoch in EPOCHS]
    rows, curves = [], {}
    for recipe, rate, residual in [
        *(("default", rate, residual) for rate in MUON for residual in (True, False)),
        *(("kim2016", *case) for case in PAPER),
    ]:
        usual = RECIPES[recipe].learning_rate == rate
        setting = Setting(recipe=recipe, learning_rate=None if usual else rate, residual=residual)
        # A network at the usual rate is part of other tables, which want all scales.
        runs = run_seeds(setting, options, test=(2, 3, 4) if usual and residual else (2,))
        if not runs:
            continue
        values = list(zip(*([p.psnr["2"] for p in points] for points in runs), strict=True))
        kind = "residual" if residual else "non-residual"
        row = {"recipe": recipe, "rate": f"{rate:g}", "learning": kind}
        rows.append(row | {"by": "ours"} | {c: spread(v) for c, v in zip(columns, values, strict=True)})
        if recipe == "kim2016":
            rows.append(row | {"by": "paper"} | dict(zip(columns, PAPER[rate, residual], strict=True)))
        if usual:
            curves[f"{recipe}, {kind}, {rate:g}"] = EPOCHS, [sum(v) / len(v) for v in values]
    report(options, "residual", rows)
    draw(options, "residual", curves, x="epoch (of 80)", y="PSNR on Set5 x2, dB")
    check_left(options)


if __name__ == "__main__":
    start(__doc__, main)
