"""The n-step agents, those with traces and those with models reach what planning says is best."""

from __future__ import annotations

import pytest

from agents import planning
from runners import group as groups
from runners.evaluation import EPISODE_LIMIT
from runners.resolve import make_config
from runners.sources import Plan

pytestmark = pytest.mark.learn

STEPS = ("n_step_sarsa", "tree_backup", "q_sigma")
TRACES = ("sarsa_lambda", "watkins_q", "peng_q")
MODELS = ("dyna_q", "dyna_q_plus", "prioritized_sweeping")


def learned(agent, env, seeds=2, **settings):
    """(exact values of the greedy policies, errors against Q*, the value of Q*'s policy)."""
    config = make_config(agent, env, **settings)
    setting = groups.make_setting(config)
    learner = groups.make_learner(setting, range(seeds))
    source = groups.make_source(setting, range(seeds), learner)
    source.publish(learner.params())
    left = config.steps // config.lanes
    while left:
        rollout = source.next(Plan(min(left, config.rollout_length), None))
        learner.observe(rollout)
        source.publish(learner.params())
        left -= rollout.rows
    source.close()
    mdp, q = setting.mdp, learner.q.mean(axis=1)
    limit, gamma = mdp.time_limit or EPISODE_LIMIT, config.hyper.gamma
    best = planning.greedy(planning.policy_iteration(mdp, gamma))
    return (
        planning.policy_value(mdp, planning.greedy(q), limit),
        planning.max_q_error(mdp, q, gamma),
        float(planning.policy_value(mdp, best, limit)),
    )


@pytest.mark.parametrize("agent", [*STEPS, *TRACES, *MODELS])
def test_frozen_lake_with_the_preset(agent):
    """Chance reaches the goal in 1.4 of 100 episodes. On-policy agents stay a little below."""
    fewer = {"steps": 200_000, "lr_steps": 200_000, "epsilon_steps": 100_000}
    values, _, best = learned(agent, "FrozenLake-v1", **(fewer if agent in MODELS else {}))
    assert best == pytest.approx(0.7402, abs=1e-4)
    assert min(values) > (0.65 if agent in STEPS else best - 0.02)


def test_prioritized_sweeping_learns_the_values_themselves():
    values, errors, best = learned("prioritized_sweeping", "FrozenLake-v1")
    assert values == pytest.approx(best)
    assert max(errors) < 0.1


@pytest.mark.parametrize("agent", ["watkins_q", *MODELS])
def test_the_shortest_path_along_the_cliff(agent):
    assert learned(agent, "CliffWalking-v1", steps=200_000)[0].tolist() == [-13.0, -13.0]


@pytest.mark.parametrize("agent", [*STEPS, "sarsa_lambda", "peng_q"])
def test_a_safe_way_along_the_cliff(agent):
    """What goes by actions that are taken knows that a step beside the edge may be the last."""
    assert all(-25 <= value < -13 for value in learned(agent, "CliffWalking-v1")[0])


@pytest.mark.parametrize("agent", ["tree_backup", "watkins_q", "dyna_q", "prioritized_sweeping"])
def test_taxi(agent):
    steps = 100_000 if agent in MODELS else 500_000
    assert learned(agent, "Taxi-v4", steps=steps)[0] == pytest.approx(7.93, abs=0.01)


@pytest.mark.parametrize(
    "explore",
    [
        {"exploration": "boltzmann", "temperature_start": 0.5, "temperature_end": 0.01,
         "temperature_steps": 250_000},
        {"exploration": "ucb", "ucb_c": 0.3},
    ],
    ids=lambda more: more["exploration"],
)  # fmt: skip
def test_frozen_lake_however_it_explores(explore):
    assert min(learned("q_learning", "FrozenLake-v1", **explore)[0]) > 0.5


def test_optimism_explores_by_itself():
    """DeepSea pays once in 2^8 random dives; without any exploration but a high first value."""
    greedy = {"epsilon_start": 0.0, "epsilon_end": 0.0, "lr": 0.5, "lr_end": 0.5, "steps": 30_000}
    sea = {"env_options": {"size": 8}, **greedy}
    found = learned("q_learning", "DeepSea-v0", initial_value=1.0, **sea)
    assert found[0] == pytest.approx(0.99)
    assert max(learned("q_learning", "DeepSea-v0", **sea)[0]) < 0.5


@pytest.mark.parametrize(
    ("env", "best"), [("FrozenLake-v1", 0.7402), ("Taxi-v4", 7.93), ("CliffWalking-v1", -13.0)]
)
def test_r_max_finds_the_best_policy(env, best):
    assert learned("r_max", env)[0] == pytest.approx(best, abs=1e-3)


def test_monte_carlo_learns_the_lake():
    assert min(learned("monte_carlo", "FrozenLake-v1")[0]) > 0.5


@pytest.mark.slow  # 5 million steps
def test_a_model_knows_the_large_lake():
    values, _, best = learned("prioritized_sweeping", "FrozenLake8x8-v1", planning_steps=5)
    assert best == pytest.approx(0.8936, abs=1e-3)  # at γ = 0.995; what knows the step, 0.913
    assert min(values) > best - 0.02
