"""Losses of actor-critic agents by hand, and what their learner does with them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from agents import actor_critic, naf, sac, sac_named, td3
from agents.actor_critic import Networks, _normalised
from agents.batch_renorm import Moments
from agents.contract import Batch, Rollout
from agents.hyper import BadValue
from envs.contract import Spec
from tests.agents.slow_machine import Recorder

CPU = torch.device("cpu")
SPEC = Spec(
    (1,), np.float32, 0, 0, (1,), np.float32,
    np.array([-2.0], np.float32), np.array([4.0], np.float32),
)  # fmt: skip
"""One number to look at, one to do; actions from -2 to 4, so 1 is the middle and 3 the half width."""
NO_MOMENTS = Moments(renorm=False)


def column(*numbers):
    """[1, B, 1]."""
    return torch.tensor(numbers, dtype=torch.float32).view(1, -1, 1)


def batch(reward, discount, action=(0.0,), obs=(0.0,), next_obs=(0.0,)):
    rows = torch.tensor([reward]), torch.tensor([discount])
    return Batch(column(*obs), column(*action), *rows, column(*next_obs))


class Constant:
    """A policy that does one thing, whose log-probability is given; α is ½."""

    def __init__(self, action, log_pi):
        self.action, self.log_pi = action, log_pi
        self.log_alpha = torch.full((1, 1), math.log(0.5), requires_grad=True)

    def sample(self, x, epsilon, moments=None):
        del epsilon, moments
        return torch.full_like(x, self.action), torch.full(x.shape[:2], self.log_pi)

    def __call__(self, x):
        return torch.full_like(x, self.action)


class Linear:
    """Critics ``wₑ a`` of the action alone; of several quantiles that lie so far apart."""

    def __init__(self, weights, apart=(0.0,)):
        self.weights = torch.tensor(weights, requires_grad=True)
        self.apart = torch.tensor(apart)

    def __call__(self, x, action, noise=None, moments=None):
        del x, noise, moments
        q = self.weights.view(1, -1, 1, 1) * action.unsqueeze(1)  # [1, E, B, 1]
        return q + self.apart

    def some(self, chosen, x, action, noise=None):
        del noise
        return self(x, action)[:, chosen[0]]


NOISE = {"epsilon_t": None, "epsilon_tm1": None}


def test_sacs_critics_learn_the_soft_value_of_the_least():
    # next action 2, critics 3·2 and 1·2, the least 2; soft value 2 - ½·(-4) = 4
    # target 1 + 0.9·4 = 4.6; predictions at action 1: 3 and 1; ½ (1.6² + 3.6²) = 7.76
    networks = Networks(Constant(2.0, -4.0), Linear([3.0, 1.0]), None, Linear([3.0, 1.0]))
    out = sac.SACConfig().critic_loss(
        networks, batch([1.0], [0.9], action=(1.0,)), NOISE, NO_MOMENTS
    )
    torch.testing.assert_close(out.loss, torch.tensor([[7.76]]))
    assert out.metrics["target_mean"].item() == pytest.approx(4.6)
    assert out.metrics["q_mean"].item() == 2.0
    assert out.metrics["td_error"].item() == pytest.approx(2.6)
    (slope,) = torch.autograd.grad(out.loss.sum(), networks.critics.weights)
    torch.testing.assert_close(slope, torch.tensor([3.0 - 4.6, 1.0 - 4.6]))


def test_nothing_follows_a_termination():
    networks = Networks(Constant(2.0, -4.0), Linear([3.0, 1.0]), None, Linear([3.0, 1.0]))
    out = sac.SACConfig().critic_loss(
        networks, batch([1.0], [0.0], action=(1.0,)), NOISE, NO_MOMENTS
    )
    assert out.metrics["target_mean"].item() == 1.0


def test_redqs_target_is_of_the_critics_drawn():
    # of 5, 1 and 3 times the action 2, those numbered 0 and 2 give 10 and 6: 6 + 2 = 8, times 0.5
    config = sac.SACConfig(critics=3, target_critics=2)
    critics = Linear([5.0, 1.0, 3.0])
    noise = {**NOISE, "chosen": torch.tensor([[0, 2]])}
    out = config.critic_loss(
        Networks(Constant(2.0, -4.0), critics, None, critics),
        batch([0.0], [0.5]),
        noise,
        NO_MOMENTS,
    )
    assert out.metrics["target_mean"].item() == 4.0


def test_tqcs_target_leaves_out_the_largest_quantiles_of_all():
    # two critics, quantiles 2w + (-1, 0, 3): 1 2 5 and 3 4 7; two are dropped: 1 2 3 4, mean 2.5
    # soft: + 2, reward 1, discount 1: 5.5
    config = sac.SACConfig(quantiles=3, dropped=1)
    critics = Linear([1.0, 2.0], (-1.0, 0.0, 3.0))
    networks = Networks(Constant(2.0, -4.0), critics, None, critics)
    out = config.critic_loss(networks, batch([1.0], [1.0], action=(0.0,)), NOISE, NO_MOMENTS)
    assert out.metrics["target_mean"].item() == pytest.approx(5.5)
    # prediction -1 0 3 of both, targets 4 5 6 7; Huber at 1, all but (3, 4) by |u| - ½, that one ½
    # u: 5 6 7 8 | 4 5 6 7 | 1 2 3 4; Huber means 6, 5 and (½ + 1.5 + 2.5 + 3.5) / 4 = 2
    # times τ = 1/6, 1/2, 5/6 (all above): 1 + 2.5 + 1.6667, over three quantiles, for two critics
    torch.testing.assert_close(out.loss, torch.tensor([[2 * (1 + 2.5 + 5 / 3) / 3]]))


def test_sacs_policy_climbs_the_least_critic_and_is_paid_for_entropy():
    # ½·(-4) - min(3·2, 1·2) = -4; temperature -½·(-4 - 1) = 2.5
    policy = Constant(2.0, -4.0)
    networks = Networks(policy, Linear([3.0, 1.0]), None, None)
    out = sac.SACConfig().policy_loss(networks, batch([0.0], [0.0]), NOISE, NO_MOMENTS)
    torch.testing.assert_close(out.loss, torch.tensor([[-4.0 + 2.5]]))
    assert out.metrics["entropy"].item() == 4.0
    mean = sac.SACConfig(policy_value="mean", learn_alpha=False)
    out = mean.policy_loss(networks, batch([0.0], [0.0]), NOISE, NO_MOMENTS)
    torch.testing.assert_close(out.loss, torch.tensor([[-2.0 - 4.0]]))


def test_td3s_target_is_the_least_value_of_a_smoothed_action():
    # slow action 0.9, noise 0.2·10 clipped to 0.5, the sum to 1: values 3·1 and -2·1; 1 + 0.9·(-2)
    slow = Networks(Constant(0.0, 0.0), Linear([1.0, 1.0]), Constant(0.9, 0.0), Linear([3.0, -2.0]))
    noise = {"epsilon": column(10.0)}
    out = td3.TD3Config().critic_loss(slow, batch([1.0], [0.9], action=(0.5,)), noise, NO_MOMENTS)
    assert out.metrics["target_mean"].item() == pytest.approx(-0.8)
    torch.testing.assert_close(out.loss, torch.tensor([[1.3**2]]))  # both predict ½
    # DDPG has one critic and no noise: 1 + 0.9·(3·0.9)
    one = Networks(None, Linear([1.0]), Constant(0.9, 0.0), Linear([3.0]))
    out = td3.DDPGConfig().critic_loss(one, batch([1.0], [0.9]), {}, NO_MOMENTS)
    assert out.metrics["target_mean"].item() == pytest.approx(3.43)


def test_td3s_policy_climbs_the_first_critic():
    networks = Networks(Constant(0.5, 0.0), Linear([3.0, 100.0]), None, None)
    out = td3.TD3Config().policy_loss(networks, batch([0.0], [0.0]), {}, NO_MOMENTS)
    assert out.loss.item() == -1.5


def test_nafs_target_is_the_slow_networks_value():
    class Quadratic(Linear):
        def value(self, x):
            return x[..., 0] * 10.0

    critics = Quadratic([2.0])
    networks = Networks(None, critics, None, critics)
    rows = batch([1.0], [0.5], action=(1.0,), next_obs=(0.4,))
    out = naf.NAFConfig().critic_loss(networks, rows, {}, NO_MOMENTS)
    # 1 + ½·4 = 3, predicted 2·1
    assert out.metrics["target_mean"].item() == pytest.approx(3.0)
    torch.testing.assert_close(out.loss, torch.tensor([[0.5]]))


@pytest.mark.parametrize("rate", [0.01, 0.5])
def test_a_dropout_mask_is_of_independent_draws(rate):
    size, times = 1_000, 400
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([sac.dropout_mask(size, rate, generator) for _ in range(times)])
    assert set(masks.unique().tolist()) == {0.0, masks.max().item()}
    assert masks.max().item() == pytest.approx(1 / (1 - rate))
    dropped = masks == 0
    # of 400,000 draws; next to each other they know nothing of each other
    deviation = math.sqrt(rate * (1 - rate) / (size * times))
    assert dropped.float().mean().item() == pytest.approx(rate, abs=4 * deviation)
    both = (dropped[:, 1:] & dropped[:, :-1]).float().mean().item()
    assert both == pytest.approx(rate**2, abs=4 * math.sqrt(rate**2 / (size * times)))
    for edge in (dropped[:, 0], dropped[:, -1]):
        at_edge = math.sqrt(rate * (1 - rate) / times)
        assert edge.float().mean().item() == pytest.approx(rate, abs=4 * at_edge)


# -- The learner ---------------------------------------------------------------------------------


def rollout(reward, *, action=0.0, terminated=False, truncated=False, obs=0.0, rows=6):
    """Rows of one lane that all say the same; the last one ends as told."""
    shape = (rows, 1)
    ends = np.zeros(shape, np.bool_)
    ended, cut = ends.copy(), ends.copy()
    ended[-1], cut[-1] = terminated, truncated
    return Rollout(
        obs=np.full((rows + 1, 1, 1), obs, np.float32), first=np.zeros((rows + 1, 1), np.bool_),
        action=np.full((rows, 1, 1), action, np.float32), reward=np.full(shape, reward, np.float32),
        terminated=ended, truncated=cut,
    )  # fmt: skip


def learner(config, module=sac, spec=SPEC, seeds=1):
    return module.make_learner(
        dataclasses.replace(config, replay_size=64, batch_size=8, hidden=(8,), learning_starts=0),
        spec,
        1,
        [np.random.SeedSequence([k]) for k in range(seeds)],
        [np.random.default_rng(k) for k in range(seeds)],
        CPU,
    )


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
