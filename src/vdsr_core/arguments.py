"""Arguments checked by name: whole numbers, numbers, ranges and scales."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any


def check_whole(name: str, value: Any, least: int = 0, hint: str = "Leave it out for the default.") -> int:
    """`value` as an int, checked to be a whole number of at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        msg = f"`{name}` must be a whole number of at least {least}, got {value!r}. {hint}"
        raise TypeError(msg)
    if value.__index__() < least:
        msg = f"`{name}` must be a whole number of at least {least}, got {value}. {hint}"
        raise ValueError(msg)
    return int(value)


def check_number(name: str, value: Any, rule: str = "a number", hint: str = "") -> float:
    """`value` as a float, checked to be a real number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        msg = f"`{name}` must be {rule}, got {value!r}. {hint or 'Leave it out for the default.'}"
        raise TypeError(msg)
    return float(value)


def check_span(name: str, value: Any, rule: str, hint: str) -> tuple[float, float]:
    """`value` as (low, high), checked to be two real numbers; `rule` says what else they must be."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        msg = f"`{name}` must be two numbers, {rule}, got {value!r}. {hint}"
        raise TypeError(msg)
    low, high = (check_number(name, number, f"two numbers, {rule}", hint) for number in value)
    return low, high


def check_scales(scales: Any, name: str = "scales", least: float = 1.0) -> tuple[float, ...]:
    """`scales`, one number or several, as floats; checked to be finite and above 1, or at least `least` beyond 1."""
    many = [scales] if isinstance(scales, Real) else scales
    if isinstance(many, str | bytes) or not isinstance(many, Iterable):
        msg = f"`{name}` must be a number or a list of numbers, got {scales!r}. Try [2, 3, 4]."
        raise TypeError(msg)
    found: tuple[float, ...] = tuple(
        check_number(name, scale, "numbers, one for both axes", "Try [2, 3, 4].") for scale in many
    )
    for scale in found:
        if not (math.isfinite(scale) and scale >= least and scale > 1):
            rule = "greater than 1" if least == 1 else f"at least {least:g}"
            msg = f"`{name}` must be finite numbers, {rule}, got {scale:g}. Try [2, 3, 4]."
            raise ValueError(msg)
    return found
