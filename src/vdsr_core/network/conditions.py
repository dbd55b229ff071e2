"""How noisy and compressed an image is: as it is asked for, and as a network takes it."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from vdsr_core.arguments import check_number
from vdsr_core.images.intensity import Rescale
from vdsr_core.images.noise import Noise, rescale_noise
from vdsr_core.network.engine import INPUT_RANGE
from vdsr_core.network.model import Condition
from vdsr_core.network.pretrained import model_names, read_card

STRONGEST = 1.0  # noise whose standard deviation is the range, and steps as large: far beyond what networks have seen
UNTOUCHED = Condition(scale=1)  # neither noisy nor compressed nor enlarged
LUMA_RANGE = 219 / 255, 16 / 255  # what becomes of [0, 1]: white is 235 of 255, black 16


def check_compression(compression: Any) -> float | None:
    """`compression`, checked to be from 0 to 1; None for "auto"."""
    if isinstance(compression, str) and compression == "auto":
        return None
    rule, way_out = "'auto' or a number from 0 to 1", "Use 0 for an image that was never compressed."
    return check_number("compression", compression, rule, way_out, lambda value: 0 <= value <= 1)


def find_mapped(name: str) -> list[str]:
    """The networks of the package that have a map."""
    return [other for other in model_names() if name in read_card(other)["maps"]]


def check_maps(maps: Collection[str], **asked: Any) -> None:
    """Raise if noise or compression is to be removed by a network that has no map of it."""
    for name, value in asked.items():
        if name not in maps and np.any(value):
            others = find_mapped(name)
            way_out = f"Use {others[0]}." if others else f"Use a network that can, or leave `{name}` out."
            msg = f"`{name}` must be 'auto' or 0 for a network that cannot remove it, got {value}. {way_out}"
            raise ValueError(msg)


def to_condition(
    noise: Noise, compression: float, rescale: Rescale, dtype: np.dtype[Any], *, colour: bool = False
) -> Condition:
    """Noise and compression of an image in the intensities of the network.

    The noise is (gain, offset) in units of the image; the compression is a fraction of 255 for 8-bit images, of the
    range for others. `rescale` maps the image to 0 to 1; `colour` says that luma goes through the network. A range far
    too narrow, or a noise far too strong, would be infinite for a network, and is told as `STRONGEST`.
    """
    span, black = LUMA_RANGE if colour else (1.0, 0.0)
    factor = span / (rescale.high - rescale.low)
    gain, offset = map(limit, rescale_noise(noise, factor, black - factor * rescale.low))
    if gain * INPUT_RANGE[1] + offset <= 0:  # there is no noise at any intensity that the network is shown
        gain = offset = 0.0
    step = compression * (255 * factor if dtype == np.uint8 else span)
    return Condition(gain, offset, limit(step))


def limit(value: float) -> float:
    """A number within `STRONGEST`; nothing times infinity is nothing."""
    return 0.0 if math.isnan(value) else min(max(value, -STRONGEST), STRONGEST)
