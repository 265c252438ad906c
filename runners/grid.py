"""Values of settings from a command line, ``NAME=VALUES``, and all combinations of them."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from runners.errors import BadInput

Values = Sequence[Any]  # JSON scalars
MOST = 10_000  # combinations: more are a slip of a finger

_RANGE = re.compile(
    r"(?P<log>log:)?(?P<low>[^.,:]\S*?)\.\.(?P<high>[^.,:][^,:]*)(?::(?P<count>.*))?"
)
EXAMPLE = "as in gravity=5,9.8,15 or gravity=5..15:11"


def read_settings(texts: Iterable[str], flag: str = "--set") -> dict[str, Values]:
    """The values of each setting, in the order in which they are named.

    ======================  ==========================================================
    ``gravity=5,9.8,15``    these; JSON scalars where they are such, else texts; a
                            text with a comma stands in double quotes
    ``gravity=5..15:11``    so many, evenly spaced, both ends among them
    ``lr=log:1e-4..1:5``    so many, evenly spaced in their logarithms
    ======================  ==========================================================

    Raises:
        BadInput: a text is not of this form, a setting or a value is named twice, or a range's ends
            are swapped.
    """
    named = split_settings(texts, flag)
    settings = {name: read_values(f"{flag} {name}", text) for name, text in named.items()}
    combinations = math.prod(len(values) for values in settings.values())
    if combinations > MOST:
        raise BadInput(f"{flag}: {combinations:,} combinations, takes at most {MOST:,}")
    return settings


def split_settings(texts: Iterable[str], flag: str = "--set") -> dict[str, str]:
    """The text of each setting's values, which nobody has read yet.

    Raises:
        BadInput: a text is not NAME=VALUES, or a setting is named twice.
    """
    settings: dict[str, str] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not re.fullmatch(r"\w+", name) or not equals or not values.strip():
            raise BadInput(f"{flag}: got {text!r}, takes NAME=VALUES, {EXAMPLE}")
        if name in settings:
            raise BadInput(f"{flag}: {name} is set twice; name all its values in one")
        settings[name] = values
    return settings


def combinations(settings: Mapping[str, Values]) -> Iterator[dict[str, Any]]:
    """Every combination, the last setting's values changing fastest; one without any of none."""
    for values in itertools.product(*settings.values()):
        yield dict(zip(settings, values, strict=True))


def written(value: Any) -> str:
    """A value as a person writes it.

    >>> [written(value) for value in (5, 9.8, True, "sync", 0.1 + 0.2)]
    ['5', '9.8', 'true', 'sync', '0.3']
    """
    if isinstance(value, float):
        return f"{value:.10g}"
    return value if isinstance(value, str) else json.dumps(value)


def read_values(what: str, text: str) -> Values:
    """The values that a text names; ``what`` says of what, for messages."""
    if (ends := read_ends(what, text)) is not None:
        return _between(what, ends)
    try:
        (parts,) = csv.reader([text], strict=True, skipinitialspace=True)
    except (csv.Error, ValueError) as error:
        raise BadInput(f"{what}: got {text!r}: a quote is not closed") from error
    values = [_scalar(what, part.strip()) for part in parts]
    for i, value in enumerate(values):
        if any(value == other and type(value) is type(other) for other in values[:i]):
            raise BadInput(f"{what}: {written(value)} is named twice")
    return values


def _scalar(what: str, text: str) -> Any:
    if not text:
        raise BadInput(f"{what}: a value is missing, {EXAMPLE}")
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{what}: got {text}, takes finite numbers")
    return text if isinstance(value, list | dict) or value is None else value


class Ends(NamedTuple):
    """A range as somebody wrote it."""

    text: str
    low: float
    high: float
    log: bool
    whole: bool  # both ends are written as whole numbers
    number: str  # of its values, as written; empty where none is


def read_ends(what: str, text: str) -> Ends | None:
    """The range that a text names, as in ``log:1e-4..1`` or ``5..15:11``; None where it names none.

    Raises:
        BadInput: its ends are swapped, not finite or no numbers, or have no logarithm.
    """
    if not (found := _RANGE.fullmatch(text.strip())):
        return None
    try:
        low, high = float(found["low"]), float(found["high"])
    except ValueError as error:
        raise BadInput(f"{what}: got {text}, takes numbers at the ends of a range") from error
    if not math.isfinite(low) or not math.isfinite(high):
        raise BadInput(f"{what}: got {text}, takes finite numbers")
    if low >= high:
        right = f"{found['high']}..{found['low']}"
        raise BadInput(f"{what}: got {text}, takes the lower end first: {right}")
    if found["log"] and low <= 0:
        raise BadInput(f"{what}: got {text}, takes numbers above 0 where they have logarithms")
    # 100..500 are whole numbers; 1.0..3.0 are not
    whole = {found["low"], found["high"]} <= {str(int(low)), str(int(high))}
    return Ends(text, low, high, bool(found["log"]), whole, found["count"] or "")


def _between(what: str, ends: Ends) -> Values:
    import numpy as np

    low, high = ends.low, ends.high
    if not ends.number.isdecimal() or int(ends.number) < 2:
        raise BadInput(f"{what}: got {ends.text}, takes how many values behind it, as in 5..15:11")
    if int(ends.number) > MOST:
        raise BadInput(f"{what}: got {ends.number} values, takes at most {MOST:,}")
    space = np.geomspace if ends.log else np.linspace
    inner = space(low, high, int(ends.number))[1:-1]
    # as many digits as a person wants to read, where those tell them apart
    short = [low, *(float(f"{value:.6g}") for value in inner), high]
    values = short if len({*short}) == len(short) else [low, *inner.tolist(), high]
    if ends.whole and all(value.is_integer() for value in values):
        return [int(value) for value in values]
    return values
