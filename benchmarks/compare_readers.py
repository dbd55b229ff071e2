"""What a viewer sees of a TIFF: our reader against Pillow, libtiff (`tiff2rgba`) and ImageMagick, where installed.

Each file is a ramp in one combination of photometric, bits, extra samples, planar layout and byte order. A fault is a
file that none of the others sees as we do (by more than 2 of 255 on average), or a copy by us that one of them sees
otherwise than the file. Exits with 1 if there are any.

    python benchmarks/compare_readers.py
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from vdsr_core import ImageFile, read_image, write_image

SIDE = 32
KNOWN = {  # where all others that read a file are wrong, or guess
    r"gray|rgb.*extra0": "a fourth sample of which nothing is said is taken for alpha",
    r"minis.*extra.*": "ImageMagick reads gray with a second sample wrongly where it is planar or has few bits",
}


def make_files(folder: Path) -> Iterator[Path]:
    """TIFFs of each combination that a writer can make."""
    bits_each, orders = (1, 2, 4, 8, 10, 12, 16), "<>"
    kinds = ("minisblack", "miniswhite", "rgb", "palette")
    for kind, bits, extra, planar, order in product(kinds, bits_each, (None, 0, 1, 2), ("contig", "separate"), orders):
        colors = 3 if kind == "rgb" else 1
        samples = colors + (extra is not None)
        if (kind == "palette" and (bits > 8 or extra is not None)) or (samples == 1 and planar == "separate"):
            continue
        if bits in (10, 12) and order == ">":  # tifffile swaps the bytes of what it packs
            continue
        ramp = np.linspace(0, 1, SIDE)
        planes = [np.tile(ramp, (SIDE, 1)), np.tile(ramp[:, None], (1, SIDE)), np.tile(ramp[::-1], (SIDE, 1))][:colors]
        alpha = np.full((SIDE, SIDE), 0.6)
        planes = [plane * (alpha if extra == 1 else 1) for plane in planes] + [alpha] * (extra is not None)
        pixels = np.rint(np.stack(planes) * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)
        pixels = pixels[0] if samples == 1 else pixels if planar == "separate" else np.moveaxis(pixels, 0, -1)
        path = folder / f"{kind}_{bits}_extra{extra}_{planar}_{'little' if order == '<' else 'big'}.tif"
        options: dict[str, Any] = {"photometric": "minisblack" if kind == "palette" else kind}
        options |= {} if samples == 1 else {"planarconfig": planar}
        options |= {} if extra is None else {"extrasamples": [extra]}
        if kind == "palette":
            table = np.random.default_rng(0).integers(0, 256, (3, 2**bits)) * 257
            options["extratags"] = [(320, 3, table.size, table.ravel().tolist(), True)]
        tifffile.imwrite(path, pixels, metadata=None, bitspersample=bits, byteorder=order, **options)
        if kind == "palette":
            with tifffile.TiffFile(path, mode="r+") as tiff:
                tiff.pages[0].tags[262].overwrite(3)
        yield path


def our_view(path: Path) -> np.ndarray[Any, Any]:
    """RGBA of 0 to 255, as our reader sees a file."""
    image = read_image(path)
    white = 2 ** image.extra["bits"] - 1 if "bits" in image.extra else np.iinfo(image.data.dtype).max
    pixels = np.asarray(image.data).astype(float) * 255 / white
    if "samples" in image.extra or image.rgb:
        axis = image.axes.index("S" if image.rgb else "C")
        pixels = np.moveaxis(pixels, axis, -1)[..., : 4 if image.rgb else 3]
    elif "C" in image.axes:
        pixels = np.take(pixels, 0, image.axes.index("C"))
    if pixels.ndim == 2:
        pixels = pixels[..., None].repeat(3, -1)
    opaque = np.full((*pixels.shape[:2], 4 - pixels.shape[2]), 255.0)
    return np.concatenate([pixels, opaque], -1)


def other_views(path: Path, folder: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """RGBA of 0 to 255, as others see a file; none of those that cannot read it."""
    try:
        with Image.open(path) as picture:
            mode = picture.mode
            if not mode.startswith("I;16"):
                yield "Pillow", np.asarray(picture.convert("RGBA")).astype(float)
    except (OSError, SyntaxError, ValueError):
        pass
    for name, out in (("tiff2rgba", folder / "seen.tif"), ("convert", folder / "seen.png")):
        if shutil.which(name) is None:
            continue
        words = [name, str(path), str(out) if name == "tiff2rgba" else f"PNG32:{out}"]
        if subprocess.run(words, capture_output=True, check=False).returncode or not out.exists():
            continue
        seen = (tifffile.imread(out) if name == "tiff2rgba" else np.asarray(Image.open(out))).astype(float)
        out.unlink()
        if name == "tiff2rgba":  # premultiplied
            alpha = np.maximum(seen[..., 3:], 1)
            seen[..., :3] = np.minimum(seen[..., :3] * 255 / alpha, 255)
        yield name, seen


def main() -> int:
    """Compare all files, and what we write of each."""
    counts: dict[str, int] = {}
    faults, disputed = [], []
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the copy does not keep
        folder = Path(name)
        for path in make_files(folder):
            ours, seen = our_view(path), dict(other_views(path, folder))
            off = {reader: np.abs(view - ours).mean() for reader, view in seen.items()}
            wrong = [f"{path.name}: {reader} differs by {by:.1f}" for reader, by in off.items() if by > 2]
            agreeing = [reader for reader, by in off.items() if by <= 2]
            known = any(re.match(pattern, path.name) for pattern in KNOWN)
            (disputed if agreeing or known else faults).extend(wrong)
            write_image(folder / "again.tif", keep(read_image(path)), overwrite=True)
            again = dict(other_views(folder / "again.tif", folder))
            for reader in agreeing:
                counts[reader] = counts.get(reader, 0) + 1
                by = np.abs(again[reader] - seen[reader]).mean() if reader in again else 255
                faults += (
                    [f"{path.name}: {reader} sees our copy otherwise, by {by:.1f}"] if by > 3 and not known else []
                )
    print("disputed among the others:", *disputed, sep="\n  ")
    print("FAULTS:", *faults, sep="\n  ")
    print(f"{len(faults)} faults; agreeing in: {counts}; {len(disputed)} disputed")
    return int(bool(faults))


def keep(image: ImageFile) -> ImageFile:
    """The image as it is upscaled: by 1."""
    return image.with_data(np.asarray(image.data[...]))


if __name__ == "__main__":
    sys.exit(main())
