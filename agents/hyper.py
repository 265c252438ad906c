"""Bounds of hyperparameters, declared beside them: ``lr: Annotated[float, positive()] = 1e-3``."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin


@dataclass(frozen=True)
class Range:
    """An interval that a number has to lie in; NaN and infinity never do."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        return math.isfinite(value) and above and value <= self.high

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"a number {'above' if self.low_open else 'of at least'} {self.low:g}"
        return f"a number in {'(' if self.low_open else '['}{self.low:g}, {self.high:g}]"


def positive(high: float = math.inf) -> Range:
    """Greater than 0, up to ``high``."""
    return Range(0, high, low_open=True)


def at_least(low: float) -> Range:
    """``low`` or more."""
    return Range(low)


def unit() -> Range:
    """From 0 to 1."""
    return Range(0, 1)


def check(config: Any) -> None:
    """Check every field of a dataclass against its annotation; call it from ``__post_init__``.

    Raises:
        ValueError: a wrong type or a value out of bounds: which field, what it got, what it takes.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        _check(field.name, getattr(config, field.name), hints[field.name])


def _check(name: str, value: Any, hint: Any) -> None:
    ranges = [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Range)]
    kind = get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            options = ", ".join(str(option) for option in get_args(kind))
            raise ValueError(f"{name}: got {value!r}, takes one of {options}")
    elif get_origin(kind) is tuple:
        if not isinstance(value, tuple):
            raise ValueError(f"{name}: got {value!r}, takes a list")
        for item in value:
            _check(name, item, typing.Annotated[get_args(kind)[0], *ranges] if ranges else get_args(kind)[0])
        return
    elif kind in (bool, int, float, str):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number if kind is float else isinstance(value, kind) and (number or kind is not int)
        if not fits:
            raise ValueError(f"{name}: got {value!r}, takes {_NAMES[kind]}")
    for bounds in ranges:
        if value not in bounds:
            raise ValueError(f"{name}: got {value!r}, takes {bounds}")


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
