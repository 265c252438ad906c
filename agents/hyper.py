"""Bounds of hyperparameters, declared beside them: ``lr: Annotated[float, positive()] = 1e-3``."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin


class BadValue(ValueError):
    """A setting has the wrong type or is out of bounds: which, what it got, what it takes."""


@dataclass(frozen=True)
class Range:
    """An interval that a number has to lie in; NaN and infinity never do."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        return _finite(value) and above and value <= self.high

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"a number {'above' if self.low_open else 'of at least'} {self.low:g}"
        return f"a number in {'(' if self.low_open else '['}{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Search:
    """Where a sweep looks for a good value, beside its bounds: ``Search("log", 1e-4, 1e-2)``.

    Both ends may be taken. It bounds nothing, and no configuration knows of it.
    """

    scale: Literal["linear", "log"]
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.scale == "log" and self.low <= 0):
            raise ValueError(f"{self}: takes the lower end first, above 0 where it has a logarithm")


@dataclass(frozen=True)
class Later:
    """A setting that came later: a configuration that has its default says nothing of it, as those before."""


def positive(high: float = math.inf) -> Range:
    """Greater than 0, up to ``high``."""
    return Range(0, high, low_open=True)


def at_least(low: float) -> Range:
    """``low`` or more."""
    return Range(low)


def unit() -> Range:
    """From 0 to 1."""
    return Range(0, 1)


@dataclass(frozen=True)
class Kind:
    """What a setting takes: a scalar type, or one of some choices, or a list of such."""

    scalar: type  # bool, int, float or str
    choices: tuple[Any, ...] = ()  # of a Literal
    ranges: tuple[Range, ...] = ()  # all of them hold
    many: bool = False
    later: bool = False  # see `Later`

    def __str__(self) -> str:
        if self.choices:
            one = "one of " + ", ".join(str(choice) for choice in self.choices)
        else:
            one = _NAMES[self.scalar]
        return f"a list, each {one}" if self.many else one


def kinds(config: type) -> Mapping[str, Kind]:
    """The kind of each field of a dataclass, in order.

    Raises:
        TypeError: a field is neither bool, int, float, str, a Literal, nor ``tuple[X, ...]`` of one.
    """
    return _kinds(config)


@functools.cache  # reading annotations takes milliseconds
def _kinds(config: type) -> Mapping[str, Kind]:
    hints = typing.get_type_hints(config, include_extras=True)
    found = {field.name: kind_of(hints[field.name]) for field in dataclasses.fields(config)}
    return types.MappingProxyType(found)


def kind_of(hint: Any) -> Kind:
    """The kind that a type annotation stands for."""
    if hasattr(hint, "__metadata__"):
        ranges = tuple(extra for extra in hint.__metadata__ if isinstance(extra, Range))
        inner = kind_of(get_args(hint)[0])
        later = inner.later or any(isinstance(extra, Later) for extra in hint.__metadata__)
        return dataclasses.replace(inner, ranges=inner.ranges + ranges, later=later)
    if get_origin(hint) is Literal:
        return Kind(type(get_args(hint)[0]), choices=get_args(hint))
    if get_origin(hint) is tuple and get_args(hint)[1:] == (...,):
        return dataclasses.replace(kind_of(get_args(hint)[0]), many=True)
    if hint in _NAMES:
        return Kind(hint)
    raise TypeError(
        f"a setting cannot be a {hint}: bool, int, float, str, Literal or tuple[X, ...]"
    )


def searches(config: type) -> dict[str, Search]:
    """The fields of a dataclass that say where to look for a good value, in order."""
    hints = typing.get_type_hints(config, include_extras=True)
    found = {
        field.name: [
            one for one in getattr(hints[field.name], "__metadata__", ()) if isinstance(one, Search)
        ]
        for field in dataclasses.fields(config)
    }
    return {name: some[0] for name, some in found.items() if some}


def check(config: Any) -> None:
    """Check every field of a dataclass against its annotation; call it from ``__post_init__``.

    Raises:
        BadValue: a wrong type or a value out of bounds: which field, what it got, what it takes.
    """
    for name, kind in kinds(type(config)).items():
        check_value(name, getattr(config, name), kind)


def check_value(name: str, value: Any, kind: Kind) -> None:
    """Check one value, as `check` does."""
    if kind.many:
        if not isinstance(value, tuple):
            raise BadValue(f"{name}: got {value!r}, takes {kind}")
        for item in value:
            check_value(name, item, dataclasses.replace(kind, many=False))
    elif not _fits(value, kind):
        raise BadValue(f"{name}: got {value!r}, takes {kind}")
    else:
        for bounds in kind.ranges:
            if value not in bounds:
                raise BadValue(f"{name}: got {value!r}, takes {bounds}")


def _fits(value: Any, kind: Kind) -> bool:
    if kind.choices:
        # True == 1, so the type has to fit too
        return any(value == choice and type(value) is type(choice) for choice in kind.choices)
    if kind.scalar is bool or isinstance(value, bool):
        return kind.scalar is bool and isinstance(value, bool)
    if kind.scalar is float:
        return isinstance(value, int | float) and _finite(value)
    return isinstance(value, kind.scalar)


def _finite(value: float) -> bool:
    # isfinite would turn a whole number into a float first, and overflow on a long one
    return isinstance(value, int) or math.isfinite(value)


_NAMES: types.MappingProxyType[type, str] = types.MappingProxyType(
    {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
)
