"""What an adaptive mode could gain at most: the share of an image where the network changes next to nothing.

    python benchmarks/adaptive.py FOLDER [--scale 2] [--sides 32 64 128] [--most 20]

FOLDER holds photographs or microscopy; each plane is degraded by the scale and mapped to [0, 1] by its own range. The
network itself says where it could have been spared: in blocks whose residual stays below half a gray level of 255
everywhere. A mode that predicts those without the network cannot spare more. What is left takes longer than its share,
for it needs its halo. "loss" is that of PSNR, in dB, when the spared blocks are left as interpolated.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vdsr_core import degrade, load_model, psnr, read_image, resize
from vdsr_core.dataset.planes import network_planes
from vdsr_core.images.resampling import make_taps
from vdsr_core.network.engine import Engine

HALF_LEVEL = 0.5 / 255
Plane = NDArray[np.float32]


def read_planes(folder: Path, most: int) -> Iterator[Plane]:
    """The planes of some files of a folder, as the network would see them; of a series, the first of each axis."""
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg", ".tif")]
    for path in paths[:: -(-len(paths) // most)]:
        image = read_image(path)
        planes = network_planes(np.asarray(image.data), channel_axis=image.channel_axis, rgb=image.rgb)
        plane = next((plane for plane in planes if plane is not None), None)
        if plane is not None:
            yield plane[: plane.shape[0] // 12 * 12, : plane.shape[1] // 12 * 12]


def block_maxima(values: Plane, side: int) -> NDArray[np.floating]:
    """The largest value of each whole block."""
    rows, columns = (n // side for n in values.shape)
    whole = values[: rows * side, : columns * side].reshape(rows, side, columns, side)
    maxima: NDArray[np.floating] = whole.max((1, 3))
    return maxima


def main() -> None:
    """Print the table."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--most", type=int, default=20)
    options = parser.parse_args()
    engine = Engine(load_model(), torch.device("cpu"))
    found: dict[int, list[tuple[float, float]]] = {side: [] for side in options.sides}
    for plane in read_planes(options.folder, options.most):
        low = degrade(plane.astype(np.float64), options.scale).astype(np.float32)
        taps = tuple(make_taps(n, options.scale, 0, n * options.scale) for n in low.shape)
        sr = engine.run([low[None]], [taps])[0, 0]  # type: ignore[list-item]
        ilr = resize(low, options.scale, output_shape=(sr.shape[0], sr.shape[1]))
        whole = psnr(plane, sr, data_range=1, crop_border=options.scale)
        for side in options.sides:
            if min(sr.shape) < side:
                continue
            spared = block_maxima(np.abs(sr - ilr), side) < HALF_LEVEL
            mask = np.zeros(sr.shape, bool)
            mask[: spared.shape[0] * side, : spared.shape[1] * side] = np.kron(spared, np.ones((side, side), bool))
            mixed = psnr(plane, np.where(mask, ilr, sr), data_range=1, crop_border=options.scale)
            found[side].append((mask.mean(), whole - mixed))
    print(f"{options.folder.name}, {len(found[options.sides[0]])} planes, x{options.scale}\n")
    print("| blocks | spared at most | loss, dB |\n|---|---|---|")
    for side, values in found.items():
        share, loss = np.mean(values, axis=0)
        print(f"| {side} x {side} | {share:.1%} | {loss:.4f} |")


if __name__ == "__main__":
    main()
