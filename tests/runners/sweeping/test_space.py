"""Where a sweep looks: what is declared, what --set says, and what it may not say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import AGENTS
from agents.hyper import Search, check_value, kinds, searches
from runners.config import hyper_class, to_json
from runners.errors import BadInput
from runners.resolve import make_config
from runners.sweeping.space import Dimension, describe, from_json, read_space


def space_of(*texts, agent="dqn", fixed=(), declared=False):
    return {one.name: one for one in read_space(agent, texts, fixed, declared)}


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_says_where_to_look_and_can_be_set_so(agent):
    cls = hyper_class(agent)
    known = kinds(cls)
    found = searches(cls)
    assert found
    for name, search in found.items():
        number = int if known[name].scalar is int else float
        for end in (search.low, search.high):
            assert number(end) == end
            check_value(name, number(end), known[name])
    for ends in ("low", "high"):  # all at one end go together
        cls(**{n: (int if known[n].scalar is int else float)(getattr(s, ends))
               for n, s in found.items()})  # fmt: skip


def test_a_declared_range_is_in_no_configuration():
    config = make_config("dqn", steps=1000)
    assert "Search" not in str(to_json(config))
    assert to_json(config)["hyper"]["lr"] == 2e-3  # the preset's


def test_what_an_agent_does_not_use_is_not_searched():
    assert "lr" not in searches(hyper_class("r_max"))
    assert "lr" not in searches(hyper_class("monte_carlo"))
    assert "epsilon_end" not in searches(hyper_class("rainbow"))  # noise explores
    assert "n_step" not in searches(hyper_class("rnd"))


def test_settings_override_and_add_to_the_declared_ranges():
    own = space_of(declared=True)
    assert list(own) == ["lr", "gamma", "n_step", "target_period", "epsilon_end"]
    assert own["lr"] == Dimension("lr", "log", 1e-4, 1e-2)
    assert own["n_step"] == Dimension("n_step", "linear", 1, 10, whole=True)
    more = space_of("lr=1e-3..2e-3", "double=true,false", declared=True, fixed={"gamma", "n_step"})
    assert list(more) == ["lr", "target_period", "epsilon_end", "double"]
    assert more["lr"] == Dimension("lr", "linear", 1e-3, 2e-3)
    assert more["double"].choices == (True, False)


def test_values_of_every_form():
    found = space_of(
        "n_step=1,3,5", "lr=log:1e-4..1e-2:3", "batch_size=log:16..256", "gamma=1,0.9",
        "hidden=64 64,32", "memory=lstm,none", "lanes=4,8",
    )  # fmt: skip
    assert found["n_step"].choices == (1, 3, 5)
    assert found["lr"].choices == (1e-4, 1e-3, 1e-2)
    assert found["batch_size"] == Dimension("batch_size", "log", 16, 256, whole=True)
    assert found["gamma"].choices == (1.0, 0.9)
    assert all(type(value) is float for value in found["gamma"].choices)
    assert found["hidden"].choices == ((64, 64), (32,))
    assert found["memory"].choices == ("lstm", "none")
    assert found["lanes"].choices == (4, 8)
    assert space_of("lambda=0.5..0.9", agent="pqn")["lambda_"].low == 0.5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr", r"got 'lr', takes NAME=VALUES"),
        ("learning_rate=1e-3,1e-4", r"learning_rate: unknown; it is called lr here"),
        ("n_steps=1,3", r"n_steps: dqn has no such hyperparameter; did you mean n_step\?"),
        ("zzz=1,3", r"zzz: dqn has no such hyperparameter; it has lr, gamma,"),
        ("steps=100,200", r"steps: all trials have the same; .* takes lanes and rollout_length"),
        ("lr=1e-2..1e-4", r"lr: got 1e-2..1e-4, takes the lower end first: 1e-4..1e-2"),
        ("lr=log:0..1e-2", r"lr: got log:0..1e-2, takes numbers above 0"),
        ("lr=0..1e-2", r"lr: got 0.0, takes a number above 0"),
        ("gamma=0.9..1.1", r"gamma: got 1.1, takes a number in \[0, 1\]"),
        ("n_step=1.5", r"n_step: got 1.5, takes a whole number"),
        ("n_step=1,1.5", r"n_step: got 1.5, takes a whole number"),
        ("n_step=1..3.5", r"n_step: got 1..3.5, takes whole numbers"),
        ("n_step=0..3", r"n_step: got 0, takes a number of at least 1"),
        ("double=0..1", r"double: got 0..1, takes values: it has no range"),
        ("memory=lstm,gru", r"memory: got 'gru', takes one of none, lstm, attention"),
        ("hidden=64 x,32", r"hidden: got 'x', takes a whole number"),
        ("lr=1e-3", r"lr: one value, 0.001, is nothing to search: --lr 0.001"),
        ("gamma=0.9,0.9", r"gamma: 0.9 is named twice"),
    ],
)
def test_what_cannot_be_is_answered_in_one_line(setting, message):
    with pytest.raises(BadInput, match=r"^--set:? " + message):
        space_of(setting)


def test_a_setting_has_a_range_or_is_fixed():
    with pytest.raises(BadInput, match=r"^--set lr: --lr fixes it; leave one of the two out"):
        space_of("lr=1e-4..1e-2", fixed={"lr"})
    own = searches(hyper_class("dqn"))
    with pytest.raises(BadInput, match=r"^nothing to search: dqn's own ranges are all fixed"):
        space_of(fixed=own, declared=True)
    with pytest.raises(BadInput, match=r"^nothing to search: a grid takes only --set"):
        space_of()


def test_equal_shares_of_the_places_go_to_equal_parts_of_the_scale():
    log = Dimension("lr", "log", 1e-4, 1e-2)
    assert [log.at(u) for u in (0.0, 0.25, 0.5, 0.75)] == [1e-4, 3.162e-4, 1e-3, 3.162e-3]
    linear = Dimension("gamma", "linear", 0.9, 0.999)
    assert [linear.at(u) for u in (0.0, 0.5)] == [0.9, 0.9495]
    # steps of 0.0001 from 0 to 0.1, and 0.01 from 0 to 10
    assert Dimension("epsilon_end", "linear", 0.0, 0.1).at(1e-4) == 0.0
    assert Dimension("epsilon_end", "linear", 0.0, 0.1).at(0.12345) == 0.0123
    assert Dimension("v_max", "linear", 0.0, 10.0).at(0.12345) == 1.23
    whole = Dimension("n_step", "linear", 1, 4, whole=True)
    places = [i / 1000 for i in range(1000)]
    counts = [sum(whole.at(u) == n for u in places) for n in (1, 2, 3, 4)]
    assert counts == [250] * 4
    # logarithms: n has ln((n + ½) / (n - ½)) of ln(4.5 / 0.5)
    whole = Dimension("n_step", "log", 1, 4, whole=True)
    for n in (1, 2, 3, 4):
        share = math.log((n + 0.5) / (n - 0.5)) / math.log(9)
        assert abs(sum(whole.at(u) == n for u in places) / 1000 - share) < 0.002
    choice = Dimension("n_step", "choice", choices=(1, 3, 5))
    assert [choice.at(u) for u in (0.0, 0.34, 0.999)] == [1, 3, 5]


@given(st.floats(0, 1, exclude_max=True), st.booleans(), st.booleans())
def test_a_value_is_within_its_range_and_is_written_as_it_is(u, log, whole):
    low, high = (3, 17) if whole else (0.0123456, 0.98765)
    one = Dimension("x", "log" if log else "linear", low, high, whole)
    value = one.at(u)
    assert low <= value <= high
    assert type(value) is (int if whole else float)
    text = describe({"x": value}).removeprefix("x=")
    assert (int if whole else float)(text) == value or value in (low, high)
    assert from_json([1, 2]) == (1, 2)


def test_a_search_whose_ends_are_swapped_is_a_fault_of_the_agent():
    with pytest.raises(ValueError, match="lower end first"):
        Search("linear", 2, 1)
    with pytest.raises(ValueError, match="above 0"):
        Search("log", 0.0, 1.0)


def test_how_many_values_there_are():
    sizes = space_of("n_step=1,3", "batch_size=16..31", "lr=1e-4..1e-2")
    assert [one.size for one in sizes.values()] == [2, 16, math.inf]
