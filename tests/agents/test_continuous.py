"""Losses of actor-critic agents by hand."""

from __future__ import annotations

import math

import pytest
import torch

from agents import naf, sac, td3
from agents.actor_critic import Networks
from tests.agents.continuous import NO_MOMENTS, batch, column


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
