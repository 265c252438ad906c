"""Alarms: silent where nothing is wrong, given by agents broken on purpose, and what they say."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from agents.dqn import DQNConfig
from agents.pqn import PQNConfig
from runners.alarms import ALARMS, Alarm
from runners.console import SilentConsole
from runners.report import summary_lines
from runners.resolve import make_config
from runners.train import run

SMALL = {
    "steps": 8_192, "eval_every": 512, "eval_episodes": 4, "final_episodes": 4, "lanes": 16,
    "rollout_length": 16, "hidden": (32,), "batch_size": 64, "replay_ratio": 0.125, "n_step": 3,
    "target_period": 64, "target_tau": 0.1, "epsilon_steps": 2_000, "reward_scale": 0.1,
}  # fmt: skip


def alarms(tmp_path, **changes):
    config = make_config("dqn", "CartPole-v1", **{**SMALL, **changes})
    return set(run(config, (0,), str(tmp_path)).summary()["alarms"])


def test_no_alarm_of_the_agent_that_is_broken_below(tmp_path):
    assert alarms(tmp_path) == set()


HEALTHY = {
    # rewards of next to nothing until a treasure is found, far beside what random networks say
    "bootstrapped_dqn-DeepSea-v0": {"steps": 1_500, "eval_every": 250},
    "dqn-DeepSea-v0": {"steps": 2_500, "eval_every": 500, "env_options": {"size": 20}},
    # rewards of either sign, whose mean is 0
    "dqn-popgym-RepeatPreviousEasy-v0": {"steps": 5_120, "eval_every": 1_024},
    # no reward for most of the beginning
    "dqn-FrozenLake-v1": {"steps": 5_000, "eval_every": 1_000},
    "pqn-CartPole-v1": {"steps": 40_960},
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_no_alarm_where_nothing_is_wrong(name, tmp_path):
    agent, env = name.split("-", 1)
    config = make_config(agent, env, **HEALTHY[name], final_episodes=2)
    assert run(config, (0, 1), str(tmp_path)).summary()["alarms"] == {}


BROKEN = {
    # each value is bootstrapped from the network that it changes at once, without bounds on steps
    "values run away": {
        "target_period": 1, "target_tau": 1.0, "lr": 0.03, "n_step": 1, "huber": 1e6,
        "max_grad_norm": 1e9, "reward_scale": 1.0, "hidden": (64, 64),
    },
    # steps of 1 throw units to where nothing reaches them, features with them
    "dead units": {"lr": 1.0},
    "rank collapse": {"lr": 1.0},
    "churn": {"lr": 1.0},
    # a target network that is never updated
    "stale target": {"target_period": 10**6, "lr": 0.01},
    "values do not follow": {"target_period": 10**6, "lr": 0.01},
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_an_agent_broken_on_purpose_gives_the_alarm(name, tmp_path):
    assert name in alarms(tmp_path, **BROKEN[name])


def test_terminations_that_are_not_seen_give_overestimation(tmp_path, monkeypatch):
    """Values of a pole that never falls."""
    loss = DQNConfig.loss

    def endless(config, online, target, batch, noise):
        discount = torch.full_like(batch.discount, config.gamma**config.n_step)
        return loss(config, online, target, dataclasses.replace(batch, discount=discount), noise)

    monkeypatch.setattr(DQNConfig, "loss", endless)
    assert "overestimation" in alarms(tmp_path, target_tau=1.0)


def test_every_alarm_is_broken_for():
    assert {alarm.name for alarm in ALARMS} == {*BROKEN, "overestimation"}


def test_an_alarm_is_said_once_a_seed_and_kept(tmp_path):
    lines = []

    class Listening(SilentConsole):
        def message(self, text):
            lines.append(text)

    config = make_config("dqn", "CartPole-v1", **{**SMALL, **BROKEN["rank collapse"]})
    folder = run(config, (0, 1), str(tmp_path), console=Listening())
    said = [line for line in lines if "rank collapse" in line]
    assert [line.split(" at ")[0] for line in sorted(said)] == ["alarm: seed 0", "alarm: seed 1"]
    assert "; try a smaller --lr" in said[0]
    assert folder.summary()["alarms"]["rank collapse"] == [0, 1]
    for seed in (0, 1):
        records = folder.seed(seed).read_health().records
        given = [name for record in records for name in record["alarms"]]
        assert given.count("rank collapse") == 1
    assert any("rank collapse: seeds 0-1" in line for line in summary_lines(folder.summary()))


def test_what_is_switched_on_or_missing_is_not_suggested():
    away = next(alarm for alarm in ALARMS if alarm.name == "values run away")
    assert "--double" in away.line(0, 1, 3.0, DQNConfig())
    assert "--double" not in away.line(0, 1, 3.0, DQNConfig(double=True))
    pqn = away.line(0, 1_000, 3.0, PQNConfig())
    assert pqn.startswith("alarm: seed 0 at lane step 1,000: values run away: value_share is 3;")
    assert pqn.endswith("; try a smaller --lr")


@pytest.mark.parametrize(
    ("below", "values", "out"),
    [
        (False, (0.9, 1.0, 1.1, None), (False, True, True, False)),
        (True, (0, 1, 2), (True, True, False)),
    ],
)
def test_bounds(below, values, out):
    alarm = Alarm("a", "m", "m", bound=1.0, patience=1, cause="", remedies=(), below=below)
    assert tuple(alarm.out_of_bounds({"m": value}) for value in values) == out
    assert not alarm.out_of_bounds({})
