"""Verdicts: on equal terms, decided where chance is ruled out, and else with what it would take."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from runners import comparison_json, files, references
from runners.comparison import compare, speed_of
from runners.errors import BadInput
from runners.scores import Curve, Entry, field_of
from runners.verdict import verdict


def entry(agent, finals, env="CartPole-v1", seeds=None, curves=()):
    finals = np.array(finals, float)
    seeds = tuple(range(len(finals))) if seeds is None else tuple(seeds)
    return Entry(agent, env, seeds, finals, tuple(curves), f"{agent}-{env}")


def curve(*points):
    steps, means = np.array(points, float).T
    return Curve(steps, steps / 100, means)


LOW = np.array([10.0, 12, 9, 11, 13, 10, 8, 12, 11, 10])


def test_a_clear_difference_is_decided_and_said():
    found = compare(field_of([entry("weak", LOW), entry("strong", LOW + 100)]))
    (pair,) = found.pairs
    # all ten differences are 100: of 2^10 ways to swap, two are as far apart
    assert pair.p == pytest.approx(2 / 1024)
    assert pair.better == "strong"
    assert pair.more_seeds is None
    assert pair.difference.value == pytest.approx(-100)  # weak - strong
    (line,) = verdict(found)
    assert line.startswith("strong is better than weak: IQM higher by 100 [")
    assert "probability 1.00" in line
    assert found.unit == "return"
    assert set(found.figures["weak"]) == {"IQM", "mean"}


def test_what_is_not_decided_says_how_many_seeds_would():
    found = compare(field_of([entry("a", LOW), entry("b", LOW[::-1] + 1)]))
    (pair,) = found.pairs
    assert pair.better is None
    assert pair.p > 0.05
    # mean 1, standard deviation of the differences 2.4: (2.8 * 2.4)^2 = 45 seeds for the mean
    assert 10 < pair.more_seeds < 100
    assert f"about {pair.more_seeds} more seeds" in verdict(found)[0]
    assert any("a further look" in note for note in found.notes)


def test_so_few_seeds_never_decide_and_the_number_says_so():
    # three pairs give p = 2/8 at the least; 2/2^n <= 0.05 wants n = 6
    found = compare(field_of([entry("a", [1, 2, 3]), entry("b", [101, 102, 103])]))
    (pair,) = found.pairs
    assert pair.better is None
    assert pair.more_seeds == 3
    assert "about 3 more seeds" in verdict(found)[0]
    assert any("3 seeds" in note for note in found.notes)


def test_equal_agents_are_not_told_apart():
    found = compare(field_of([entry("a", LOW), entry("b", LOW)]))
    assert verdict(found) == ["not decided: a and b have the same IQM"]
    found = compare(field_of([entry("a", [0.1 + 0.2] * 6), entry("b", [0.3] * 6)]))
    assert verdict(found) == ["not decided: a and b have the same IQM"]


def test_pairs_share_the_error():
    # by Holm the least p of three pairs counts threefold
    field = field_of([entry("a", LOW), entry("b", LOW + 50), entry("c", LOW + 50.5)])
    found = compare(field)
    assert found.pair("b", "a").p == pytest.approx(3 * 2 / 1024)
    assert [pair.better for pair in found.pairs] == ["b", "c", "c"]


def test_several_environments_are_normalised_by_public_references():
    # random play on CartPole-v1 has 22.12 and the reference 475
    scale = references.of("CartPole-v1")
    one = entry("a", [scale.zero] * 6), entry("a", np.linspace(0, 1, 6), "Strange-v0")
    two = entry("b", [scale.one] * 6), entry("b", np.linspace(0, 1, 6), "Strange-v0")
    found = compare(field_of([*one, *two]))
    assert found.unit == "normalised"
    np.testing.assert_allclose(found.scaled["a"]["CartPole-v1"], 0)
    np.testing.assert_allclose(found.scaled["b"]["CartPole-v1"], 1)
    np.testing.assert_allclose(found.scaled["b"]["Strange-v0"], np.linspace(0, 1, 6))
    assert any("Strange-v0: no reference" in note for note in found.notes)
    assert set(found.figures["a"]) == {"IQM", "median", "mean", "optimality gap"}


def test_all_of_ataris_games_have_a_scale():
    assert len(references.ATARI) == 57
    assert references.of("ALE/Breakout-v5").normalise(np.array([1.7, 30.5])).tolist() == [0, 1]
    assert all(human != random for random, human in references.ATARI.values())
    assert references.of("Nothing-v0") is None


def test_against_the_first_alone_less_is_asked():
    # of three agents two pairs, so that the least p counts twice and not three times
    field = field_of([entry("a", LOW), entry("b", LOW + 50), entry("c", LOW + 50.5)])
    found = compare(field, against_first=True)
    assert [(pair.a, pair.b) for pair in found.pairs] == [("a", "b"), ("a", "c")]
    assert found.pair("a", "b").p == pytest.approx(2 * 2 / 1024)


# -- Equal terms ---------------------------------------------------------------------------------


def test_the_shorter_budget_is_the_common_one():
    # a ends at 100 steps; b is at 100 halfway between 50 (10) and 150 (30): 20
    a = entry("a", [5, 6], curves=[curve((50, 4), (100, 5)), curve((50, 4), (100, 6))])
    b = entry("b", [90, 90], curves=[curve((50, 10), (150, 30), (200, 90))] * 2)
    found = compare(field_of([a, b]))
    assert found.field.entries["b", "CartPole-v1"].finals.tolist() == [20, 20]
    assert found.field.entries["a", "CartPole-v1"].finals.tolist() == [5, 6]
    assert any("budgets differ; compared by evaluations at 100" in note for note in found.notes)


def test_the_same_budget_keeps_the_final_scores():
    a = entry("a", [5, 6], curves=[curve((50, 4), (100, 4))] * 2)
    b = entry("b", [9, 9], curves=[curve((50, 1), (101, 2))] * 2)
    found = compare(field_of([a, b]))
    assert found.field.entries["b", "CartPole-v1"].finals.tolist() == [9, 9]


def test_no_common_budget():
    a = entry("a", [5, 6], curves=[curve((50, 4), (100, 5))] * 2)
    b = entry("b", [9, 9], curves=[curve((500, 10), (1000, 30))] * 2)
    with pytest.raises(BadInput, match="no common budget: b is first evaluated at 500"):
        compare(field_of([a, b]))


def test_steps_that_went_into_resets_leave_a_common_budget():
    # evaluated in the end alone, at 4,000 steps of one and, for resets, a few less of the other
    late, early = curve((4000, 7)), [curve((3896, 5)), curve((3909, 6))]
    here = {"config": {"steps": 4000, "until_solved": False}}
    b = dataclasses.replace(entry("b", [80, 81], curves=early), **here)
    a = dataclasses.replace(entry("a", [90, 91], curves=[late] * 2), **here)
    found = compare(field_of([a, b]))
    assert found.field.entries["a", "CartPole-v1"].finals.tolist() == [90, 91]
    assert any("up to 3% of the steps went into resets" in note for note in found.notes)
    with pytest.raises(BadInput, match="no common budget"):  # nobody says what was asked for
        compare(field_of([dataclasses.replace(a, config=None), b]))


def test_an_evaluation_a_little_later_counts():
    a = entry("a", [90, 91], curves=[curve((2000, 6), (4000, 8))] * 2)
    b = entry("b", [80, 81], curves=[curve((3896, 5)), curve((3909, 6))])
    found = compare(field_of([a, b]))
    assert found.field.entries["a", "CartPole-v1"].finals == pytest.approx([7.896, 7.896])
    assert found.field.entries["b", "CartPole-v1"].finals.tolist() == [5, 6]


def test_only_common_seeds_are_compared():
    a = entry("a", [1, 2, 3, 4], seeds=[0, 1, 2, 3])
    b = entry("b", [30, 40, 50], seeds=[2, 3, 4])
    found = compare(field_of([a, b]))
    assert found.field.entries["a", "CartPole-v1"].finals.tolist() == [3, 4]
    assert found.field.entries["b", "CartPole-v1"].finals.tolist() == [30, 40]
    assert any("compared on the 2 that all have" in note for note in found.notes)


@pytest.mark.parametrize("seeds", [[5, 6], [1, 7]])
def test_too_few_common_seeds(seeds):
    with pytest.raises(BadInput, match="takes at least 2"):
        compare(field_of([entry("a", [1, 2]), entry("b", [1, 2], seeds=seeds)]))


def test_a_score_that_is_no_number():
    with pytest.raises(BadInput, match="nan at seed index 1"):
        compare(field_of([entry("a", [1, np.nan]), entry("b", [1, 2])]))


def test_seeds_that_ended_early_have_no_other_budget_than_the_rest():
    # as with --until-solved: a's seed 0 ended at 100, where its others, and all of b, were at 5
    a = entry("a", [50, 60], curves=[curve((50, 5), (100, 5)), curve((50, 5), (100, 5), (900, 60))])
    b = entry("b", [90, 90], curves=[curve((50, 5), (100, 5)), curve((50, 5), (100, 5), (900, 90))])
    found = compare(field_of([a, b]))
    assert found.field.entries["a", "CartPole-v1"].finals.tolist() == [5, 5]
    assert any("budgets differ; compared by evaluations at 100" in note for note in found.notes)


def test_a_seed_that_is_not_compared_limits_no_budget():
    whole = curve((50, 1), (100, 2))
    a = entry("a", [1, 2, 3], curves=[whole, whole, curve((10, 0), (20, 0))])
    found = compare(field_of([a, entry("b", [5, 6], curves=[whole] * 2)]))
    assert found.field.entries["a", "CartPole-v1"].finals.tolist() == [1, 2]


def started(agent, config=(), **start):
    made = dataclasses.replace(entry(agent, LOW), starts=(start,) if start else ())
    return dataclasses.replace(made, config={"agent": agent, "env_options": {}, **dict(config)})


def test_environments_with_other_options_are_others():
    slippery = {"env_options": {"is_slippery": True}}
    with pytest.raises(
        BadInput, match=r"env_options: got \{\} of a and \{'is_slippery': True\} of b"
    ):
        compare(field_of([started("a"), started("b", slippery)]))
    compare(field_of([started("a", slippery), started("b", slippery), entry("a file", LOW)]))


def test_what_is_not_the_same_of_all_is_noted():
    one = started(
        "a",
        {"final_episodes": 10},
        commit={"hash": "a" * 40, "changed": True},
        versions={"torch": "2"},
    )
    two = started(
        "b",
        {"final_episodes": 99},
        commit={"hash": "a" * 40, "changed": False},
        versions={"torch": "3"},
    )
    three = dataclasses.replace(started("c"), training=True, unfinished=(7, 8))
    notes = compare(field_of([one, two, three])).notes
    assert "commit differs: aaaaaaaaaa changed (a), aaaaaaaaaa (b)" in notes
    assert "torch differs: 2 (a), 3 (b)" in notes
    assert any("10 of a, 99 of b" in note for note in notes)
    assert "CartPole-v1: c: left out, since not done: seed 7, 8" in notes
    assert any("scores of c are of training episodes" in note for note in notes)
    alike = dataclasses.replace(one, agent="d", origin="d", finals=LOW + 99)
    assert not compare(field_of([one, alike])).notes


# -- More than one look --------------------------------------------------------------------------


def test_looks_share_the_error():
    found = compare(field_of([entry("a", LOW), entry("b", LOW + 100)]), planned=[5, 10, 20])
    (pair,) = found.pairs
    # at 5 of 20 seeds a quarter of 5 % may be spent, which 2 of 32 swaps exceed; at 10 half of it
    assert [look.seeds for look in pair.looks.looks] == [5, 10]
    assert pair.better == "b"
    assert "look 2" in verdict(found)[0]


def test_a_scale_that_moves_decides_nothing():
    ones = [entry(agent, LOW, env) for agent in "ab" for env in ("CartPole-v1", "Strange-v0")]
    with pytest.raises(BadInput, match="until-decided: Strange-v0 has no reference"):
        compare(field_of(ones), planned=[5, 10])


def test_what_one_look_would_decide_and_several_do_not_takes_more_seeds():
    # 8 pairs of 10 that differ one way: one test says p < 0.05, the part of the error that look 1 has does not
    rng = np.random.default_rng(3)
    a = entry("a", LOW)
    b = entry("b", LOW + 1.5 + rng.normal(size=10))
    (alone,) = compare(field_of([a, b])).pairs
    found = compare(field_of([a, b]), planned=[10, 80])
    (pair,) = found.pairs
    assert alone.better == "b"
    assert pair.better is None
    assert "not even" not in verdict(found)[0]
    assert pair.more_seeds is not None


def test_what_was_decided_is_told_as_it_was_decided():
    # a is better at 10 seeds, where it is decided; the next 30, that others needed, go against it
    a = entry("a", np.append(LOW + 100, LOW.tolist() * 3))
    b = entry("b", np.append(LOW, (LOW + 500).tolist() * 3))
    c = entry("c", np.append(LOW, (LOW + 500).tolist() * 3))
    found = compare(field_of([a, b, c]), planned=[10, 40])
    assert found.pair("a", "b").better == "a"
    assert found.pair("a", "b").difference.value == pytest.approx(100)
    line = next(line for line in verdict(found) if "look 1" in line and "b" in line)
    assert line.startswith("a is better than b: IQM higher by 100 [")
    assert "probability 1.00" in line


def test_more_pairs_take_more_seeds():
    rng = np.random.default_rng(0)
    a, b = entry("a", rng.normal(size=8)), entry("b", rng.normal(1, size=8))
    far = [entry(name, LOW[:8] + 100 * i) for i, name in enumerate("cdefg", 1)]
    (alone,) = compare(field_of([a, b])).pairs
    among = compare(field_of([a, b, *far])).pair("a", "b")
    assert among.more_seeds > alone.more_seeds


# -- Speed and JSON ------------------------------------------------------------------------------


def test_speed_counts_those_that_never_arrived():
    curves = [curve((100, 0), (200, 10)), curve((100, 10), (200, 10)), curve((100, 0), (200, 0))]
    found = speed_of(entry("a", [10, 10, 0], curves=curves), 200, 10)
    assert (found.steps.reached, found.steps.seeds) == (2, 3)
    assert found.steps.median == 200
    # means over 0..200: 0 to 100 at 0, then rising to 10: 2.5; all at 10; all at 0
    assert found.area.value == pytest.approx((2.5 + 10 + 0) / 3)
    assert found.seconds.median == 2
    assert speed_of(entry("a", [10, 10, 0], curves=curves), 200, None).steps is None


def test_what_came_after_the_common_budget_counts_for_nothing():
    # both reach 10 at 300 steps, in 3 seconds; up to 200 steps, in 2 seconds, only the second has
    curves = [curve((100, 0), (200, 0), (300, 10)), curve((100, 0), (200, 10), (300, 10))]
    found = speed_of(entry("a", [10, 10], curves=curves), 200, 10)
    assert (found.steps.reached, found.seconds.reached) == (1, 1)
    assert found.seconds.restricted_mean.value == 2


def test_json_holds_all_of_it():
    found = compare(field_of([entry("a", LOW), entry("b", LOW + 100)]), planned=[5, 10])
    record = json.loads(files.dump(comparison_json.to_json(found)))
    assert record["verdict"] == verdict(found)
    assert record["pairs"][0]["better"] == "b"
    assert record["pairs"][0]["p_holm"] is None
    assert record["entries"][0]["scores"] == LOW.tolist()


def test_the_order_of_agents_changes_no_verdict():
    noise = np.random.default_rng(1).normal(size=10)
    a, b = entry("a", LOW), entry("b", LOW + 5 + noise)
    one, other = (compare(field_of(pair)).pairs[0] for pair in ([a, b], [b, a]))
    assert one.better == other.better == "b"
    assert one.p == other.p
    assert one.difference.value == pytest.approx(-other.difference.value)
    assert dataclasses.asdict(a)["agent"] == "a"
