"""The settings that a sweep searches, and where it looks for each of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agents.hyper import Kind, check_value, kinds, searches
from runners.config import RUN_KINDS, Json, hyper_class
from runners.errors import BadInput, nearest
from runners.flag_names import OTHER_NAMES
from runners.grid import Ends, Values, read_ends, read_values, split_settings, written

DIGITS = 4  # of a number from a range: as many as a person wants to read and to type again
RUN_SETTINGS = ("lanes", "rollout_length")
"""Settings of a run that may be searched beside hyperparameters: others change what is compared."""

Space = tuple["Dimension", ...]


@dataclass(frozen=True)
class Dimension:
    """A setting and its values: a range of numbers, both ends included, or choices."""

    name: str
    scale: Literal["linear", "log", "choice"]
    low: float = math.nan  # of a range
    high: float = math.nan
    whole: bool = False  # its numbers are whole
    choices: tuple[Any, ...] = ()  # JSON scalars, or tuples of them

    @property
    def size(self) -> float:
        """How many different values there are; infinite of numbers that are not whole."""
        if self.scale == "choice":
            return len(self.choices)
        return self.high - self.low + 1 if self.whole else math.inf

    def at(self, u: float) -> Any:
        """The value at a place in [0, 1): equal shares of it go to equal parts of the scale."""
        if self.scale == "choice":
            return self.choices[int(u * len(self.choices))]
        # each whole number has the share of the numbers that round to it
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        if self.scale == "log":
            value = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
        else:
            value = low + u * (high - low)
        return self.rounded(value)

    def rounded(self, value: float) -> Any:
        """The nearest number of the range that is whole, or has few digits: four of a logarithm's."""
        if self.whole:
            return int(min(max(math.floor(value + 0.5), self.low), self.high))
        if self.scale == "log":
            short = float(f"{value:.{DIGITS}g}")
        else:  # the range has a thousand steps or more
            short = round(value, DIGITS - 1 - math.floor(math.log10(self.high - self.low)))
        return min(max(short, self.low), self.high)

    def to_json(self) -> Json:
        """What there is to say, as JSON values."""
        if self.scale == "choice":
            return {"name": self.name, "choices": [_plain(value) for value in self.choices]}
        return {"name": self.name, "scale": self.scale, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        if self.scale == "choice":
            return f"{self.name}={','.join(shown(value) for value in self.choices)}"
        log = "log:" * (self.scale == "log")
        return f"{self.name}={log}{self.low:g}..{self.high:g}"


def shown(value: Any) -> str:
    """A value as a person writes it: ``64 64`` of several numbers.

    >>> shown((64, 32)), shown(0.001), shown(True)
    ('64 32', '0.001', 'true')
    """
    return " ".join(map(written, value)) if isinstance(value, tuple) else written(value)


def describe(values: Mapping[str, Any]) -> str:
    """Values in words: ``lr=0.0012, n_step=3``."""
    return ", ".join(f"{name}={shown(value)}" for name, value in values.items())


def from_json(value: Any) -> Any:
    """A value as a ledger has it: JSON knows no tuples."""
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def read_space(
    agent: str, texts: Iterable[str], fixed: Iterable[str], declared: bool = True
) -> Space:
    """Where a sweep of an agent looks: its own ranges, with those that somebody set over them.

    Args:
        agent: its name.
        texts: settings as ``lr=log:1e-4..1e-2``, ``gamma=0.9..0.999``, ``n_step=1,3,5`` or
            ``lr=log:1e-4..1e-2:5``, which are five values; ``hidden=64 64,128`` of lists.
        fixed: settings that have one value, and are not searched.
        declared: whether the agent's own ranges are searched too.

    Raises:
        BadInput: a name is unknown or fixed, a range or a value cannot be, nothing is searched.
    """
    fixed, space = set(fixed), {}
    known = {**{name: RUN_KINDS[name] for name in RUN_SETTINGS}, **kinds(hyper_class(agent))}
    for name, search in searches(hyper_class(agent)).items() if declared else ():
        whole = known[name].scalar is int
        space[name] = Dimension(name, search.scale, search.low, search.high, whole)
    asked = split_settings(texts)
    for given, text in asked.items():
        name = _known(agent, given, known)
        if name in fixed:
            flag = f"--{name.strip('_').replace('_', '-')}"
            raise BadInput(f"--set {name}: {flag} fixes it; leave one of the two out")
        space[name] = _read(name, text, known[name])
    searched = tuple(one for one in space.values() if one.name not in fixed)
    if not searched:
        which = f"{agent}'s own ranges are all fixed" if declared else "a grid takes only --set"
        raise BadInput(f"nothing to search: {which}; as in --set lr=log:1e-4..1e-2:5")
    return searched


def _known(agent: str, name: str, known: Mapping[str, Kind]) -> str:
    """The setting that is meant; lambda stands for lambda_, as on the command line."""
    for one in (name, f"{name}_"):
        if one in known:
            return one
    if (other := OTHER_NAMES.get(name.replace("_", "-"), "").replace("-", "_")) in known:
        raise BadInput(f"--set {name}: unknown; it is called {other} here")
    if name in RUN_KINDS:
        raise BadInput(
            f"--set {name}: all trials have the same; of the run's own settings a sweep takes "
            f"{' and '.join(RUN_SETTINGS)}"
        )
    hint = nearest(name, known) or f"; it has {', '.join(kinds(hyper_class(agent)))}"
    raise BadInput(f"--set {name}: {agent} has no such hyperparameter{hint}")


def _read(name: str, text: str, kind: Kind) -> Dimension:
    what = f"--set {name}"
    ends = read_ends(what, text)
    if ends is not None and not ends.number:
        return _range(name, ends, kind)
    values = [_value(what, value, kind) for value in read_values(what, text)]
    if len(values) == 1:
        value = shown(values[0])
        raise BadInput(f"{what}: one value, {value}, is nothing to search: --{name} {value}")
    return Dimension(name, "choice", choices=tuple(values))


def _range(name: str, ends: Ends, kind: Kind) -> Dimension:
    what, whole = f"--set {name}", kind.scalar is int
    if kind.many or kind.choices or kind.scalar not in (int, float):
        raise BadInput(f"{what}: got {ends.text}, takes values: it has no range, being {kind}")
    if whole and not ends.whole:
        raise BadInput(f"{what}: got {ends.text}, takes whole numbers")
    for end in (ends.low, ends.high):
        _check(what, int(end) if whole else end, kind)
    return Dimension(name, "log" if ends.log else "linear", ends.low, ends.high, whole)


def _value(what: str, value: Any, kind: Kind) -> Any:
    """One value as the setting takes it."""
    if kind.many:
        one = dataclasses.replace(kind, many=False)
        return tuple(_value(what, part, one) for part in _parts(what, value))
    if kind.scalar is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    _check(what, value, kind)
    return value


def _parts(what: str, value: Any) -> Values:
    """The numbers of ``64 64``."""
    parts: list[Any] = []
    for text in str(value).split():
        parts += read_values(what, text)
    return parts


def _check(what: str, value: Any, kind: Kind) -> None:
    try:
        check_value("", value, kind)
    except ValueError as error:
        raise BadInput(f"{what}{error}") from error


def distinct_values(values: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Each of them once, where it comes first."""
    seen: set[tuple[Any, ...]] = set()
    kept = []
    for one in values:
        key = tuple(one.values())
        if key not in seen:
            seen.add(key)
            kept.append(one)
    return kept
