"""Fine-tune the default network on microscopy images, and measure on images that it never sees.

    python benchmarks/microscopy.py FOLDER -o microscopy.safetensors [--steps 2000] [--batch 16] [--threads 1]

FOLDER holds TIFF files. Those that `HELD` names are measured at the end and take part in nothing before; a fifth of
the others chooses the best weights. Intensities are mapped as `super_resolve` maps them, then varied by a random gain
and offset, so that the range found in another image fits, too. Scales 2, 3 and 4 and one of each third of 1.5 to 4
for each image. Ends with a table: PSNR of bicubic interpolation in dB, and gains over it before and after.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vdsr_core import Patches, Trainer, load_model, read_image, save_checkpoint
from vdsr_core.dataset.hold_out import HoldOut
from vdsr_core.dataset.planes import network_planes
from vdsr_core.training.recipe import PRESETS

# Chosen before anything was measured: fluorescence of several kinds and a confocal image of a plant. The two images of
# bacteria are alike, so both are held out.
HELD = ("bbbc038", "maize", "bacteria", "dna_mts_actin", "nuclei_golgi")
FRAMES = 3  # of a time series: its frames are alike
SCALES = (2, 3, 4)

Plane = NDArray[np.float32]


def read_planes(folder: Path) -> Iterator[tuple[str, list[Plane]]]:
    """The planes of each file, mapped to [0, 1] as inference does."""
    for path in sorted(folder.glob("*.tif")):
        image = read_image(path)
        pixels: Any = np.asarray(image.data)
        if image.axes[0] == "T":
            pixels = pixels[:: -(-len(pixels) // FRAMES)]
        planes = network_planes(pixels, channel_axis=image.channel_axis, rgb=image.rgb)
        yield path.stem, [plane for plane in planes if plane is not None]


def main() -> None:
    """Train, save, and print the table."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--from", dest="start", help="network to start from (default: the embedded one)")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    files = dict(read_planes(options.folder))
    held = {name: planes for name, planes in files.items() if any(part in name for part in HELD)}
    rest = [planes for name, planes in files.items() if name not in held]
    choose = [plane for planes in rest[::5] for plane in planes]
    train = [plane for number, planes in enumerate(rest) if number % 5 for plane in planes]
    start = load_model(options.start)
    model = tune(start, train, choose, options)
    save_checkpoint(options.output, model)
    rows = list(compare({"before": start, "after": model}, held, options.device))
    print("| image | scale | bicubic, dB | before | after | gained |\n|---|---|---|---|---|---|")
    for name, scale, bicubic, before, after in rows:
        print(f"| {name} | {scale} | {bicubic:.2f} | {before:+.2f} | {after:+.2f} | {after - before:+.2f} |")
    gained = [after - before for *_, before, after in rows]
    print(f"\ngained in the mean: {np.mean(gained):+.3f} dB, least {min(gained):+.2f}, most {max(gained):+.2f}")


def tune(start: Any, train: list[Plane], choose: list[Plane], options: argparse.Namespace) -> Any:
    """The network with the weights that are best on the images to choose by; those of the start are among them."""
    data = Patches(
        train,
        SCALES,
        scale_range=(1.5, 4),
        draws=3,
        patch=48,
        gain=(0.7, 1.3),
        offset=(-0.1, 0.1),
        device=options.device,
    )
    measure = HoldOut(choose, SCALES, pieces=16, device=options.device)
    config = replace(PRESETS["finetune"], steps=options.steps, batch_size=options.batch)
    config = replace(config, learning_rate=options.learning_rate)
    learner = copy.deepcopy(start).requires_grad_(True)
    every = max(1, options.steps // 10)
    best, gain = copy.deepcopy(start), measure.validate(start)[1]
    print(f"step 0: {gain:+.3f} dB over bicubic")
    began = time.perf_counter()
    trainer = Trainer(learner, data, config, validate=measure.validate, validate_every=every)
    for progress in trainer.run():
        if progress.gain is None:
            continue
        seconds = time.perf_counter() - began
        print(f"step {progress.step}: {progress.gain:+.3f} dB over bicubic, {seconds:.0f} s", flush=True)
        if progress.gain > gain:
            best, gain = copy.deepcopy(trainer.result), progress.gain
    best.card = {
        "name": "microscopy",
        "data": f"{len(train)} planes of microscopy images, {len(choose)} to choose by, others held out",
        "recipe": f"from {start.card.get('name', 'a network')}; {config.steps} steps of {config.batch_size} patches of "
        f"48 x 48, scales 2, 3, 4 and drawn from 1.5 to 4, gain 0.7 to 1.3, offset -0.1 to 0.1; {config.loss}; "
        f"{config.optimizer}, rate {config.learning_rate:g}, cosine schedule; weight average {config.average:g}",
        "terms": start.card.get("terms", ""),
    }
    return best


def compare(
    models: dict[str, Any], held: dict[str, list[Plane]], device: str
) -> Iterator[tuple[str, str, float, float, float]]:
    """For each channel and scale: the PSNR of bicubic interpolation, and the gains of two networks over it."""
    for name, planes in held.items():
        for number, plane in enumerate(planes):
            measure = HoldOut([plane], SCALES, device=device)
            scores = [measure.score(model) for model in models.values()]
            for scale, bicubic in measure.bicubic.items():
                before, after = (score[scale] - bicubic for score in scores)
                yield f"{name}[{number}]" if len(planes) > 1 else name, f"x{scale}", bicubic, before, after


if __name__ == "__main__":
    main()
