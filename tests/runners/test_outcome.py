"""What a seed has come to: the best weights' own episodes, and exact figures in raw units."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from agents import planning
from agents.contract import Params
from runners import group as groups
from runners import outcome, weights
from runners.progress import SeedRecord
from runners.resolve import make_config
from runners.run_folder import create_run
from runners.timing import Times


def setting_of(agent="q_learning", **settings):
    env = settings.pop("env", "FrozenLake-v1")
    return groups.make_setting(make_config(agent, env, **{"steps": 1_000, **settings}))


def table(setting, q, lane_steps=0):
    """Weights of one seed whose table is q."""
    return Params(0, lane_steps, {"q": torch.from_numpy(q[None, None].copy())}, {"epsilon": 0.0})


def test_the_best_weights_are_evaluated_by_themselves(tmp_path):
    """Down, right and down again leads to the goal; always left leads nowhere."""
    setting = setting_of(env_options={"is_slippery": False})
    run = create_run(str(tmp_path), "q_learning-FrozenLake-v1-0123456789", {"a": 1})
    good = planning.q_star(setting.mdp, 0.9)
    bad = np.zeros_like(good)
    bad[:, 0] = 1.0
    for seed, (last, best) in {3: (bad, good), 4: (good, good), 5: (good, bad)}.items():
        weights.save_weights(run.seed(seed).last, table(setting, last, 900))
        # seed 4's best weights are its last ones
        weights.save_weights(run.seed(seed).best, table(setting, best, 900 if seed == 4 else 500))
    outcome.write_results(run, setting, [SeedRecord(seed) for seed in (3, 4, 5)], Times())
    found = [outcome.read_result(run.seed(seed).path) for seed in (3, 4, 5)]
    assert [np.mean(r["final_returns"]) for r in found] == [0.0, 1.0, 1.0]
    assert [np.mean(r["best_returns"]) for r in found] == [1.0, 1.0, 0.0]
    assert [r["policy_value"] for r in found] == [0.0, 1.0, 1.0]  # of the last weights


@pytest.mark.parametrize("backend", ["tabular", "sync"])
def test_exact_figures_whichever_backend_steps_the_mdp(backend):
    setting = setting_of(backend=backend, source="local")
    q = planning.q_star(setting.mdp, setting.config.hyper.gamma)
    q[0, 0] += 0.5
    found = outcome.exact_figures(setting, table(setting, q))
    assert found["max_q_error"] == pytest.approx([0.5])
    assert found["policy_value"] == [
        planning.policy_value(setting.mdp, q.argmax(-1), setting.time_limit)
    ]


def constant(setting, value):
    """Weights of a dqn whose every action value is ``value``."""
    learner = groups.make_learner(setting, [0])
    learner.online.flat.zero_()
    learner.online.network.head.bias.data.fill_(value)
    return learner.params()


def test_errors_are_in_raw_units_and_unknown_under_clipping():
    settings = {"hidden": (4,), "env": "FrozenLake-v1"}
    raw, scaled = setting_of("dqn", **settings), setting_of("dqn", reward_scale=10.0, **settings)
    error = outcome.exact_figures(raw, constant(raw, 0.3))["max_q_error"]
    # a learner that sees tenfold rewards has tenfold values
    assert outcome.exact_figures(scaled, constant(scaled, 3.0))["max_q_error"] == pytest.approx(
        error
    )
    clipped = setting_of("dqn", reward_clip=1.0, **settings)
    assert outcome.exact_figures(clipped, constant(clipped, 0.3))["max_q_error"] == [None]


def test_an_ensembles_policy_is_the_vote_and_its_values_are_the_mean():
    """Two of three heads say Q*, the third says so much of other actions that the mean would take those."""
    setting = setting_of("bootstrapped_dqn", hidden=(), heads=3, prior_scale=0.0)
    q = planning.q_star(setting.mdp, setting.config.hyper.gamma)
    third = q + 300.0 * (q < q.max(-1, keepdims=True))
    learner = groups.make_learner(setting, [0])
    network = learner.online.network  # weights [1, H, S, A]: a state is a row of one 1
    network.free_head_weight.data[0] = torch.from_numpy(np.stack([q, q, third]))
    network.free_head_bias.data.zero_()
    found = outcome.exact_figures(setting, learner.params())
    assert found["max_q_error"] == pytest.approx([100.0])
    best = planning.policy_value(setting.mdp, q.argmax(-1), setting.time_limit)
    assert found["policy_value"] == pytest.approx([float(best)], rel=1e-3)


def test_no_error_where_q_star_is_infinite():
    setting = setting_of(env="RiverSwim-v0", gamma=1.0)
    q = np.zeros((setting.mdp.num_states, setting.mdp.num_actions))
    found = outcome.exact_figures(setting, table(setting, q))
    assert found["max_q_error"] == [None]
    assert np.isfinite(found["policy_value"]).all()


def test_networks_without_an_mdp_have_no_exact_figures():
    setting = dataclasses.replace(setting_of(), mdp=None)
    assert outcome.exact_figures(setting, Params(0, 0, {}, {})) == {}
