"""Agents learn: tables to nearly the best policy, networks clearly above chance, on several seeds."""

from __future__ import annotations

import numpy as np
import pytest

from agents import planning
from runners import group as groups
from runners import resolve
from runners.evaluation import EPISODE_LIMIT
from runners.outcome import read_result
from runners.resolve import make_config
from runners.train import run

pytestmark = pytest.mark.learn


def results(config, seeds, out):
    folder = run(config, seeds, str(out))
    return [read_result(folder.seed(seed).path) for seed in seeds]


def bounds(config):
    """(best, uniformly random) expected return of an episode under its limit."""
    mdp = groups.make_setting(config).mdp
    limit = mdp.time_limit or EPISODE_LIMIT
    uniform = np.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions)
    return planning.optimal_value(mdp, limit), float(planning.policy_value(mdp, uniform, limit))


@pytest.mark.parametrize("agent", ["q_learning", "sarsa", "expected_sarsa", "double_q"])
def test_tables_learn_frozen_lake(agent, tmp_path):
    """The best policy reaches the goal in 74 of 100 episodes, chance in 1.4; every seed in 60."""
    config = make_config(
        agent, "FrozenLake-v1", steps=300_000, eval_episodes=10, lr=0.1, lr_end=0.01,
        lr_steps=300_000, epsilon_end=0.02, epsilon_steps=200_000,
    )  # fmt: skip
    best, chance = bounds(config)
    assert best == pytest.approx(0.74, abs=0.01)
    assert chance < 0.02
    values = [result["policy_value"] for result in results(config, range(3), tmp_path)]
    assert min(values) > 0.6
    assert max(values) <= best + 1e-9


@pytest.mark.parametrize("agent", ["q_learning", "double_q"])
def test_tables_find_the_shortest_path_along_the_cliff(agent, tmp_path):
    config = make_config(
        agent, "CliffWalking-v1", steps=600_000, eval_episodes=2, lr_end=0.5, lr=0.5
    )
    best, _ = bounds(config)
    assert best == -13
    for result in results(config, range(3), tmp_path):
        assert result["policy_value"] == -13.0
        assert set(result["final_returns"]) == {-13.0}


def test_sarsa_takes_the_safe_way_along_the_cliff(tmp_path):
    """With ε kept at 0.2 SARSA learns to keep away from the edge (Sutton & Barto, example 6.6)."""
    config = make_config(
        "sarsa", "CliffWalking-v1", steps=300_000, eval_episodes=2, epsilon_end=0.2
    )
    for result in results(config, range(3), tmp_path):
        assert -30 <= result["policy_value"] < -13


def test_q_learning_comes_close_to_the_true_values(tmp_path):
    """Where nothing is random and every pair is visited, Q converges to Q* itself."""
    config = make_config(
        "q_learning", "CliffWalking-v1", steps=400_000, eval_episodes=1, lr=1.0, lr_end=1.0,
        epsilon_end=1.0, gamma=0.9, env_options={"max_episode_steps": 500},
    )  # fmt: skip
    for result in results(config, range(2), tmp_path):
        assert result["max_q_error"] < 1e-6


def test_dqn_learns_the_chain(tmp_path):
    """FrozenLake without ice, from one-hot states: chance reaches the goal in 1 of 70 episodes."""
    config = make_config(
        "dqn", "FrozenLake-v1", env_options={"is_slippery": False}, steps=12_000, lanes=8,
        rollout_length=8, hidden=(32,), learning_starts=500, replay_ratio=0.25, target_period=200,
        epsilon_steps=8_000, eval_episodes=4,
    )  # fmt: skip
    best, chance = bounds(config)
    assert (best, chance < 0.02) == (1.0, True)
    values = [result["policy_value"] for result in results(config, range(3), tmp_path)]
    assert values == [1.0, 1.0, 1.0]


@pytest.mark.slow  # half a minute on one core; the chain above is the quick one
def test_dqn_balances_a_pole(tmp_path):
    """Chance holds it for 22 steps; five standard deviations of 100 such episodes are 6."""
    config = make_config("dqn", "CartPole-v1", steps=16_000, eval_episodes=5, epsilon_steps=5_000)
    for result in results(config, range(3), tmp_path):
        assert np.mean(result["best_returns"]) > 100


def test_pqn_solves_cartpole_with_its_preset(tmp_path):
    config = make_config("pqn", "CartPole-v1", until_solved=True)
    found = results(config, range(3), tmp_path)
    assert [result["solved"] for result in found] == [True] * 3
    for result in found:
        assert np.mean(result["final_returns"]) >= resolve.threshold("CartPole-v1")


@pytest.mark.slow  # ten seconds to some minutes on one core
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "agent",
    [
        "double_dqn",
        "dueling_dqn",
        "c51",
        "qrdqn",
        "iqn",
        "munchausen_dqn",
        "rainbow",
        "bootstrapped_dqn",
    ],
)
def test_dqns_family_solves_cartpole_with_its_presets(agent, tmp_path):
    """All but iqn and bootstrapped_dqn did on all of the seeds 1000 to 1009."""
    config = make_config(agent, "CartPole-v1", until_solved=True)
    assert [result["solved"] for result in results(config, range(2), tmp_path)] == [True] * 2


@pytest.mark.slow  # a minute on one core
def test_stream_q_solves_cartpole_with_its_preset(tmp_path):
    """Of seeds 100 to 107 seven hold the pole in all episodes at 20,000 steps, all eight at 30,000; here 40,000."""
    config = make_config("stream_q", "CartPole-v1", until_solved=True)
    found = results(config, range(2), tmp_path)
    assert [result["solved"] for result in found] == [True] * 2
