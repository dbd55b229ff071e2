"""How to fine-tune: the settings, the lengths to choose from, and the time they take. No Qt, no napari."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass, fields, replace
from typing import Any

from napari_vdsr.background.pytorch import load_torch
from napari_vdsr.fine_tune.data import Data, shape_of

NEW = "A new network"
LENGTHS: dict[str, dict[str, Any]] = {  # what the choices of a length mean
    "Quick look": {"steps": 100, "batch_size": 8, "validate_every": 25, "patience": 4},
    "Good": {"steps": 1000, "batch_size": 16, "validate_every": 50, "patience": 6},
    "Long": {"steps": 10_000, "batch_size": 16, "validate_every": 200, "patience": 10},
}
PIECES, OF_PLANE, PIECE = 8, 4, 192  # what is measured of the held-out part, and of one plane of it, at most


@dataclass(frozen=True)
class Recipe:
    """How to train: plain values, kept beside an unfinished training. Those that `fine_tune` has are as there.

    Attributes
    ----------
    name : str
        Of the network that comes out.
    model : str or None
        Where to start: name or file of a network, None for the default, or `NEW`.
    threads : int
        Processor cores that compute; another number rounds differently.
    """

    name: str
    model: str | None = None
    threads: int = 1
    scales: tuple[float, ...] = (2.0, 3.0, 4.0)
    blur: float = 0.0
    noise: float = 0.0
    steps: int = 1000
    learning_rate: float = 3e-4
    theta: float | None = None
    batch_size: int = 16
    patch: int = 48
    hold_out: float = 0.2
    strips: bool = True
    validate_every: int = 50
    patience: int = 5
    seed: int = 0
    device: str | None = None

    def options(self) -> dict[str, Any]:
        """The keywords of `fine_tune`."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "model", "threads")}
        return given if self.theta is None else given | {"optimizer": "adamw"}  # Muon is not clipped


def with_length(recipe: Recipe, length: str) -> Recipe:
    """A recipe with the steps of one of `LENGTHS`."""
    return replace(recipe, **LENGTHS[length])


def count_threads() -> int:
    """How many processor cores a training gets."""
    if "torch" not in sys.modules:  # not loaded for this
        return max(1, (os.cpu_count() or 1) - 1)
    return max(1, int(load_torch().get_num_threads()) - 1)


def estimate_seconds(recipe: Recipe, speed: float, held_out: int) -> float:
    """How long a training takes at most.

    Parameters
    ----------
    recipe : Recipe
        How to train.
    speed : float
        Seconds for each pixel of a patch.
    held_out : int
        Pixels that are measured at each validation and scale; a look forwards takes a third of a step.
    """
    training = recipe.steps * recipe.batch_size * recipe.patch**2
    validations = 2 + recipe.steps // recipe.validate_every
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
