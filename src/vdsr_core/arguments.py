"""Arguments checked by name: integers, other numbers, ranges, scales and paths."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from numbers import Real
from pathlib import Path
from typing import Any


def is_integer(value: Any) -> bool:
    """Whether `value` is an integer (Python or NumPy); True and False do not count."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)


def check_path(name: str, value: Any) -> Path:
    """`value` as a Path, checked to be a str or a path."""
    try:
        if not isinstance(value, bytes):
            return Path(value)
    except TypeError:
        pass
    msg = f"`{name}` must be a str or a path, got {value!r}. Give the name of a file."
    raise TypeError(msg)


def check_integer(name: str, value: Any, least: int = 0, hint: str = "Leave it out for the default.") -> int:
    """`value` as an int, checked to be an integer of at least `least`."""
    if not is_integer(value):
        msg = f"`{name}` must be an integer of at least {least}, got {value!r}. {hint}"
        raise TypeError(msg)
    if operator.index(value) < least:
        msg = f"`{name}` must be an integer of at least {least}, got {value}. {hint}"
        raise ValueError(msg)
    return operator.index(value)


def check_switch(name: str, value: Any) -> bool:
    """`value`, checked to be True or False."""
    if not isinstance(value, bool):
        msg = f"`{name}` must be True or False, got {value!r}. Leave it out for the default."
        raise TypeError(msg)
    return value


def check_number(
    name: str,
    value: Any,
    rule: str = "a number",
    hint: str = "Leave it out for the default.",
    holds: Callable[[float], bool] = lambda _: True,
) -> float:
    """`value` as a float, checked to be a real number for which `rule` holds."""
    if isinstance(value, bool) or not isinstance(value, Real):
        msg = f"`{name}` must be {rule}, got {value!r}. {hint}"
        raise TypeError(msg)
    if not holds(float(value)):
        msg = f"`{name}` must be {rule}, got {value}. {hint}"
        raise ValueError(msg)
    return float(value)


def check_span(name: str, value: Any, hint: str, above: float = -math.inf) -> tuple[float, float]:
    """`value` as (low, high), checked to be two finite real numbers in this order, both above a third one."""
    rule = "two numbers, " + (f"{above:g} < low <= high" if math.isfinite(above) else "low <= high")
    if not isinstance(value, tuple | list) or len(value) != 2:
        msg = f"`{name}` must be {rule}, got {value!r}. {hint}"
        raise TypeError(msg)
    low, high = (check_number(name, number, rule, hint) for number in value)
    if not above < low <= high < math.inf:
        msg = f"`{name}` must be {rule}, got {(low, high)}. {hint}"
        raise ValueError(msg)
    return low, high


def check_scales(scales: Any, least: float = 1.0) -> tuple[float, ...]:
    """`scales`, one number or several, as floats; checked to be finite and above 1, or at least `least` beyond 1."""
    many = [scales] if isinstance(scales, Real) or getattr(scales, "ndim", 1) == 0 else scales
    if isinstance(many, str | bytes) or not isinstance(many, Iterable):
        msg = f"`scales` must be a number or a list of numbers, got {scales!r}. Try [2, 3, 4]."
        raise TypeError(msg)
    found: tuple[float, ...] = tuple(
        check_number("scales", scale, "numbers, one for both axes", "Try [2, 3, 4].") for scale in many
    )
    for scale in found:
        if not (math.isfinite(scale) and scale >= least and scale > 1):
            rule = "greater than 1" if least == 1 else f"at least {least:g}"
            msg = f"`scales` must be finite numbers, {rule}, got {scale:g}. Try [2, 3, 4]."
            raise ValueError(msg)
    return found
