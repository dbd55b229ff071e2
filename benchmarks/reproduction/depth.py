"""The deeper, the better: PSNR on Set5 with 5 to 25 layers (Figure 3 of the paper, which goes to 20).

    python benchmarks/reproduction/depth.py --data FOLDER [--budget full]

FOLDER holds T91, BSDS200 and Set5. The paper shows its figures as curves, without numbers.
"""

from study import BUDGETS, EPOCHS, Setting, parse, report, run

DEPTHS = (5, 10, 15, 20, 25)


def main() -> None:
    """Train five networks."""
    options = parse(__doc__)
    rows = []
    for depth in DEPTHS:
        setting = Setting(depth=None if depth == BUDGETS[options.budget].depth else depth)
        psnr = run(setting, options, epochs=EPOCHS if setting == Setting() else (80,))[-1].psnr
        rows.append({"depth": depth} | {f"x{scale}": value for scale, value in psnr.items()})
    report(options, "depth", rows)


if __name__ == "__main__":
    main()
