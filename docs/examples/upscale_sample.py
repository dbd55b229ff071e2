"""Upscale the sample image, measure the result and draw it beside bicubic interpolation.

The sample, cells in three channels of 16 bit, is first reduced by 2: so the truth is known. Run as::

    python upscale_sample.py [picture.png]
"""

from __future__ import annotations

import sys
import time
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vdsr_core import degrade, psnr, read_image, resize, super_resolve

SCALE = 2
DETAIL = (0, slice(64, 124), slice(104, 164))  # nuclei: channel, rows, columns of the truth
ENLARGE = 6


def measure(truth: NDArray[np.uint16], other: NDArray[np.uint16]) -> list[float]:
    """PSNR in dB of each channel, and of all, where a channel's range in the truth is the peak."""
    low, high = (np.float64(bound(truth, axis=(1, 2), keepdims=True)) for bound in (np.min, np.max))
    true, test = (truth - low) / (high - low), (other - low) / (high - low)
    return [
        *(psnr(a, b, data_range=1) for a, b in zip(true, test, strict=True)),
        psnr(true, test, data_range=1),
    ]


def draw(panels: dict[str, NDArray[np.uint16]], path: Path) -> None:
    """Write the same detail of several images side by side, enlarged and labelled."""
    details = {label: panel[DETAIL].astype(np.float64) for label, panel in panels.items()}
    low, high = np.percentile(details["truth"], (0.2, 99.8))
    side = ENLARGE * details["truth"].shape[0]
    step = side + 4
    picture = Image.new("L", (step * len(details) - 4, side + 24), 255)
    pen = ImageDraw.Draw(picture)
    for number, (label, detail) in enumerate(details.items()):
        gray = (np.clip((detail - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        picture.paste(Image.fromarray(gray).resize((side, side), Image.Resampling.NEAREST), (step * number, 24))
        pen.text((step * number + 6, 4), label, fill=0, font=ImageFont.load_default(14))
    picture.save(path)


def main(path: Path) -> None:
    """Upscale, print the figures, draw the picture."""
    with resources.as_file(resources.files("vdsr_core") / "sample" / "u2os.tif") as sample:
        truth = read_image(sample).data
    low = degrade(truth, SCALE)
    rows, columns = (SCALE * n for n in low.shape[-2:])
    truth = truth[:, :rows, :columns]

    start = time.perf_counter()
    sr = super_resolve(low, SCALE, channel_axis=0)
    seconds = time.perf_counter() - start
    bicubic = resize(low, SCALE)

    print(f"{low.shape} {low.dtype} -> {sr.shape} in {seconds:.1f} seconds")
    before, after = measure(truth, bicubic), measure(truth, sr)
    print("PSNR (dB)   bicubic    VDSR    gain")
    for name, a, b in zip(("nuclei", "channel 2", "channel 3", "together"), before, after, strict=True):
        print(f"{name:<10}   {a:6.2f}   {b:6.2f}   {b - a:+5.2f}")

    panels = {
        f"reduced by {SCALE}": low.repeat(SCALE, 1).repeat(SCALE, 2),
        f"bicubic, {before[DETAIL[0]]:.2f} dB": bicubic,
        f"VDSR, {after[DETAIL[0]]:.2f} dB": sr,
        "truth": truth,
    }
    draw(panels, path)
    print(f"before and after: {path.resolve()}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "vdsr_before_after.png"))
