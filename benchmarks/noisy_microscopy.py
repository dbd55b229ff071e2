"""How noisy microscopy comes out: interpolated, denoised first, and by a network that is told the noise.

    python benchmarks/noisy_microscopy.py FOLDER [--model NET] [--scales 2 3 4] [--levels 0.02 0.05 0.1]

FOLDER holds TIFF files. The truth is each channel, averaged over 2 x 2 pixels against its own noise, in its middle.
It is reduced, and noise of photons and of reading in equal parts is added, whose standard deviation in the middle of
the range is a level, a fraction of the range. PSNR in dB of the whole range: bicubic interpolation; the network with
maps of zeros; `skimage.restoration.denoise_nl_means`, which is told the mean variance, followed by the network with
maps of zeros; the network with the noise that it finds. Seeds are fixed.
"""

import argparse
from pathlib import Path

import numpy as np
from microscopy import read_channels
from skimage.measure import block_reduce
from skimage.restoration import denoise_nl_means

from vdsr_core import degrade, find_range, load_model, psnr, resize, super_resolve
from vdsr_core.evaluation import luma
from vdsr_core.images.degradation import crop_to_scale

SIDE = 384  # pixels of the truth, at most
WAYS = "bicubic", "zero maps", "nl_means, zero maps", "automatic"


def find_truth(plane, rgb):
    """The middle of a plane, averaged over squares of 2 x 2, from 0 to 1."""
    plane = luma(plane) if rgb else np.asarray(plane, np.float64)
    truth = block_reduce(plane, 2, np.mean)[: plane.shape[0] // 2, : plane.shape[1] // 2]
    rows, columns = (slice((n - min(n, SIDE)) // 2, (n + min(n, SIDE)) // 2) for n in truth.shape)
    low, high = find_range(truth[rows, columns])
    return (truth[rows, columns] - low) / (high - low)


def measure(truth, scale, level, network):
    """PSNR of each way."""
    truth, _ = crop_to_scale(truth, (scale, scale))
    gain, offset = level**2, level**2 / 2  # at 1 / 2 they add up to level squared
    low = degrade(truth, scale, shot_noise=gain, read_noise=offset**0.5, seed=0)
    sigma = float(np.sqrt(np.mean(np.maximum(gain * low, 0) + offset)))
    denoised = denoise_nl_means(low, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, fast_mode=True)
    clean = {"model": network, "in_range": (0, 1), "noise": 0, "compression": 0}
    results = (
        resize(low, scale),
        super_resolve(low, scale, **clean),
        super_resolve(denoised, scale, **clean),
        super_resolve(low, scale, model=network, in_range=(0, 1)),
    )
    return [psnr(truth, result, data_range=1, crop_border=int(np.ceil(scale))) for result in results]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="the default network by default")
    parser.add_argument("--scales", nargs="+", type=float, default=[2, 3, 4])
    parser.add_argument("--levels", nargs="+", type=float, default=[0.02, 0.05, 0.1])
    options = parser.parse_args()
    network = load_model(options.model)
    truths = {name: find_truth(plane, rgb) for name, plane, rgb in read_channels(options.folder)}
    print("| scale | noise | " + " | ".join(WAYS) + " | channels below bicubic |\n|---|---|" + "---:|" * 5)
    for scale in options.scales:
        for level in options.levels:
            table = np.array([measure(truth, scale, level, network) for truth in truths.values()])
            lost = dict(zip(truths, table[:, 3] - table[:, 0], strict=True))
            below = [f"{name} ({gain:+.2f})" for name, gain in lost.items() if gain < 0]
            means = " | ".join(f"{value:.2f}" for value in table.mean(0))
            print(f"| x{scale:g} | {100 * level:g} % | {means} | {', '.join(below) or 'none'} |", flush=True)


if __name__ == "__main__":
    main()
