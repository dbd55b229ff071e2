"""How well `estimate_noise` finds noise that was added, beside scikit-image's `estimate_sigma`.

    python benchmarks/noise.py FOLDER...

For each image and noise: the variance found with the noise, less that found before, over the variance added. It
prints the median of the error, the fraction of images where it is over 15 %, and the largest error. FOLDER holds
photographs or microscopy. Of colour, luma is taken; other intensities are mapped to 0..255 by their percentiles 0.5
and 99.5.
"""

import argparse
from pathlib import Path

import numpy as np
from skimage.restoration import estimate_sigma

from vdsr_core import degrade, estimate_noise, image_names, read_image
from vdsr_core.images.color import rgb_to_ycbcr

NOISES = {"sigma 2": (0, 2), "sigma 5": (0, 5), "sigma 10": (0, 10), "Poisson 0.3": (0.3, 0), "Poisson 1": (1, 0)}


def read_planes(folders):
    """A plane of each image and channel, 0 to 255."""
    for path in (path for folder in folders for path in sorted(Path(folder).iterdir())):
        if path.suffix.lower() not in (".png", ".jpg", ".tif", ".tiff"):
            continue
        for name in image_names(path) or [""]:
            image = read_image(path, name=name) if name else read_image(path)
            pixels = np.asarray(image.data, float)
            if image.rgb:
                yield rgb_to_ycbcr(np.moveaxis(pixels[..., :3], -1, 0))[0]
                continue
            planes = pixels if image.channel_axis == 0 else pixels.reshape(-1, *pixels.shape[-2:])[:1]
            for plane in planes.reshape(-1, *pixels.shape[-2:])[:4]:
                low, high = np.percentile(plane, (0.5, 99.5))
                yield (plane - low) / max(high - low, 1e-9) * 255


def mean_variance(plane, gain, offset):
    return np.mean(np.maximum(gain * plane + offset, 0))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    planes = list(read_planes(parser.parse_args().folders))
    print(f"{len(planes)} planes; median error, fraction over 15 %, largest")
    for name, (shot, read) in NOISES.items():
        errors = []
        for number, plane in enumerate(planes):
            noisy = degrade(plane, 1, shot_noise=shot, read_noise=read, seed=number)
            added = np.mean(shot * np.maximum(plane, 0) + read**2)
            ours = mean_variance(plane, *estimate_noise(noisy, faint=True)) - mean_variance(
                plane, *estimate_noise(plane, faint=True)
            )
            theirs = estimate_sigma(noisy) ** 2 - estimate_sigma(plane) ** 2
            errors.append((ours / added - 1, theirs / added - 1))
        for who, error in zip(("estimate_noise", "estimate_sigma"), np.array(errors).T, strict=True):
            far = np.abs(error)
            print(f"{name:12} {who:15} {np.median(error):+.3f} {np.mean(far > 0.15):.2f} {far.max():.2f}")


if __name__ == "__main__":
    main()
