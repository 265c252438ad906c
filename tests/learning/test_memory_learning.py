"""A network that remembers solves what one that does not cannot, whoever trains it."""

from __future__ import annotations

import numpy as np
import pytest

from runners.resolve import make_config
from tests.learning.test_learning import results

pytestmark = [pytest.mark.learn, pytest.mark.slow, pytest.mark.timeout(900)]
REPEAT_PREVIOUS = "popgym-RepeatPreviousEasy-v0"


def means(config, out):
    return [np.mean(r["final_returns"]) for r in results(config, (0, 1), out)]


@pytest.mark.parametrize(
    ("agent", "settings"),
    [
        ("dqn", {"memory": "lstm", "steps": 20_480}),
        ("dqn", {"memory": "attention", "steps": 20_480}),
        ("pqn", {"steps": 51_200}),
    ],
    ids=["dqn-lstm", "dqn-attention", "pqn-lstm"],
)
def test_a_memory_repeats_what_was_seen_some_cards_ago(agent, settings, tmp_path):
    """Every answer is worth 1/n of ±1; by chance one of four is right: ¼ - ¾ = -½. The best is 1."""
    assert min(means(make_config(agent, REPEAT_PREVIOUS, **settings), tmp_path)) > 0.9


def test_without_a_memory_it_is_chance(tmp_path):
    """No policy of the present card alone is better than -½ on the mean; 100 episodes of 48 answers."""
    config = make_config("dqn", REPEAT_PREVIOUS, steps=20_480, memory="none")
    assert max(means(config, tmp_path)) < -0.4


@pytest.mark.parametrize(
    ("agent", "memory"), [("dqn", "lstm"), ("dqn", "attention"), ("r2d2", "lstm")]
)
def test_the_sign_is_remembered_through_the_maze(agent, memory, tmp_path):
    """At the junction, ten steps behind the sign, a guess is worth (4 - 0.1) / 2 = 1.95 at most."""
    config = make_config(agent, "TMaze-v0", memory=memory)
    assert min(means(config, tmp_path)) > 3.0
