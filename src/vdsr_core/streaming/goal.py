"""What is wanted of each image: a scale, a size in pixels, or a size of its pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from vdsr_core.arguments import check_integer, check_number
from vdsr_core.formats.image_file import METRES, ImageFile, unify_unit
from vdsr_core.images.resampling import scale_pair


@dataclass(frozen=True)
class Goal:
    """What is wanted of each image: a scale, a size in pixels (rows, columns), or the side of a pixel with its unit.

    The other two are None. Where one side of `size` is None, pixels keep their shape. `label` says the same as a part
    of a file name, such as ``x2``, ``4096x`` (columns x rows) or ``0.1um``.
    """

    pair: tuple[float, float] | None
    size: tuple[int | None, int | None] | None
    pixel_size: tuple[float, str] | None
    label: str

    @classmethod
    def of(cls, scale: Any = None, size: Any = None, pixel_size: Any = None) -> Goal:
        """What exactly one of three arguments asks for."""
        given = [value for value in (scale, size, pixel_size) if value is not None]
        if len(given) != 1:
            got = " and ".join(map(str, given)) or "none of them"
            msg = f"one of `scale`, `size` and `pixel_size` must be given, got {got}. Give exactly one."
            raise TypeError(msg)
        if size is not None:
            rows, columns = _check_size(size)
            return cls(None, (rows, columns), None, f"{columns or ''}x{rows or ''}")
        if pixel_size is not None:
            number, unit = _check_pixel_size(pixel_size)
            return cls(None, None, (number, unit), f"{number:g}{unit}".replace("µ", "u"))
        pair = scale_pair(scale)
        numbers = pair if isinstance(scale, tuple | list) else pair[:1]
        return cls(pair, None, None, "x" + "x".join(f"{number:g}" for number in numbers))

    def scale(self, image: ImageFile) -> tuple[float, float]:
        """The scale (rows, columns) that takes an image there."""
        if self.pair is not None:
            return self.pair
        if self.size is not None:
            shape = [image.data.shape[image.axes.index(letter)] for letter in "YX"]
            factors = [new and new / old for new, old in zip(self.size, shape, strict=True)]
            rows, columns = (factor or max(f for f in factors if f) for factor in factors)
            got = " and ".join(f"{new} {side}" for new, side in zip(self.size, ("rows", "columns"), strict=True) if new)
            problem = f"`size` must not be smaller than the image, {shape[0]} rows and {shape[1]} columns, got {got}."
        else:
            number, unit = self.pixel_size or (0.0, "")
            if image.pixel_size is None or image.unit not in METRES:
                msg = "`pixel_size` needs an image with a known pixel size, got one without. Use `scale`."
                raise ValueError(msg)
            sides = (old * METRES[image.unit] / METRES[unit] for old in image.pixel_size)
            rows, columns = (float(f"{side / number:.12g}") for side in sides)  # 6.5 for 0.65 by 0.1
            had = " x ".join(f"{side:g}" for side in image.pixel_size)
            problem = f"`pixel_size` must not be larger than that of the image, {had} {image.unit}, "
            problem += f"got {number} {unit}."
        if min(rows, columns) < 1:
            msg = f"{problem} The function `degrade` reduces images."
            raise ValueError(msg)
        return rows, columns


def _check_size(size: Any) -> tuple[int | None, int | None]:
    hint = "Try (None, 4096) for 4096 columns."
    if not isinstance(size, tuple | list) or len(size) != 2 or all(n is None for n in size):
        msg = f"`size` must be (rows, columns), one of which may be None, got {size!r}. {hint}"
        raise TypeError(msg)
    rows, columns = (n if n is None else check_integer("size", n, 1, hint) for n in size)
    return rows, columns


def _check_pixel_size(pixel_size: Any) -> tuple[float, str]:
    rule, hint = "a positive number and a unit", f"Try (0.1, 'µm'); the units are {', '.join(METRES)}."
    if not isinstance(pixel_size, tuple | list) or len(pixel_size) != 2 or not isinstance(pixel_size[1], str):
        msg = f"`pixel_size` must be {rule}, got {pixel_size!r}. {hint}"
        raise TypeError(msg)
    number = check_number("pixel_size", pixel_size[0], rule, hint, lambda n: 0 < n < math.inf)
    unit = unify_unit(pixel_size[1])
    if unit not in METRES:
        msg = f"`pixel_size` must be {rule}, got {tuple(pixel_size)}. {hint}"
        raise ValueError(msg)
    return number, unit
