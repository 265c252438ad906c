"""The learner of actor-critic agents where it goes on: from a state, on wide layers, past a time limit."""

from __future__ import annotations

import copy
from contextlib import closing

import numpy as np
import pytest
import torch

from agents import layers, naf, sac, sac_named, td3
from tests.agents.continuous import learner, rollout

KINDS = {
    "sac": (sac.SACConfig(normalise_obs=True), sac),
    "redq": (sac_named.REDQConfig(critics=3, policy_period=2), sac),
    "droq": (sac_named.DroQConfig(policy_period=2, dropout=0.3), sac),
    "crossq": (sac_named.CrossQConfig(renorm_after=3), sac),
    "tqc": (sac_named.TQCConfig(critics=2, quantiles=4, dropped=1), sac),
    "td3": (td3.TD3Config(normalise_obs=True), td3),
    "naf": (naf.NAFConfig(normalise_obs=True), naf),
}


def go(made, turns):
    for turn in turns:
        made.observe(rollout(float(turn), action=0.1 * turn, obs=float(turn % 3)))
        made.update()


@pytest.mark.parametrize(("config", "module"), KINDS.values(), ids=KINDS)
def test_a_learner_goes_on_from_its_state_to_the_bit(config, module):
    """Stopped between two updates of the policy, and before batch statistics are first corrected."""
    whole = learner(config, module)
    go(whole, range(3))
    state, replay = copy.deepcopy(whole.state_dict()), whole.replay
    rows, tail = replay.rows(replay.tail, replay.head), replay.tail
    other = learner(config, module)
    other.load_state_dict(state)
    other.replay.load_rows(tail, rows)
    for made in (whole, other):
        go(made, range(3, 8))
    assert other.updates == whole.updates == 8
    for name, each in whole._flats().items():
        assert torch.equal(each.flat, other._flats()[name].flat), name
    for name, tensor in whole.params().tensors.items():
        assert torch.equal(tensor, other.params().tensors[name]), name
    for name, value in whole.metrics().items():
        assert np.array_equal(value, other.metrics()[name]), name


@pytest.mark.parametrize("name", ["sac", "redq", "td3"])
def test_wide_critics_learn_as_they_would_without_places_for_their_gradients(name, monkeypatch):
    """A policy's pass goes through the critics too, and must leave what they learn as it is."""
    config, module = KINDS[name]
    found = []
    for wide in (10, 2**30):
        monkeypatch.setattr("agents.optimizer.WIDE", wide)
        made = learner(config, module)
        go(made, range(6))
        hidden = made.networks.critics.mlp.layers[0].weight  # 2x8
        assert layers.has_place(hidden) == (wide == 10)  # after a policy's pass too
        found.append(made)
    placed, plain = found
    for of, each in placed._flats().items():
        torch.testing.assert_close(each.flat, plain._flats()[of].flat, rtol=1e-4, atol=1e-6)


def test_a_pendulum_cut_by_its_limit_bootstraps_at_every_row():
    """Its episodes never end by themselves: with a limit of 3 steps every third row is cut, and none is worth less."""
    from runners import group
    from runners.resolve import make_config
    from runners.sources import Plan

    config = make_config(
        "sac",
        "Pendulum-v1",
        lanes=2,
        env_options={"max_episode_steps": 3},
        batch_size=16,
        replay_size=100,
    )
    setting = group.make_setting(config)
    made = group.make_learner(setting, [0])
    with closing(group.make_source(setting, [0], made)) as source:
        source.publish(made.params())
        for _ in range(24):
            made.observe(source.next(Plan(1, None)))
    replay = made.replay
    rows = slice(0, replay.head)
    # of four rows three are steps, the last of which is cut, and one is the reset
    assert replay.truncated[rows].sum() == 2 * 24 // 4
    assert not replay.terminated[rows].any()
    for _ in range(10):
        assert (replay.sample().discount == np.float32(0.99)).all()
