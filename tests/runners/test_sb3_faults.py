"""What goes wrong in Stable-Baselines3's loop is told as what goes wrong in our own."""

import numpy as np
import pytest

from envs.contract import SimulatorError
from runners import train
from runners.errors import RunFailed, status_of
from runners.resolve import make_config
from tests.envs.test_lanes import FAULTS, FaultyLane


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, np.array([np.nan], np.float32), "the observation is [nan]"),
        (1, np.inf, "the reward is inf"),
        (0, np.zeros(2, np.float32), "the observation is float32(2,)"),
    ],
)
def test_a_simulators_fault_is_told_with_its_lane_and_step(
    place, value, words, tmp_path, monkeypatch
):
    def fault(result):
        result[place] = value

    fails(fault, words, tmp_path, monkeypatch)


def test_what_a_simulator_raises_is_told_too(tmp_path, monkeypatch):
    words = "step raised ZeroDivisionError: somewhere inside"
    fails(FAULTS["raises"][0], words, tmp_path, monkeypatch)


def fails(fault, words, tmp_path, monkeypatch):
    """In its fourth step the second lane's environment, the third that is made: one is looked at before."""
    monkeypatch.setitem(FAULTS, "none", (fault, ""))
    monkeypatch.setattr(FaultyLane, "made", 0)
    config = make_config(
        "sb3:dqn", "tests.envs.test_lanes:FaultyLane-v0", steps=100, lanes=2,
        env_options={"fault": "none", "only": 2},
    )  # fmt: skip
    with pytest.raises(SimulatorError) as caught:
        train.run(config, [0], tmp_path)
    assert f": lane 1, step 3: {words}" in str(caught.value)
    assert status_of(caught.value) == 5


def test_loss_that_is_not_finite_is_one_line(tmp_path):
    config = make_config(
        "sb3:dqn", "CartPole-v1", steps=200, learning_starts=50, train_freq=8, eval_episodes=2,
        learning_rate=1e30, max_grad_norm=1e30,
    )  # fmt: skip
    with pytest.raises(RunFailed, match="not finite; try a smaller --learning-rate"):
        train.run(config, [0], tmp_path)


def test_a_policy_that_is_not_finite_is_one_line(tmp_path):
    """PPO draws from its distribution, which torch refuses, before it tells a loss."""
    config = make_config(
        "sb3:ppo", "CartPole-v1", steps=400, n_steps=8, eval_episodes=1, eval_every=400,
        learning_rate=1e30, max_grad_norm=1e30,
    )  # fmt: skip
    with pytest.raises(RunFailed, match="not finite; try a smaller --learning-rate"):
        train.run(config, [0], tmp_path)
