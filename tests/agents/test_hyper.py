from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from agents.hyper import BadValue, Range, at_least, check, kinds, positive, unit


@dataclass(frozen=True)
class Config:
    lr: Annotated[float, positive()] = 1e-3
    steps: Annotated[int, at_least(1)] = 5
    gamma: Annotated[float, unit()] = 0.99
    free: float = 0.0
    double: bool = False
    name: str = "x"
    rule: Literal["sum", "mean"] = "sum"
    count: Literal[0, 1] = 0
    hidden: tuple[Annotated[int, at_least(1)], ...] = (64, 64)

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    "good",
    [
        {"lr": 1},  # a whole number is a number
        {"gamma": 0.0},
        {"gamma": 1.0},
        {"free": -1e300},
        {"steps": 10**400},
        {"rule": "mean"},
        {"hidden": ()},
        {"double": True},
    ],
    ids=str,
)
def test_accepts(good):
    Config(**good)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"lr": 0.0}, "lr: got 0.0, takes a number above 0"),
        ({"lr": float("nan")}, "lr: got nan, takes a number"),
        ({"lr": float("inf")}, "lr: got inf, takes a number"),
        ({"free": float("nan")}, "free: got nan, takes a number"),
        ({"free": float("-inf")}, "free: got -inf, takes a number"),
        ({"lr": "1"}, "lr: got '1', takes a number"),
        ({"lr": True}, "lr: got True, takes a number"),
        ({"lr": None}, "lr: got None, takes a number"),
        ({"steps": 2.0}, "steps: got 2.0, takes a whole number"),
        ({"steps": True}, "steps: got True, takes a whole number"),
        ({"steps": 0}, "steps: got 0, takes a number of at least 1"),
        ({"gamma": 1.01}, "gamma: got 1.01, takes a number in [0, 1]"),
        ({"double": 1}, "double: got 1, takes true or false"),
        ({"name": 1}, "name: got 1, takes a text"),
        ({"rule": "max"}, "rule: got 'max', takes one of sum, mean"),
        ({"rule": []}, "rule: got [], takes one of sum, mean"),
        ({"count": True}, "count: got True, takes one of 0, 1"),
        ({"hidden": 64}, "hidden: got 64, takes a list, each a whole number"),
        ({"hidden": (64, 0)}, "hidden: got 0, takes a number of at least 1"),
        ({"hidden": (64, "a")}, "hidden: got 'a', takes a whole number"),
    ],
    ids=str,
)
def test_refuses_in_one_line(bad, message):
    with pytest.raises(BadValue) as caught:
        Config(**bad)
    assert str(caught.value) == message


def test_ranges_print_their_open_ends():
    assert str(positive(1)) == "a number in (0, 1]"
    assert 0 not in positive(1)
    assert 1 in positive(1)
    assert str(Range(-1, 1)) == "a number in [-1, 1]"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_no_range_holds_what_is_not_finite(value):
    assert value not in Range()
    assert value not in at_least(-1)


def test_an_annotation_that_cannot_be_checked_is_the_authors_mistake():
    @dataclass
    class Odd:
        x: dict = None  # type: ignore[assignment]

    with pytest.raises(TypeError, match="dict"):
        kinds(Odd)
