"""What the learner of actor-critic agents does with their losses, and what its networks are."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from agents import actor_critic, naf, sac, sac_named, td3
from agents.actor_critic import _normalised
from agents.batch_renorm import Moments
from agents.continuous_networks import MLP
from agents.hyper import BadValue
from agents.layers import GroupLinear
from agents.networks import initialise
from tests.agents.continuous import NO_MOMENTS, SPEC, batch, column, learner, rollout
from tests.agents.slow_machine import Recorder


def test_actions_reach_the_loss_in_units_of_one(monkeypatch):
    seen = []
    made = learner(sac.SACConfig())
    whole = sac.SACConfig.critic_loss

    def watched(self, networks, rows, noise, moments):
        seen.append(rows.action)
        return whole(self, networks, rows, noise, moments)

    monkeypatch.setattr(sac.SACConfig, "critic_loss", watched)
    made.observe(rollout(0.0, action=2.5))
    made.update()
    # of -2 .. 4 the middle is 1 and half the width 3: (2.5 - 1) / 3
    torch.testing.assert_close(seen[0], torch.full((1, 8, 1), 0.5))


def test_an_end_by_time_bootstraps_and_one_by_the_task_does_not():
    config = sac.SACConfig(gamma=0.5)
    for terminated, discounts in ((True, {0.0, 0.5}), (False, {0.5})):
        made = learner(config)
        made.observe(rollout(1.0, terminated=terminated, truncated=not terminated))
        found = set()
        for _ in range(20):
            found |= set(made.replay.sample().discount.flatten().tolist())
        assert found == discounts


def test_the_policy_learns_at_every_second_update_and_so_do_targets():
    made = learner(td3.TD3Config(), td3)
    made.observe(rollout(1.0))
    names = {"policy": made.fast["policy"], "critics": made.fast["critics"], **{
        f"slow {name}": flat for name, flat in made.slow.items()
    }}  # fmt: skip
    moved = []
    for _ in range(4):
        before = {name: its.flat.clone() for name, its in names.items()}
        made.update()
        moved.append(
            {name for name, its in names.items() if not torch.equal(its.flat, before[name])}
        )
    assert moved == [{"critics"}, set(names)] * 2


def test_a_target_moves_by_tau():
    made = learner(sac.SACConfig(target_tau=0.25))
    made.observe(rollout(1.0))
    slow = made.slow["critics"].flat.clone()
    made.update()
    torch.testing.assert_close(made.slow["critics"].flat, 0.75 * slow + 0.25 * made.online.flat)


def test_a_recorded_update_of_each_kind_is_the_eager_one(monkeypatch):
    config = td3.TD3Config(
        normalise_obs=True, lr=2.0**-10
    )  # the same in float32, which a graph reads
    plain, graphed = learner(config, td3), learner(config, td3)
    changed = [flat.flat for flat in (*graphed.fast.values(), *graphed.slow.values())]
    for optimizer in graphed.optimizers.values():
        changed += [optimizer.mean, optimizer.square, optimizer.count]
    machine = Recorder(changed)
    monkeypatch.setattr(actor_critic, "machine_of", lambda device: machine)
    graphed.compile()
    for made in (plain, graphed):
        for turn in range(8):
            made.observe(
                rollout(1.0, obs=float(turn))
            )  # which moves what observations are normalised by
            made.update()
            made.update()
    assert machine.records == 2  # with the policy and without
    for name, each in plain._flats().items():
        torch.testing.assert_close(each.flat, graphed._flats()[name].flat, rtol=0, atol=0)


def test_crossq_absorbs_statistics_of_both_halves_and_of_the_policy():
    made = learner(sac_named.CrossQConfig(policy_period=1))
    made.observe(rollout(1.0, obs=3.0))
    assert not made.slow
    rows = batch([1.0] * 8, [1.0] * 8, [0.5] * 8, obs=[3.0] * 8, next_obs=[5.0] * 8)
    drawn = {"epsilon_t": torch.zeros(1, 8, 1), "epsilon_tm1": torch.zeros(1, 8, 1)}
    next_action = made.networks.policy.mode(rows.next_obs).detach()
    moments = Moments(renorm=False)
    made.hyper.critic_loss(made.networks, rows, drawn, moments)
    moments.absorb()
    first = made.networks.critics.mlp.layers[0]
    # a hundredth of the way from 0 to the mean of both halves: of 3 and 5, of ½ and the next action
    torch.testing.assert_close(first.mean[0, 0, 0], torch.tensor(0.04), rtol=1e-5, atol=0)
    torch.testing.assert_close(first.mean[0, 0, 1], 0.01 * (0.5 + next_action.mean()) / 2)
    made.update()
    assert made.networks.policy.mlp.layers[0].mean.item() > 0.02


def test_of_two_passes_in_one_only_the_prediction_has_a_gradient():
    made = learner(sac_named.CrossQConfig())
    made.observe(rollout(1.0))
    rows, action = made._view(made.replay.sample()), torch.zeros(1, 8, 1)
    q_tm1, q_t = made.hyper._values(made.networks, rows, action, {}, Moments(renorm=False))
    assert q_tm1.requires_grad
    assert not q_t.requires_grad


def test_every_pass_of_droq_has_masks_of_its_own():
    """A pass without its masks would be one without dropout, and nothing else would tell."""
    made = learner(sac_named.DroQConfig(replay_ratio=1.0, dropout=0.5))
    made.observe(rollout(1.0))
    rows = made._view(made.replay.sample())
    drawn = made.hyper.draw(made.networks, rows, made.generators, policy_due=True)
    passes = {name: mask for name, mask in drawn.items() if "dropout" in name}
    assert set(passes) == {f"{of}.dropout0" for of in ("online", "target", "policy")}
    losses = {
        "online": made.hyper.critic_loss, "target": made.hyper.critic_loss, "policy": made.hyper.policy_loss
    }  # fmt: skip
    for of, loss in losses.items():
        mask = passes[f"{of}.dropout0"]
        assert not torch.equal(mask[0], mask[1])  # the two critics
        with torch.no_grad():
            as_drawn, without = (
                loss(made.networks, rows, noise, NO_MOMENTS).loss
                for noise in (drawn, {**drawn, f"{of}.dropout0": torch.zeros_like(mask)})
            )
        assert not torch.equal(as_drawn, without), of
        rest = {name: noise for name, noise in drawn.items() if not name.startswith(of)}
        with pytest.raises(AssertionError, match=of):
            loss(made.networks, rows, rest, NO_MOMENTS)


def test_nafs_best_action_is_the_top_of_its_values():
    made = learner(naf.NAFConfig(), naf, spec=dataclasses.replace(
        SPEC, action_shape=(2,), action_low=np.full(2, -1.0, np.float32), action_high=np.ones(2, np.float32)
    ))  # fmt: skip
    critic, obs = made.networks.critics, column(0.5, -1.0, 2.0)
    best = critic.mode(obs)
    torch.testing.assert_close(critic(obs, best)[:, 0, :, 0], critic.value(obs))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = 2.0 * torch.rand(best.shape, generator=generator) - 1.0
        assert (critic(obs, other)[:, 0, :, 0] < critic.value(obs)).all()


def test_a_deterministic_policy_explores_by_sigma_and_within_bounds():
    made = learner(td3.TD3Config(exploration=0.1), td3)
    policy, rows = made.networks.policy, 20_000
    obs = torch.full((1, rows, 1), 0.3)
    epsilon = torch.randn(1, rows, 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        apart = policy.explore(obs, epsilon) - policy.mode(obs)
        assert apart.std().item() == pytest.approx(0.1, rel=4 / math.sqrt(2 * rows))
        far = policy.explore(obs, 100.0 * epsilon)
    assert (far.min().item(), far.max().item()) == (-1.0, 1.0)


def test_a_gaussians_deviation_is_bounded_and_its_slope_ends_there():
    made = learner(sac.SACConfig())
    policy = made.networks.policy
    with torch.no_grad():
        policy.mlp.layers[-1].bias[..., 1] = 50.0
    _, log_std = policy(column(0.0))
    assert log_std.item() == 2.0
    (slope,) = torch.autograd.grad(log_std.sum(), policy.mlp.layers[-1].bias)
    assert (slope == 0).all()


def test_what_a_policy_is_paid_is_its_temperature_times_its_entropy():
    """Of a Gaussian of deviation σ, small enough that tanh is a factor of 1: α (½ ln 2πe + ln σ), on the mean."""
    made = learner(sac.SACConfig(alpha=0.5))
    actor = sac.make_actor(made.hyper, SPEC, [np.random.default_rng(0)])
    actor.load_params(made.params())
    last = actor.policy.mlp.layers[-1]
    last.weight.zero_()
    last.bias[:] = torch.tensor([0.0, -4.0])
    generator = np.random.default_rng(0)
    paid = actor.paid(np.zeros((1, 20_000, 1), np.float32), generator)
    assert paid.shape == (1, 20_000)
    # ½ (ε² - 1) has the deviation √½
    expected = 0.5 * (0.5 * math.log(2 * math.pi * math.e) - 4.0)
    assert paid.mean() == pytest.approx(expected, abs=5 * 0.5 * math.sqrt(0.5 / 20_000) + 1e-3)
    plain = td3.make_actor(td3.TD3Config(hidden=(8,)), SPEC, [np.random.default_rng(0)])
    assert plain.paid(np.zeros((1, 3, 1), np.float32), generator).tolist() == [[0.0] * 3]


def test_a_temperature_is_learned_unless_it_is_fixed():
    made = learner(sac.SACConfig())
    made.observe(rollout(1.0))
    made.update()
    alpha = made.networks.policy.log_alpha
    assert alpha.requires_grad
    assert alpha.item() != 0.0  # α of 1 has moved
    fixed = learner(sac.SACConfig(learn_alpha=False, alpha=0.2))
    fixed.observe(rollout(1.0))
    fixed.update()
    assert fixed.networks.policy.log_alpha.item() == pytest.approx(math.log(0.2))


def test_observations_are_normalised_by_what_came_so_far_and_actors_know():
    made = learner(sac.SACConfig(normalise_obs=True))
    rows = rollout(1.0)
    rows.obs[:, 0, 0] = [
        0.0,
        2.0,
        0.0,
        2.0,
        0.0,
        2.0,
        77.0,
    ]  # the last one comes again as the next first
    made.observe(rows)
    params = made.params()
    assert params.tensors["obs_mean"].item() == 1.0
    # sample variance of three 0 and three 2: 6 / 5
    assert params.tensors["obs_scale"].item() == pytest.approx(math.sqrt(5 / 6))
    actor = sac.make_actor(made.hyper, SPEC, [np.random.default_rng(0)])
    actor.load_params(params)
    seen = actor._input(np.full((1, 3, 1), 3.0, np.float32))
    torch.testing.assert_close(seen, torch.full((1, 3, 1), 2.0 * math.sqrt(5 / 6)))
    torch.testing.assert_close(_normalised(torch.full((1, 3, 1), 3.0), made.seen), seen)
    for far in (-1e6, 1e6):  # ten deviations at most
        torch.testing.assert_close(
            _normalised(torch.full((1, 3, 1), far), made.seen),
            torch.full((1, 3, 1), math.copysign(10.0, far)),
        )
        assert actor._input(np.full((1, 3, 1), far)).unique().item() == math.copysign(10.0, far)


def test_actions_are_uniform_until_learning_starts_and_within_bounds_always():
    config = sac.SACConfig(hidden=(8,), replay_size=300)
    actor = sac.make_actor(config, SPEC, [np.random.default_rng(0)])
    obs, first = np.zeros((1, 4_000, 1), np.float32), np.zeros((1, 4_000), np.bool_)
    drawn, _, _ = actor.act(obs, first, {}, {}, True)
    assert drawn.shape == (1, 4_000, 1)
    assert drawn.dtype == np.float32
    # uniform on -2 .. 4: mean 1, deviation 6 / √12 = 1.732, each to four standard errors
    assert drawn.mean() == pytest.approx(1.0, abs=4 * 1.732 / math.sqrt(4_000))
    assert drawn.std() == pytest.approx(1.732, abs=0.06)
    made = learner(sac.SACConfig())
    made.lane_steps = 5
    assert made.params().scalars == {"uniform_actions": 0.0}
    actor = sac.make_actor(made.hyper, SPEC, [np.random.default_rng(0)])
    actor.load_params(made.params())
    actor.policy.mlp.layers[-1].bias.fill_(50.0)  # tanh is 1 there
    best, _, extras = actor.act(obs, first, {}, {}, False)
    assert (best == 4.0).all()
    assert extras["seen"] is obs
    drawn, _, _ = actor.act(obs, first, {}, {}, True)
    assert drawn.min() >= -2.0
    assert drawn.max() <= 4.0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"norm": "batch"}, "no-target-network"),
        ({"target_network": False}, "norm batch"),
        ({"target_critics": 3}, "at most critics = 2"),
        ({"quantiles": 2, "dropped": 2}, "less than quantiles"),
        ({"quantiles": 5, "target_critics": 1}, "pooled of all"),
        ({"replay_size": 10}, "batch_size"),
        ({"norm": "batch", "target_network": False, "dropout": 0.1}, "leave dropout"),
        ({"norm": "batch", "target_network": False, "target_critics": 1}, "leave dropout"),
    ],
)
def test_combinations_without_sense_are_refused(config, message):
    with pytest.raises(BadValue, match=message):
        sac.SACConfig(**config)


@pytest.mark.parametrize(("norm", "gain"), [("none", 1 / 3), ("layer", 1 / 3), ("batch", 1.0)])
def test_initial_weights_are_those_of_the_authors_libraries(norm, gain):
    """Variance times inputs; of 16,384 and more normal numbers within 5 deviations."""
    mlp = MLP(2, 64, (256, 256), 16, torch.device("cpu"), norm=norm)
    initialise(mlp, [torch.Generator().manual_seed(k) for k in range(2)])
    found = [m.weight for m in mlp.modules() if isinstance(m, GroupLinear)]
    assert [weight.shape[1] for weight in found] == [64, 256, 256]
    for weight in found:
        share = weight.detach().var(dim=(1, 2)) * weight.shape[1] / gain
        assert ((share - 1.0).abs() < 5 * (2 / weight[0].numel()) ** 0.5).all()
