"""What simulators say about options and names that they do not know: one line, nearest right word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from envs.contract import UnsupportedEnv


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """``"; did you mean 'X'?"`` for the nearest of ``words``, or "" where none is near."""
    by_lower = {known.lower(): known for known in words}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def reject_unknown(env_id: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise where ``options`` has a name that ``env_id`` does not take.

    Raises:
        UnsupportedEnv: names the option and the nearest right one, or all of them.
    """
    names = sorted(known)
    for option in options:
        if option not in names:
            hint = did_you_mean(option, names) or f"; its options are {', '.join(names) or 'none'}"
            raise UnsupportedEnv(f"{env_id} has no option {option!r}{hint}")


def whole(env_id: str, option: str, value: Any, least: int = 1) -> int:
    """``value`` as an int of at least ``least``.

    Raises:
        UnsupportedEnv: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UnsupportedEnv(
            f"{env_id}: option {option}: got {value!r}, takes a whole number of at least {least}"
        )
    return value
