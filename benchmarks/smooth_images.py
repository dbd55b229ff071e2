"""Make smooth images to train with: blurred photographs, and spots, filaments and bodies on a dark field.

    python benchmarks/smooth_images.py OPEN OUT

OPEN is a folder of sharp images with a table of their sources, OPEN/CREDITS.csv, and photographs in OPEN/photo.
OUT/smooth gets 82 parts of photographs, blurred by Gaussians of 2.5 to 8 pixels; OUT/spots gets 90 images that resemble
fluorescence, drawn from random numbers, blurred by 1 to 6 pixels, a third of them with the noise of photons. All are
384 x 384, 16-bit. OUT/groups.csv names the source of each image of OPEN and OUT, for `vdsr train --groups`.

Photographs reduced to a few hundred pixels are sharp. A network that has seen nothing else takes what a microscope
blurs for what a large scale has blurred, and sharpens it.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

SIDE = 384
BLURRED, DRAWN = 82, 90  # images
BLUR = 2.5, 8.0  # pixels, of photographs
PSF = 1.0, 6.0  # pixels, of what is drawn
Plane = NDArray[np.float64]


def draw_log(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two, by its logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def blur_photograph(gray: Plane, rng: np.random.Generator) -> Plane:
    """A part of a blurred photograph; every other one is stretched to the whole range."""
    side = min(SIDE, *gray.shape)
    row, column = (int(rng.integers(0, length - side + 1)) for length in gray.shape)
    part = gaussian_filter(gray, draw_log(rng, *BLUR), mode="reflect")[row : row + side, column : column + side]
    return (part - part.min()) / np.ptp(part) if rng.random() < 0.5 else part


def draw_spots(rng: np.random.Generator) -> Plane:
    """Points of log-normal brightness, denser in some regions."""
    field = np.zeros((SIDE, SIDE))
    density = gaussian_filter(rng.normal(size=field.shape), rng.uniform(8, 40))
    density = np.maximum(density / density.std() - rng.uniform(-0.5, 1.5), 0)
    if density.sum() > 0:
        count = int(draw_log(rng, 60, 6000))
        place = rng.choice(field.size, count, p=density.ravel() / density.sum())
        np.add.at(field.ravel(), place, rng.lognormal(0, rng.uniform(0.3, 1.2), count))
    return field


def add_filaments(field: Plane, rng: np.random.Generator) -> None:
    """Draw curves that turn at random, in place."""
    for _ in range(rng.integers(5, 60)):
        point, direction, brightness = rng.uniform(0, SIDE, 2), rng.uniform(0, 2 * np.pi), rng.lognormal(0, 0.5) * 0.5
        for _ in range(rng.integers(50, 400)):
            direction += rng.normal(0, 0.08)
            point += np.sin(direction), np.cos(direction)
            row, column = int(point[0]), int(point[1])
            if 0 <= row < SIDE and 0 <= column < SIDE:
                field[row, column] += brightness


def add_bodies(field: Plane, rng: np.random.Generator) -> None:
    """Draw ellipses with texture, as nuclei have, in place."""
    y, x = np.mgrid[:SIDE, :SIDE]
    texture = gaussian_filter(rng.normal(size=field.shape), rng.uniform(1, 6))
    texture = np.maximum(1 + 0.3 * texture / texture.std(), 0)
    for _ in range(rng.integers(3, 40)):
        (row, column), axes = rng.uniform(0, SIDE, 2), rng.uniform(6, 40, 2)
        angle = rng.uniform(0, np.pi)
        along = (x - column) * np.cos(angle) + (y - row) * np.sin(angle)
        across = -(x - column) * np.sin(angle) + (y - row) * np.cos(angle)
        inside = (along / axes[0]) ** 2 + (across / axes[1]) ** 2 < 1
        field += inside * texture * rng.lognormal(0, 0.4) * 0.3


def draw_field(number: int) -> Plane:
    """What a microscope might show: spots, with filaments or bodies in two of three images."""
    rng = np.random.default_rng((7, number))
    field = draw_spots(rng)
    if number % 3 == 1:
        add_filaments(field, rng)
    elif number % 3 == 2:
        add_bodies(field, rng)
    field = gaussian_filter(field, draw_log(rng, *PSF))
    field /= np.percentile(field, 99.95) if rng.random() < 0.5 else field.max()
    haze = rng.uniform(0, 0.15)
    field = np.clip(field * (1 - haze) + haze * gaussian_filter(rng.random(field.shape), 30) * 2, 0, 1)
    if rng.random() < 0.3:
        photons = 10 ** rng.uniform(3, 5)
        field = np.clip(rng.poisson(field * photons) / photons, 0, 1)
    return field


def main() -> None:
    """Write the images and the table of their sources."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("open", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    with (given.open / "CREDITS.csv").open(newline="", encoding="utf-8") as stream:
        rows = [(Path(row["file"]), row["source"]) for row in csv.DictReader(stream)]
    table = [((given.open / name).resolve(), source) for name, source in rows]
    photographs = sorted((path, source) for path, source in table if path.parent.name == "photo")
    chosen = photographs[:: len(photographs) // BLURRED][:BLURRED]
    rng = np.random.default_rng(0)
    images: list[tuple[Path, str, Plane]] = []
    for path, source in chosen:
        gray = np.asarray(Image.open(path).convert("L")) / 255
        images.append((given.out / "smooth" / f"{path.stem}.tif", source, blur_photograph(gray, rng)))
    for number in range(DRAWN):
        path = given.out / "spots" / f"spots_{number:03d}.tif"
        images.append((path, path.name, draw_field(number)))
    for path, source, image in images:
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.rint(image * 65535).astype(np.uint16))
        table.append((path.resolve(), source))
    with (given.out / "groups.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("file", "source"), *table])


if __name__ == "__main__":
    main()
