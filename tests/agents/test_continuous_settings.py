"""Every setting of the continuous agents reaches what it is for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from agents import naf, sac, sac_named, td3
from agents.continuous_networks import GroupLayerNorm, NarrowLinear
from agents.layers import Dropout, GroupLinear, ReLU
from agents.rules.actor_critic import temperature_loss
from tests.agents.continuous import CPU, SPEC, learner, rollout

TWO = dataclasses.replace(
    SPEC, action_shape=(2,), action_low=np.full(2, -1.0, np.float32), action_high=np.ones(2, np.float32)
)  # fmt: skip


def after_updates(config, module=sac, number=1):
    made = learner(config, module)
    made.observe(rollout(1.0))
    for _ in range(number):
        made.update()
    return made


@pytest.mark.parametrize("module", [sac, td3], ids=["sac", "td3"])
def test_the_policy_and_the_critics_have_step_sizes_of_their_own(module):
    config = {sac: sac.SACConfig, td3: td3.TD3Config}[module](policy_period=1)
    for still in ("policy", "critics"):
        rates = {"lr": 1e-30} if still == "critics" else {"policy_lr": 1e-30}
        made = learner(dataclasses.replace(config, **rates), module)
        made.observe(rollout(1.0))
        before = {name: each.flat.clone() for name, each in made.fast.items()}
        made.update()
        moved = {n: (each.flat - before[n]).abs().max().item() for n, each in made.fast.items()}
        assert {name for name, far in moved.items() if far < 1e-20} == {still}


def test_adams_first_moment_decays_as_told():
    """After one step it is (1 - β₁) times the gradient: of ½ five times what it is of 0.9."""
    half, usual = (after_updates(sac.SACConfig(adam_beta1=b, policy_period=1)) for b in (0.5, 0.9))
    for name, optimizer in half.optimizers.items():
        torch.testing.assert_close(optimizer.mean, 5.0 * usual.optimizers[name].mean)
        assert optimizer.mean.abs().max() > 0


def test_renormalisation_begins_behind_its_update(monkeypatch):
    seen, whole = [], sac.SACConfig.critic_loss

    def watched(self, networks, rows, noise, moments):
        seen.append(moments.renorm)
        return whole(self, networks, rows, noise, moments)

    monkeypatch.setattr(sac.SACConfig, "critic_loss", watched)
    after_updates(sac_named.CrossQConfig(renorm_after=2), number=4)
    assert seen == [False, False, True, True]


def test_actions_are_uniform_while_fewer_steps_were_made_than_learning_waits_for():
    made = learner(sac.SACConfig())
    made.hyper = dataclasses.replace(made.hyper, learning_starts=10)
    for lane_steps, uniform in ((9, 1.0), (10, 0.0)):
        made.lane_steps = lane_steps
        assert made.params().scalars["uniform_actions"] == uniform


def test_both_observations_of_a_row_are_normalised():
    made = learner(sac.SACConfig(normalise_obs=True))
    rows = rollout(1.0)
    rows.obs[:, 0, 0] = np.arange(7.0)
    made.observe(rows)
    batch = made.replay.sample()
    seen = made._view(dataclasses.replace(batch, extras={**batch.extras, **made.seen}))
    mean, scale = made.seen["obs_mean"].item(), made.seen["obs_scale"].item()
    torch.testing.assert_close(seen.obs, (batch.obs - mean) * scale)
    torch.testing.assert_close(seen.next_obs, (batch.next_obs - mean) * scale)
    torch.testing.assert_close(seen.next_obs - seen.obs, torch.full_like(seen.obs, scale))


def test_rewards_are_summed_over_n_steps():
    made = learner(sac.SACConfig(n_step=3, gamma=0.5))
    made.observe(rollout(1.0))
    batch = made.replay.sample()
    assert (batch.reward == 1.75).all()
    assert (batch.discount == 0.125).all()


def test_both_of_td3s_slow_copies_move_by_tau():
    made = after_updates(td3.TD3Config(target_tau=0.25, policy_period=1, target_period=1), td3)
    assert set(made.slow) == {"critics", "policy"}
    assert made.networks.target_policy is not made.networks.policy
    slow = {name: each.flat.clone() for name, each in made.slow.items()}
    made.update()
    for name, each in made.slow.items():
        expected = 0.75 * slow[name] + 0.25 * made.fast[name].flat
        torch.testing.assert_close(each.flat, expected)
        assert not torch.equal(each.flat, made.fast[name].flat)


def test_the_target_entropy_is_of_all_actions(monkeypatch):
    told = []

    def watched(log_alpha, log_pi, entropy):
        told.append(entropy)
        return temperature_loss(log_alpha, log_pi, entropy)

    monkeypatch.setattr(sac, "temperature_loss", watched)
    made = learner(sac.SACConfig(target_entropy=0.5, policy_period=1), spec=TWO)
    rows = rollout(1.0)
    made.observe(dataclasses.replace(rows, action=np.repeat(rows.action, 2, -1)))
    made.update()
    assert told == [-1.0]


def test_the_targets_critics_are_drawn_anew_and_both_actions_have_noise_of_their_own():
    made = learner(sac_named.REDQConfig(critics=4, target_critics=2))
    made.observe(rollout(1.0))
    batch = made._view(made.replay.sample())
    draws = [made.hyper.draw(made.networks, batch, made.generators, True) for _ in range(200)]
    chosen = torch.stack([drawn["chosen"][0] for drawn in draws])
    assert (chosen[:, 0] != chosen[:, 1]).all()
    counts = torch.bincount(
        chosen.flatten(), minlength=4
    )  # 100 each, deviation √(200 · ½ · ½) = 7.1
    assert ((counts - 100).abs() < 5 * 7.1).all()
    for drawn in draws[:3]:
        assert not torch.equal(drawn["epsilon_t"], drawn["epsilon_tm1"])


@pytest.mark.parametrize(
    ("make", "config", "kinds"),
    [
        (sac.make_networks, sac_named.DroQConfig(), [GroupLinear, Dropout, GroupLayerNorm, ReLU]),
        (sac.make_networks, sac.SACConfig(norm="layer"), [GroupLinear, GroupLayerNorm, ReLU]),
        (td3.make_networks, td3.TD3Config(norm="layer"), [GroupLinear, GroupLayerNorm, ReLU]),
        (sac.make_networks, sac.SACConfig(), [GroupLinear, ReLU]),
    ],
    ids=["droq", "sac, layer", "td3, layer", "sac"],
)
def test_what_a_hidden_layer_of_a_critic_is_made_of(make, config, kinds):
    """Dropout before LayerNorm, both before the ReLU (DroQ, figure 2)."""
    _, critics = make(dataclasses.replace(config, hidden=(8, 8)), SPEC, 1, CPU)
    assert [type(layer) for layer in critics.mlp.layers] == [*kinds, *kinds, NarrowLinear]


def test_bfloat16_is_for_hidden_layers():
    for bf16 in (True, False):
        for network in sac.make_networks(sac.SACConfig(hidden=(8, 8), bf16=bf16), SPEC, 1, CPU):
            linear = [m for m in network.modules() if isinstance(m, GroupLinear)]
            assert [layer.bf16 for layer in linear] == [bf16] * 2


def test_naf_explores_by_sigma():
    made = learner(naf.NAFConfig(exploration=0.1), naf)
    critics, rows = made.networks.critics, 20_000
    obs = torch.full((1, rows, 1), 0.3)
    epsilon = torch.randn(1, rows, 1, generator=torch.Generator().manual_seed(0))
    apart = (critics.explore(obs, epsilon) - critics.mode(obs)).std().item()
    assert apart == pytest.approx(0.1, rel=4 / (2 * rows) ** 0.5)
