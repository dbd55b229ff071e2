"""Make the table and the pictures of the page on networks, from the cards of the embedded ones.

    python docs/models.py

Writes ``models_table.md``, the licence of the networks beside them, and ``images/models_*.png`` and the README's
``images/sample_x2.png``. The pictures show microscopy (the sample, CC0) and a synthetic star; both are reduced first,
so the truth is known.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vdsr_core import degrade, load_model, psnr, read_image, resize, super_resolve
from vdsr_core.evaluation import BICUBIC
from vdsr_core.network.pretrained import model_names

DOCS = Path(__file__).parent
LICENCE = DOCS.parent / "src" / "vdsr_core" / "pretrained" / "LICENSE.md"
PAPER = {
    "Set5": ("37.53 / .9587", "33.66 / .9213", "31.35 / .8838"),
    "Set14": ("33.03 / .9124", "29.77 / .8314", "28.01 / .7674"),
    "B100": ("31.90 / .8960", "28.82 / .7976", "27.29 / .7251"),
}
SIDE, GAP, CAPTION = 360, 4, 24  # of a panel, between panels and above them, pixels


def cell(psnr: float, ssim: float) -> str:
    """Two scores, as the field writes them."""
    return f"{psnr:.2f} / {ssim:.4f}".replace("/ 0.", "/ .")


def make_table() -> str:
    """PSNR and SSIM of bicubic interpolation, of the embedded networks by their cards, and of the paper."""
    cards = {name: load_model(name).card for name in model_names()}
    cards = {name: card for name, card in cards.items() if PAPER.keys() <= card["scores"].keys()}
    lines = [f"| | | bicubic | {' | '.join(cards)} | the paper |", "|---|---|---|" + "---|" * (len(cards) + 1)]
    for folder, published in PAPER.items():
        for scale, paper in zip((2, 3, 4), published, strict=True):
            ours = [cell(*card["scores"][folder][str(scale)]) for card in cards.values()]
            row = [folder, f"x{scale}", cell(*BICUBIC[folder][scale]), *ours, paper]
            lines.append("| " + " | ".join(row) + " |")
    for name in model_names():
        lines += ["", f"`{name}`:", "", *describe(load_model(name).card)]
    return "\n".join(lines) + "\n"


def describe(card: dict[str, object]) -> list[str]:
    """What a card says, as a list."""
    return [f"* {key}: {card[key]}" for key in ("summary", "data", "recipe", "terms") if card.get(key)]


def make_licence() -> str:
    """The terms of the embedded networks, as their cards say them; part of the package's metadata."""
    lines = [
        "# Licence of the networks",
        "The code of napari-vdsr is under the BSD 3-Clause License. For the weights of the networks that come with it, "
        "the following holds, too; data and recipe of each are on its card (`vdsr info NAME`).",
        *(f"* `{name}`: {load_model(name).card['terms']}" for name in model_names()),
    ]
    return "\n\n".join(lines) + "\n"


def make_star(side: int = 180) -> NDArray[np.float64]:
    """A star of 24 spokes that grow finer towards the middle, smooth at its edges."""
    fine = 8  # samples of a pixel
    rows, columns = np.mgrid[: side * fine, : side * fine] / fine - side / 2
    star = np.sin(24 * np.arctan2(rows, columns) + 1) > 0
    means: NDArray[np.float64] = star.reshape(side, fine, side, fine).mean((1, 3))
    return 0.1 + 0.8 * means


def draw(truth: NDArray[np.float64], scale: int, path: Path) -> None:
    """Write the small image, bicubic interpolation, the default network and the truth, side by side."""
    low = degrade(truth, scale)
    shape = (truth.shape[0], truth.shape[1])
    bicubic, ours = resize(low, scale, output_shape=shape), super_resolve(low, scale)
    scores = [psnr(truth, result, data_range=float(np.ptp(truth)), crop_border=scale) for result in (bicubic, ours)]
    captions = (
        f"reduced by {scale}",
        f"bicubic, {scores[0]:.2f} dB",
        f"photo, {scores[1]:.2f} dB",
        "truth",
    )
    black, white = np.percentile(truth, (0.2, 99.8))
    picture = Image.new("L", (4 * SIDE + 3 * GAP, CAPTION + SIDE), 255)
    for number, (panel, caption) in enumerate(zip((low, bicubic, ours, truth), captions, strict=True)):
        levels = np.clip((panel - black) / (white - black) * 255, 0, 255).astype(np.uint8)
        left = number * (SIDE + GAP)
        picture.paste(Image.fromarray(levels).resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, CAPTION))
        ImageDraw.Draw(picture).text((left + 2, 4), caption, 0, ImageFont.load_default(14))
    picture.save(path, optimize=True)
    print(f"{path.name}: x{scale}, bicubic {scores[0]:.2f} dB, network {scores[1]:.2f} dB")


def main() -> None:
    """Write the table, the licence and the pictures."""
    (DOCS / "models_table.md").write_text(make_table(), encoding="utf-8")
    LICENCE.write_text(make_licence(), encoding="utf-8")
    with resources.as_file(resources.files("vdsr_core") / "sample" / "u2os.tif") as path:
        sample = np.asarray(read_image(path).data)
    draw(sample[0, 63:123, 105:165].astype(np.float64), 2, DOCS / "images" / "sample_x2.png")
    draw(sample[0, 40:160, 80:200].astype(np.float64), 2, DOCS / "images" / "models_u2os.png")
    draw(make_star(), 3, DOCS / "images" / "models_star.png")


if __name__ == "__main__":
    main()
