"""Values of settings from a command line, ``NAME=VALUES``, and all combinations of them."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

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
    settings: dict[str, Values] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not re.fullmatch(r"\w+", name) or not equals or not values.strip():
            raise BadInput(f"{flag}: got {text!r}, takes NAME=VALUES, {EXAMPLE}")
        if name in settings:
            raise BadInput(f"{flag}: {name} is set twice; name all its values in one")
        settings[name] = _values(f"{flag} {name}", values)
    combinations = math.prod(len(values) for values in settings.values())
    if combinations > MOST:
        raise BadInput(f"{flag}: {combinations:,} combinations, takes at most {MOST:,}")
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


def _values(what: str, text: str) -> Values:
    if found := _RANGE.fullmatch(text.strip()):
        return _range(what, text, found)
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


def _range(what: str, text: str, found: re.Match[str]) -> Values:
    import numpy as np

    if not (found["count"] or "").isdecimal() or int(found["count"]) < 2:
        raise BadInput(f"{what}: got {text}, takes how many values behind it, as in 5..15:11")
    if int(found["count"]) > MOST:
        raise BadInput(f"{what}: got {found['count']} values, takes at most {MOST:,}")
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
    space = np.geomspace if found["log"] else np.linspace
    inner = space(low, high, int(found["count"]))[1:-1]
    # as many digits as a person wants to read, where those tell them apart
    short = [low, *(float(f"{value:.6g}") for value in inner), high]
    values = short if len({*short}) == len(short) else [low, *inner.tolist(), high]
    # 100..500:5 are whole numbers; 1.0..3.0:3 are not
    whole = {found["low"], found["high"]} <= {str(int(low)), str(int(high))}
    if whole and all(value.is_integer() for value in values):
        return [int(value) for value in values]
    return values
