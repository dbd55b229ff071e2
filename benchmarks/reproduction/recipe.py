"""The paper's full recipe, beside published methods: PSNR / SSIM on Set5, Set14 and B100 (Table 3 of the paper).

    python -m benchmarks.reproduction.recipe --data FOLDER [--size full] [--budget 9m]

FOLDER holds T91, BSDS200, Set5, Set14 and B100. The embedded default network is scored, too. The network is also
written as ``paper.safetensors``, for ``vdsr upscale --model``.
"""

import argparse
from pathlib import Path

from benchmarks.reproduction.study import Setting, load_run, report, run, start

from vdsr_core import VDSR, evaluate, load_model, read_image, save_checkpoint
from vdsr_core.evaluation import check_bicubic, mean_scores

SETS = ("Set5", "Set14", "B100")  # to report on; of size "tiny", the first

SCALES = (2, 3, 4)
# By set, then by scale.
PUBLISHED = {
    "bicubic": "33.66/.9299 30.39/.8682 28.42/.8104 30.24/.8688 27.55/.7742 26.00/.7027 "
    "29.56/.8431 27.21/.7385 25.96/.6675",
    "A+": "36.54/.9544 32.58/.9088 30.28/.8603 32.28/.9056 29.13/.8188 27.32/.7491 31.21/.8863 28.29/.7835 26.82/.7087",
    "RFL": "36.54/.9537 32.43/.9057 30.14/.8548 32.26/.9040 29.05/.8164 27.24/.7451 "
    "31.16/.8840 28.22/.7806 26.75/.7054",
    "SelfEx": "36.49/.9537 32.58/.9093 30.31/.8619 32.22/.9034 29.16/.8196 27.40/.7518 "
    "31.18/.8855 28.29/.7840 26.84/.7106",
    "SRCNN": "36.66/.9542 32.75/.9090 30.48/.8628 32.42/.9063 29.28/.8209 27.49/.7503 "
    "31.36/.8879 28.41/.7863 26.90/.7101",
    "VDSR": "37.53/.9587 33.66/.9213 31.35/.8838 33.03/.9124 29.77/.8314 28.01/.7674 "
    "31.90/.8960 28.82/.7976 27.29/.7251",
}


def main(options: argparse.Namespace) -> None:
    """Train the network of the paper, and score."""
    run(Setting(), options)
    paper = load_run(Setting(), options)
    assert isinstance(paper, VDSR)
    save_checkpoint(options.output / "paper.safetensors", paper)
    sets = SETS[:1] if options.size == "tiny" else SETS
    columns = [f"{name} x{scale}" for name in sets for scale in SCALES]
    rows = [{"method": name} | dict(zip(columns, row.split(), strict=False)) for name, row in PUBLISHED.items()]
    for name, model in {
        "ours, the paper's recipe": paper,
        "ours, embedded": load_model(),
    }.items():
        cells: list[str] = []
        for folder in sets:
            cells += score(model, options.data / folder, options.device)
        rows.append({"method": name} | dict(zip(columns, cells, strict=True)))
    report(options, "recipe", rows)


def score(model: VDSR, folder: Path, device: str) -> list[str]:
    """PSNR and SSIM of a network on a folder of images, a cell for each scale."""
    images = ((path.stem, read_image(path).data) for path in sorted(folder.glob("*.png")))
    means = mean_scores(evaluate(model, images, SCALES, device=device))
    check_bicubic(folder.name, means)
    return [f"{m.psnr:.2f}/{m.ssim:.4f}".replace("/0.", "/.") for m in means if m.method == "vdsr"]


if __name__ == "__main__":
    start(__doc__, main)
