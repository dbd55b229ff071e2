"""How good noisy, compressed and otherwise reduced images come out: bicubic, as if clean, and with what is found.

    python benchmarks/degraded.py FOLDER... [--model NET] [--scales 2 3 4] [--only WORD] [--limit N]

FOLDER holds sharp 8-bit images, such as Set5. Their luma is reduced, then noisy, compressed into a JPEG file, or both,
then upscaled. PSNR in dB of luma by the field's protocol, mean over the images: bicubic interpolation; the network
with maps of zeros (`noise=0, compression=0`), and what it gains; the network with what is found in the image and in
the file (the defaults). A network without maps and restorer has the same figures twice. Seeds are fixed.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from vdsr_core import ImageFile, degrade, load_model, psnr, read_image, resize, super_resolve
from vdsr_core.evaluation import luma
from vdsr_core.images.degradation import crop_to_scale

# Options of `degrade`; `jpeg` is the quality of a file.
KINDS = {
    "clean": {}, "sigma 2": {"read_noise": 2}, "sigma 5": {"read_noise": 5}, "sigma 10": {"read_noise": 10},
    "Poisson 0.3": {"shot_noise": 0.3}, "Poisson 1": {"shot_noise": 1},
    "JPEG 90": {"jpeg": 90}, "JPEG 75": {"jpeg": 75}, "JPEG 40": {"jpeg": 40},
    "sigma 5, JPEG 75": {"read_noise": 5, "jpeg": 75},
    "box": {"kernel": "box"}, "Lanczos": {"kernel": "lanczos"}, "blur 1.2": {"blur": 1.2}, "blur 2": {"blur": 2},
}  # fmt: skip


def make_low(hr, scale, seed, jpeg=None, **options):
    """The degraded low image, as a file would be read."""
    low = degrade(hr, scale, seed=seed, **options)
    if jpeg is None:
        return ImageFile(low, "YX")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "low.jpg")
        Image.fromarray(np.clip(np.rint(low), 0, 255).astype(np.uint8)).save(path, quality=jpeg)
        found = read_image(path)
    return ImageFile(found.data, "YX", compression=found.compression)


def measure(hr, low, scale, network):
    """PSNR of bicubic, of the network with maps of zeros, and with what it finds."""
    border = int(np.ceil(scale))
    pixels = np.asarray(low.data, np.float32)  # floats: the network's output is rounded once
    options = {"model": network, "in_range": (0, 255)}
    clean = super_resolve(pixels, scale, noise=0, compression=0, **options)
    found = clean
    if network.maps:
        found = super_resolve(ImageFile(pixels, "YX", compression=low.compression), scale, **options)
    results = resize(pixels, scale, output_shape=hr.shape), clean, found
    finished = [np.clip(np.rint(result[: hr.shape[0], : hr.shape[1]]), 16, 235) for result in results]
    return [psnr(hr, result, data_range=255, crop_border=border) for result in finished]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", help="the default network by default")
    parser.add_argument("--scales", nargs="+", type=float, default=[2, 3, 4])
    parser.add_argument("--only", nargs="+", metavar="WORD", default=[""], help="degradations whose name holds a word")
    parser.add_argument("--limit", type=int, help="at most so many images of a folder")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # a scale that the network was not trained for
    network = load_model(arguments.model)
    kinds = {name: kind for name, kind in KINDS.items() if any(word in name for word in arguments.only)}
    for folder in arguments.folders:
        paths = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))[: arguments.limit]
        images = [luma(np.asarray(read_image(path).data)) for path in paths]
        print(f"\n| {folder.name} | scale | bicubic | zero maps | | automatic | |\n|---|---|---:|---:|---:|---:|---:|")
        for scale in arguments.scales:
            for name, kind in kinds.items():
                rows = []
                for number, image in enumerate(images):
                    hr, _ = crop_to_scale(image, (scale, scale))
                    rows.append(measure(hr, make_low(hr, scale, number, **kind), scale, network))
                bicubic, clean, found = np.mean(rows, 0)
                figures = f"{bicubic:.2f} | {clean:.2f} | {clean - bicubic:+.2f} | {found:.2f} | {found - bicubic:+.2f}"
                print(f"| {name} | x{scale:g} | {figures} |{' below bicubic' * bool(found < bicubic)}", flush=True)


if __name__ == "__main__":
    main()
