"""How networks restore microscopy images that none of them has seen, channel by channel.

    python benchmarks/microscopy.py FOLDER [--models photo microscopy fast] [--scales 2 3 4]

FOLDER holds TIFF files. Of each channel, parts are reduced, restored and compared (`compare_models`). It prints the
gain over bicubic interpolation in dB, and the mean of all.
"""

import argparse
from pathlib import Path

import numpy as np

from vdsr_core import compare_models, read_image


def read_channels(folder):
    """Each channel of each file, with a name; of a time series the first plane."""
    for path in sorted(folder.glob("*.tif")):
        image = read_image(path)
        pixels = np.asarray(image.data)
        if image.channel_axis is None or image.rgb:
            channels = [pixels]
        else:
            channels = list(np.moveaxis(pixels, image.channel_axis, 0))
        for number, channel in enumerate(channels):
            plane = channel if image.rgb else channel.reshape(-1, *channel.shape[-2:])[0]
            yield path.stem + (f"[{number}]" if len(channels) > 1 else ""), plane, image.rgb


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["photo", "microscopy"])
    parser.add_argument("--scales", nargs="+", type=float, default=[2, 3, 4])
    options = parser.parse_args()
    titles = [f"{model} x{scale:g}" for scale in options.scales for model in options.models]
    print("| channel | " + " | ".join(titles) + " |\n|---|" + "---|" * len(titles))
    table = []
    for name, plane, rgb in read_channels(options.folder):
        gains = []
        for scale in options.scales:
            bicubic, *scores = compare_models(plane, scale, models=options.models, rgb=rgb)
            gains += [score.psnr - bicubic.psnr for score in scores]
        table.append(gains)
        print(f"| `{name}` | " + " | ".join(f"{gain:+.2f}" for gain in gains) + " |", flush=True)
    print("| mean | " + " | ".join(f"{gain:+.2f}" for gain in np.mean(table, 0)) + " |")


if __name__ == "__main__":
    main()
