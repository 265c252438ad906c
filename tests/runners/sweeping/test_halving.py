"""Who goes on: golden cases by hand, and a slow twin that plays the rules out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.sweeping.halving import Fate, fates, promoted


def states(pruner, rungs, trials, scores):
    return [f"{fate.state} {fate.rung}" for fate in fates(pruner, rungs, trials, scores)]


def test_of_three_one_goes_on_and_at_least_one():
    numbers = [sum(promoted(float(i), range(n)) for i in range(n)) for n in (1, 2, 3, 5, 6, 9)]
    assert numbers == [1, 1, 1, 1, 2, 3]


def test_without_a_pruner_there_is_one_rung():
    assert states("none", 1, 3, {(0, 0): 1.0, (2, 0): None}) == ["done 0", "due 0", "failed 0"]


def test_successive_halving_waits_for_all_of_a_rung():
    scores = {(0, 0): 5.0, (1, 0): 9.0, (2, 0): 7.0}
    assert states("sha", 2, 4, scores) == ["waiting 0"] * 3 + ["due 0"]
    scores[3, 0] = None  # of three that have scores one goes on
    assert states("sha", 2, 4, scores) == ["pruned 0", "due 1", "pruned 0", "failed 0"]
    scores[1, 1] = 4.0
    assert states("sha", 2, 4, scores)[1] == "done 1"
    scores[1, 1] = None
    assert states("sha", 2, 4, scores)[1] == "failed 1"


@pytest.mark.parametrize("pruner", ["sha", "asha"])
def test_equals_go_on_together_for_the_rung_has_told_nothing(pruner):
    scores = {(t, 0): 1.0 for t in range(6)}
    assert states(pruner, 2, 6, scores) == ["due 1"] * 6
    scores[5, 0] = 0.5
    assert states(pruner, 2, 6, scores) == ["due 1"] * 5 + ["pruned 0"]


def test_asha_compares_with_those_before_alone():
    scores = {(0, 0): 5.0, (2, 0): 7.0}
    assert states("asha", 2, 3, scores) == ["due 1", "due 0", "waiting 0"]
    scores[1, 0] = 4.0
    assert states("asha", 2, 3, scores) == ["due 1", "pruned 0", "due 1"]
    scores[1, 0] = 6.0  # better than all before it, as 7 is
    assert states("asha", 2, 3, scores) == ["due 1", "due 1", "due 1"]
    scores[1, 0] = None
    assert states("asha", 2, 3, scores) == ["due 1", "failed 0", "due 1"]


def slow(pruner, rungs, everyone):
    """The rules played out where every score is known: (trial, rung) -> goes on."""
    goes_on = {}
    entrants = list(range(len(everyone)))
    for rung in range(rungs):
        arrived = [t for t in entrants if everyone[t][rung] is not None]
        kept = []
        for i, t in enumerate(arrived):
            rivals = arrived if pruner == "sha" else arrived[: i + 1]
            last = sorted((everyone[r][rung] for r in rivals), reverse=True)[
                max(1, len(rivals) // 3) - 1
            ]
            if everyone[t][rung] >= last:
                kept.append(t)
        goes_on[rung] = set(kept)
        entrants = kept
    return goes_on


tables = st.lists(
    st.tuples(*[st.one_of(st.none(), st.integers(0, 9).map(float))] * 3), min_size=1, max_size=14
)


@pytest.mark.parametrize("pruner", ["sha", "asha"])
@given(everyone=tables, data=st.data())
def test_in_whatever_order_scores_come_the_same_trials_go_on(pruner, everyone, data):
    scores = {}
    while True:
        found = fates(pruner, 3, len(everyone), scores)
        due = [(t, fate.rung) for t, fate in enumerate(found) if fate.state == "due"]
        if not due:
            break
        trial, rung = data.draw(st.sampled_from(due))
        scores[trial, rung] = everyone[trial][rung]
    assert all(fate.ended for fate in found)  # nobody waits for ever
    goes_on = slow(pruner, 3, everyone)
    for trial, fate in enumerate(found):
        came_to = 0
        while came_to < 2 and trial in goes_on[came_to]:
            came_to += 1
        if everyone[trial][came_to] is None:
            assert fate == Fate("failed", came_to)
        else:
            assert fate == Fate("done" if came_to == 2 else "pruned", came_to)
    assert len(scores) == sum(fate.rung + 1 for fate in found)  # and nothing more was trained
