"""How to fine-tune: the settings, the lengths to choose from, and the time they take. No Qt, no napari."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from napari_vdsr.background.pytorch import load_torch
from napari_vdsr.fine_tune.data import Data, shape_of
from vdsr_core import FineTuneConfig

NEW = "A new network"
NETWORK: dict[str, Any] = {"fold": 2, "blocks": True, "maps": ("scale",)}  # its shape, as in `vdsr fine-tune --new`
LENGTHS: dict[str, dict[str, Any]] = {  # what the choices of a length mean
    "Quick look": {"steps": 100, "batch_size": 8, "validate_every": 25, "patience": 4},
    "Good": {"steps": 1000, "batch_size": 16, "validate_every": 50, "patience": 6},
    "Long": {"steps": 10_000, "batch_size": 16, "validate_every": 200, "patience": 10},
}
PIECES, OF_PLANE, PIECE = 8, 4, 192  # what is measured of the held-out part, and of one plane of it, at most


@dataclass(frozen=True)
class Recipe:
    """How to train: plain values, kept beside an unfinished training."""

    name: str  # of the new network
    config: FineTuneConfig = field(default_factory=FineTuneConfig)
    model: str | None = None  # where to start: name or file of a network, None for the default, or `NEW`
    threads: int = 1  # processor cores that compute; another number rounds differently
    device: str | None = None  # where to compute; None for the best device

    @property
    def scales(self) -> tuple[float, ...]:
        """The scales to learn."""
        return tuple(self.config.scales or ())  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        """What JSON holds of it."""
        return asdict(self) | {"config": self.config.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Recipe:
        """The inverse of `to_json`."""
        return cls(**values | {"config": FineTuneConfig(**values["config"])})


def with_length(recipe: Recipe, length: str) -> Recipe:
    """A recipe with the steps of one of `LENGTHS`."""
    return replace(recipe, config=replace(recipe.config, **LENGTHS[length]))


def count_threads() -> int:
    """How many processor cores a training gets."""
    if "torch" not in sys.modules:  # not loaded for this
        return max(1, (os.cpu_count() or 1) - 1)
    return max(1, int(load_torch().get_num_threads()) - 1)


def estimate_seconds(recipe: Recipe, speed: float, held_out: int) -> float:
    """How long a training takes at most, in seconds.

    `speed` is in seconds for each pixel of a patch, `held_out` how many pixels are measured at each validation and
    scale; a forward pass takes a third of a step.
    """
    config = recipe.config
    training = config.steps * config.batch_size * config.patch**2
    validations = 2 + config.steps // config.validate_every
    return speed * (training + validations * len(recipe.scales) * held_out / 3)


def held_out_pixels(data: Data, hold_out: float) -> int:
    """About how many pixels of each scale are measured."""
    if data.folder is not None:
        return PIECES * PIECE**2
    sharp = [*data.sources.values(), *(high for _, high in data.pairs.values())]
    pixels = []
    for source in sharp:
        sides = sorted(shape_of(source)[axis] for axis in source.plane_axes)
        planes = math.prod(shape_of(source)) // (sides[0] * sides[1])
        pixels += [min(sides[0] * round(hold_out * sides[1]), OF_PLANE * PIECE**2)] * min(planes, PIECES)
    return min(sum(pixels), PIECES * PIECE**2)
