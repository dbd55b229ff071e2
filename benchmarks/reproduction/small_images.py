"""A folder of pictures of 32 x 32 pixels: is that enough to learn from, and by which recipe? Two seeds each.

    python -m benchmarks.reproduction.small_images --data FOLDER [--size small] [--budget 9m]

The pictures are cut out of the photographs in FOLDER/open whose licence in CREDITS.csv is CC0, and written to
OUTPUT/pictures. Ten epochs of them at scale 2, by Adam at a rate of 7.5e-5 without a schedule, as a blog has it, and
by our recipes. The same by the command:

    vdsr train OUTPUT/pictures --scales 2 --steps 160 --batch-size 16 -o small.safetensors
"""

import argparse
import csv
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.reproduction.study import (
    RECIPES,
    SEEDS,
    draw,
    measure,
    report,
    restore,
    run_rows,
    spread,
    start,
)
from numpy.typing import NDArray
from PIL import Image

from vdsr_core import Patches, TrainConfig, Trainer, VDSRConfig, degrade, read_image, resize
from vdsr_core.evaluation import luma
from vdsr_core.network.model import make_model
from vdsr_core.training.recipe import shorten_warmup

SIDE, SCALE, EPOCHS, BATCH = 32, 2.0, 10, 16
LEARN, HELD_OUT = 256, 64  # pictures, of different photographs
SHAPES = {"tiny": (3, 4), "brief": (5, 16), "small": (10, 16), "full": (20, 64)}  # depth and width
EVEN = 6.0  # grey levels; a picture with a smaller standard deviation has nothing to learn from
ADAM = TrainConfig(optimizer="adamw", learning_rate=7.5e-5, weight_decay=0.0, schedule="cosine", decay=0.0, clip="none")
WAYS = {
    "Adam, 7.5e-5": ADAM,
    "kim2016": RECIPES["kim2016"],
    "default": RECIPES["default"],
}


def main(options: argparse.Namespace) -> None:
    """Train by each recipe and seed."""
    learn, held_out = make_pictures(options.data / "open")
    folder = options.output / "pictures"
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(learn):
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{number:03d}.png")
    data = Patches([p.astype(np.float32) / 255 for p in learn], [SCALE], patch=SIDE, grid=True, device=options.device)
    pairs = [(hr, interpolate(hr)) for hr in held_out]
    bicubic = float(np.mean([measure(*pair, SCALE) for pair in pairs]))

    def train(case: tuple[str, int]) -> dict[str, Any]:
        way, seed = case
        epoch = LEARN // BATCH
        config = replace(WAYS[way], steps=EPOCHS * epoch, batch_size=BATCH, seed=seed)
        model = make_model(seed, VDSRConfig(*SHAPES[options.size]), start="identity" if way == "default" else "he")
        trainer = Trainer(model, data, shorten_warmup(config))
        losses, found, gains = [], [], []
        for progress in trainer.run():
            found.append(progress.loss)
            if progress.step % epoch == 0:
                losses.append(float(np.mean(found)))
                found = []
                scores = [measure(hr, restore(trainer.result, ilr, options.device), SCALE) for hr, ilr in pairs]
                gains.append(float(np.mean(scores)) - bicubic)
        return {"way": way, "seed": seed, "losses": losses, "gains": gains}

    runs = run_rows(options, "small_images", list(product(WAYS, SEEDS)), train)
    rows, curves = [], {"bicubic": ([1, EPOCHS], [0.0, 0.0])}
    for way in WAYS:
        gains = [run["gains"] for run in runs if run["way"] == way]
        marks = {f"epoch {e}": spread([gain[e - 1] for gain in gains]) for e in (1, 2, 5, 10)}
        rows.append({"recipe": way} | marks)
        for seed, gain in zip(SEEDS, gains, strict=True):
            curves[f"{way}, seed {seed}"] = range(1, EPOCHS + 1), np.maximum(gain, -3).tolist()
    print(f"bicubic on the pictures held out: {bicubic:.2f} dB")
    report(options, "small_images", rows)
    draw(options, "small_images", curves, x="epoch", y="gain over bicubic on pictures held out, dB")


def interpolate(hr: NDArray[np.float64]) -> NDArray[np.float64]:
    """The interpolated image of a sharp one, both in 0..255."""
    return np.clip(resize(degrade(hr, SCALE), SCALE, output_shape=hr.shape), 16, 235)


def make_pictures(folder: Path) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Pictures to learn from, and pictures of other photographs to judge by: luma in 16..235."""
    with (folder / "CREDITS.csv").open(newline="") as stream:
        credits = [row for row in csv.DictReader(stream) if row["licence"].startswith("CC0")]
    names = sorted(row["file"] for row in credits if row["file"].startswith("photo/"))
    # The crops of one photograph have names that differ in the number at their end.
    groups = sorted({name.rsplit("_", 1)[0] for name in names})
    apart = set(groups[::5])
    rng = np.random.default_rng(0)
    found: list[list[NDArray[np.float64]]] = []
    for held_out, count in ((False, LEARN), (True, HELD_OUT)):
        mine = [name for name in names if (name.rsplit("_", 1)[0] in apart) == held_out]
        images = [luma(np.asarray(read_image(folder / name).data)) for name in mine]
        pictures: list[NDArray[np.float64]] = []
        attempts = iter(range(100 * count))
        while len(pictures) < count and (attempt := next(attempts, None)) is not None:
            image = images[attempt % len(images)]
            row, column = (int(rng.integers(n - SIDE + 1)) for n in image.shape)
            picture = image[row : row + SIDE, column : column + SIDE]
            if picture.std() >= EVEN:
                pictures.append(picture)
        if len(pictures) < count:
            msg = f"the photographs of {folder} are too even: {len(pictures)} of {count} pictures found."
            raise ValueError(msg)
        found.append(pictures)
    return found[0], found[1]


if __name__ == "__main__":
    start(__doc__, main)
