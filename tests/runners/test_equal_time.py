import math

import numpy as np
import pytest

from runners.equal_time import at_equal_time
from runners.scores import Curve, Entry, Field


def curve(*points):
    """Of (env_steps, seconds, mean); seconds of None are not known."""
    steps, seconds, means = zip(*points, strict=True)
    timed = None if None in seconds else np.array(seconds, np.float64)
    return Curve(np.array(steps, np.float64), timed, np.array(means, np.float64))


def field(**curves):
    entries = {
        (agent, "E"): Entry(agent, "E", tuple(range(len(c))), np.zeros(len(c)), tuple(c), agent)
        for agent, c in curves.items()
    }
    return Field(tuple(curves), ("E",), entries)


def test_all_are_read_when_the_first_of_all_seeds_had_ended():
    """The fast agent's second seed ends first, at 10 s.

    fast, seed 0: from (8 s, 40) to (12 s, 60): at 10 s 50, and of 800 and 1200 steps 1000;
    fast, seed 1: its last, 30 at 1200 steps. slow, seed 0: a quarter of the way from (5 s, 10) to
    (25 s, 50): 20, and of 100 and 500 steps 200; seed 1: exactly at an evaluation, 7 at 200.
    """
    fast = [curve((400, 4, 0), (800, 8, 40), (1200, 12, 60)), curve((600, 5, 0), (1200, 10, 30))]
    slow = [curve((100, 5, 10), (500, 25, 50)), curve((100, 5, 1), (200, 10, 7), (500, 25, 9))]
    found = at_equal_time(field(fast=fast, slow=slow), "E")
    assert found.seconds == 10
    assert found.agents["fast"].scores.tolist() == [50, 30]
    assert found.agents["fast"].env_steps.tolist() == [1000, 1200]
    assert found.agents["slow"].scores.tolist() == [20, 7]
    assert found.agents["slow"].env_steps.tolist() == [200, 200]


def test_who_was_not_evaluated_by_then_has_no_score():
    quick, late = [curve((1, 1.0, 5), (2, 2.0, 6))], [curve((1, 3.0, 50), (2, 4.0, 60))]
    found = at_equal_time(field(quick=quick, late=late), "E")
    assert found.seconds == 2
    assert found.agents["quick"].scores.tolist() == [6]
    assert math.isnan(found.agents["late"].scores[0])
    assert math.isnan(found.agents["late"].env_steps[0])


@pytest.mark.parametrize(
    "other", [[], [curve((1, None, 0), (2, None, 1))], [curve((1, 3, 0), (2, 2, 1))]]
)
def test_where_somebodys_time_is_not_known_there_is_none(other):
    assert at_equal_time(field(a=[curve((1, 1, 0), (2, 2, 1))], b=other), "E") is None
