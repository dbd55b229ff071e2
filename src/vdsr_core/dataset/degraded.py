"""Low-resolution images as they really are: noisy, compressed, reduced in other ways, and what a network is told."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdsr_core.images.degradation import degrade, mean_step
from vdsr_core.images.noise import estimate_noise
from vdsr_core.network.model import Condition

# How often each kind is drawn. Half of the noise is of one strength, half grows with the intensity.
KINDS = {"noise": 0.45, "jpeg": 0.3, "both": 0.15, "kernel": 0.1}
NOISE, BOTH = 15 / 255, 10 / 255  # standard deviation of the strongest noise, and with compression
JPEG_QUALITY = 30, 96  # of JPEG
OTHER_KERNEL = 0.2  # fraction of the noisy and compressed images that are not reduced by bicubic
BLUR = 0.6  # pixels of the low-resolution image, at most


def degrade_at_random(image: NDArray[Any], scale: float, rng: np.random.Generator) -> tuple[NDArray[Any], Condition]:
    """A noisy, compressed or otherwise reduced version of a sharp image, and what was done to it.

    The image is (M, N), in floating point, 0 to 1 for the range; the reduced one is (floor(M / scale), floor(N /
    scale)). The condition is a clean one where only the kernel differs. `rng` draws kind and strength.
    """
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    options: dict[str, Any] = {}
    if kind == "kernel" or rng.random() < OTHER_KERNEL:
        kernel = rng.choice(["box", "lanczos", "blur"])
        options = {"blur": rng.uniform(0.1, BLUR) * scale} if kernel == "blur" else {"kernel": kernel}
    gain = offset = compression = 0.0
    if kind in ("noise", "both"):
        strongest = (NOISE if kind == "noise" else BOTH) * rng.random()
        if rng.random() < 0.5:
            offset = strongest**2
        else:  # of this strength at the intensity 1 / 2
            gain, offset = 2 * strongest**2, (0.2 * NOISE * rng.random()) ** 2
        options |= {"shot_noise": gain, "read_noise": offset**0.5, "seed": rng}
    if kind in ("jpeg", "both"):
        quality = int(rng.integers(*JPEG_QUALITY))
        options["jpeg"], compression = quality, mean_step(quality)
    low = degrade(image, scale, **options)
    if kind == "noise" and rng.random() < 0.5:  # as 8-bit files hold it
        low = np.rint(np.clip(low, 0, 1) * 255) / 255
    return low, Condition(gain, offset, compression)


def estimate_condition(low: NDArray[Any], compression: float = 0.0) -> Condition:
    """The condition of a low-resolution image whose noise is not known."""
    return Condition(*estimate_noise(low), compression)
