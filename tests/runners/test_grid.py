"""Settings on a command line: what they mean, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.errors import BadInput
from runners.grid import combinations, read_settings, written


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("g=5,9.8,15", [5, 9.8, 15]),
        ("g=5", [5]),
        ("g=-1e-3, 2", [-0.001, 2]),
        ("g=true,false", [True, False]),
        ("g=4x4,8x8", ["4x4", "8x8"]),
        ("g=a..b,c", ["a..b", "c"]),
        ('g="0.7,2","0.8,2"', ["0.7,2", "0.8,2"]),
        ("g=1,1.5,true", [1, 1.5, True]),  # 1 and true are two values
        ("g=a=b", ["a=b"]),
        ("g=[1]", ["[1]"]),
        ("g=null", ["null"]),
        ("g=5..15:3", [5, 10, 15]),
        ("g=0..1:5", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("g=-1.5..1.5:2", [-1.5, 1.5]),
        ("g=log:1e-4..1e-2:3", [1e-4, 1e-3, 1e-2]),
        ("g=log:1..16:5", [1, 2, 4, 8, 16]),
        ("g=log:0.25..1:3", [0.25, 0.5, 1.0]),
        ("g=0..1:4", [0.0, 0.333333, 0.666667, 1.0]),
        ("g=100000..100001:3", [100000.0, 100000.5, 100001.0]),
    ],
)
def test_values(text, values):
    read = read_settings([text])["g"]
    assert read == pytest.approx(values) if isinstance(values[0], float) else read == values
    assert list(map(type, read)) == list(map(type, values))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["gravity"], "got 'gravity', takes NAME=VALUES, as in gravity=5,9.8,15"),
        (["=5"], "got '=5', takes NAME=VALUES"),
        (["gravity="], "got 'gravity=', takes NAME=VALUES"),
        (["5,9=gravity"], "got '5,9=gravity', takes NAME=VALUES"),
        (["gra vity=5"], "takes NAME=VALUES"),
        (["g=5", "h=1", "g=6"], "g is set twice; name all its values in one"),
        (["g=5,6,5"], "--set g: 5 is named twice"),
        (["g=5,,6"], "--set g: a value is missing"),
        (["g=5,"], "--set g: a value is missing"),
        (["g=NaN"], "--set g: got NaN, takes finite numbers"),
        (["g=1,-Infinity"], "got -Infinity, takes finite numbers"),
        (["g=1e999"], "takes finite numbers"),
        (['g="0.7,2'], "a quote is not closed"),
        (["g=15..5:3"], "got 15..5:3, takes the lower end first: 5..15"),
        (["g=5..5:3"], "takes the lower end first"),
        (["g=5..15"], "got 5..15, takes how many values behind it, as in 5..15:11"),
        (["g=5..15:1"], "takes how many values"),
        (["g=5..15:x"], "takes how many values"),
        (["g=5..15:-3"], "takes how many values"),
        (["g=5..high:3"], "takes numbers at the ends of a range"),
        (["g=0..1:20000"], "got 20000 values, takes at most 10,000"),
        (["g=log:0..1:3"], "takes numbers above 0 where they have logarithms"),
        (["g=log:-1..1:3"], "takes numbers above 0"),
        (["g=1..inf:3"], "takes finite numbers"),
        (["a=0..1:101", "b=0..1:101"], "10,201 combinations, takes at most 10,000"),
    ],
)
def test_what_is_refused_is_one_line(texts, message):
    with pytest.raises(BadInput) as error:
        read_settings(texts)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_all_combinations_in_order():
    settings = read_settings(["b=1,2", "a=x,y"])
    assert list(settings) == ["b", "a"]
    assert list(combinations(settings)) == [
        {"b": 1, "a": "x"}, {"b": 1, "a": "y"}, {"b": 2, "a": "x"}, {"b": 2, "a": "y"},
    ]  # fmt: skip
    assert list(combinations({})) == [{}]


@given(st.lists(st.integers() | st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_are_read_as_they_are_written(numbers):
    once = [
        n for i, n in enumerate(numbers) if (n, type(n)) not in [(m, type(m)) for m in numbers[:i]]
    ]
    text = ",".join(map(repr, once))
    assert read_settings([f"g={text}"])["g"] == once


@given(st.text())
def test_any_text_is_values_or_refused(text):
    try:
        values = read_settings([f"g={text}"])["g"]
    except BadInput:
        return
    assert values
    assert all(not isinstance(v, float) or math.isfinite(v) for v in values)
    assert all(isinstance(written(v), str) for v in values)
