"""A network that remembers solves what one that does not cannot, whoever trains it."""

from __future__ import annotations

import numpy as np
import pytest

from runners.resolve import make_config
from tests.learning.test_learning import results

pytestmark = [pytest.mark.learn, pytest.mark.slow, pytest.mark.timeout(900)]
REPEAT_PREVIOUS = "popgym-RepeatPreviousEasy-v0"
LONGER_REPEAT = {
    "steps": 81_920, "eval_every": 20_480, "lanes": 16, "rollout_length": 40, "sequence_length": 40,
    "batch_size": 8, "replay_ratio": 0.03, "learning_starts": 4_000, "target_period": 400, "lr": 2e-3,
    "hidden": (64,), "gamma": 0.5, "double": True, "epsilon_steps": 10_000, "reward_scale": 20.0,
}  # fmt: skip
LONGER_MAZE = {
    "steps": 122_880, "eval_every": 20_480, "rollout_length": 32, "batch_size": 8, "n_step": 5,
    "replay_ratio": 0.03, "epsilon_steps": 40_000,
}  # fmt: skip


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


def test_attention_repeats_what_was_seen_32_cards_ago(tmp_path):
    """RepeatPreviousMedium; a context of 40 reaches back that far. By chance it is -½, the best is 1."""
    config = make_config(
        "dqn", "popgym-RepeatPreviousMedium-v0", memory="attention", context=40, burn_in=39,
        **LONGER_REPEAT,
    )  # fmt: skip
    assert min(means(config, tmp_path)) > 0.9


@pytest.mark.parametrize(
    "settings",
    [
        {"memory": "lstm", "sequence_length": 36, "burn_in": 0},
        {"memory": "attention", "sequence_length": 32, "context": 28, "burn_in": 27},
    ],
    ids=["lstm", "attention"],
)
def test_the_sign_is_remembered_through_a_maze_of_twice_the_length(settings, tmp_path):
    """The gradient of an LSTM has to reach from the junction back to the sign: sequences of 36 rows."""
    config = make_config("dqn", "TMaze-v0", env_options={"length": 20}, **LONGER_MAZE, **settings)
    assert min(means(config, tmp_path)) > 3.0
