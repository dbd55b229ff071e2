"""Make the pictures of the page on noise and compression.

    python docs/noise.py

Writes ``images/noise_*.png``: what the network is given, bicubic interpolation, the network `restore` with maps of
zeros and with what it finds, and the truth. The nuclei are the sample (CC0), the portrait is in the public domain
(NASA, from scikit-image). Both are reduced first, so the truth is known.
"""

from __future__ import annotations

import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut

from vdsr_core import degrade, psnr, read_image, resize, super_resolve

IMAGES = Path(__file__).parent / "images"
SIDE, GAP = 256, 4  # of a panel, and between two


def upscale(low: Any) -> list[NDArray[Any]]:
    """A small image by bicubic interpolation, by the network as if it were clean, and with what is found."""
    pixels = np.asarray(low.data if hasattr(low, "compression") else low)
    clean = super_resolve(pixels, 2, model="restore", noise=0, compression=0)
    return [resize(pixels, 2), clean, super_resolve(low, 2, model="restore")]


def draw(truth: NDArray[Any], low: Any, path: Path) -> None:
    """Write the panels side by side, and print the PSNR of the three large ones."""
    results = upscale(low)
    black, white = np.percentile(truth, (0.2, 99.8))
    peak = 255 if truth.dtype == np.uint8 else float(np.ptp(truth))
    scores = [psnr(truth, result, data_range=peak, crop_border=2) for result in results]
    print(f"{path.name}: bicubic {scores[0]:.2f} dB, zeros {scores[1]:.2f} dB, automatic {scores[2]:.2f} dB")
    panels = []
    for panel in (np.asarray(low.data if hasattr(low, "compression") else low), *results, truth):
        levels = np.clip((panel - black) / (white - black) * 255, 0, 255).astype(np.uint8)
        panels.append(np.asarray(Image.fromarray(levels).resize((SIDE, SIDE), Image.Resampling.NEAREST)))
        panels.append(np.full((SIDE, GAP), 255, np.uint8))
    Image.fromarray(np.hstack(panels[:-1])).save(path, optimize=True)


def main() -> None:
    """Draw noisy nuclei and a compressed portrait."""
    with resources.as_file(resources.files("vdsr_core") / "sample" / "u2os.tif") as path:
        nuclei = np.asarray(read_image(path).data)[0].astype(np.float64)
    low = degrade(nuclei, 2, shot_noise=0.01 * float(np.ptp(nuclei)), seed=0)
    draw(nuclei, low, IMAGES / "noise_nuclei.png")
    portrait = np.asarray(Image.fromarray(astronaut()).convert("L"))[80:208, 160:288]
    small = np.clip(np.rint(degrade(portrait.astype(np.float64), 2)), 0, 255).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "portrait.jpg")
        Image.fromarray(small).save(file, quality=50)
        draw(portrait, read_image(file), IMAGES / "noise_portrait.png")


if __name__ == "__main__":
    main()
