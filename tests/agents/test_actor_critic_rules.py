"""Equations of actor-critic methods by hand, and against torch's own distributions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.rules import actor_critic as rules


def test_a_squashed_gaussian_by_hand():
    # μ = 0, σ = 1, ε = 0: u = 0, a = tanh(0) = 0, log N(0; 0, 1) = -½ log 2π, 1 - tanh²(0) = 1
    # μ = 0.5, log σ = log 2, ε = 0.25: u = 0.5 + 2·0.25 = 1, a = tanh(1) = 0.76159416
    #   log N = -½·0.0625 - log 2 - ½ log 2π = -0.03125 - 0.69314718 - 0.91893853 = -1.64333571
    #   log(1 - tanh²(1)) = log(0.41997434) = -0.86756166, so log π = -1.64333571 + 0.86756166 = -0.77577405
    mean = torch.tensor([[0.0], [0.5]])
    log_std = torch.tensor([[0.0], [math.log(2.0)]])
    action, log_pi = rules.squashed_gaussian(mean, log_std, torch.tensor([[0.0], [0.25]]))
    torch.testing.assert_close(action, torch.tensor([[0.0], [0.76159416]]))
    torch.testing.assert_close(log_pi, torch.tensor([-0.91893853, -0.77577405]))


@given(
    st.floats(-3, 3), st.floats(-3, 1), st.floats(-3, 3),
    st.floats(-3, 3), st.floats(-3, 1), st.floats(-3, 3),
)  # fmt: skip
def test_a_squashed_gaussian_is_torchs_transformed_normal(m0, s0, e0, m1, s1, e1):
    mean, log_std, epsilon = (
        torch.tensor(pair, dtype=torch.float64) for pair in ((m0, m1), (s0, s1), (e0, e1))
    )
    action, log_pi = rules.squashed_gaussian(mean, log_std, epsilon)
    normal = torch.distributions.Normal(mean, log_std.exp())
    u = mean + log_std.exp() * epsilon
    expected = (normal.log_prob(u) - torch.log1p(-(torch.tanh(u) ** 2))).sum()
    torch.testing.assert_close(action, torch.tanh(u))
    torch.testing.assert_close(log_pi, expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_by_hand_is_that_of_plain_operations():
    generator = torch.Generator().manual_seed(0)
    mean, log_std, epsilon, weights = (
        torch.randn(7, 3, generator=generator, dtype=torch.float64) for _ in range(4)
    )
    inputs = mean.requires_grad_(), log_std.requires_grad_()

    def total(action, log_pi):
        return (action * weights).sum() + (log_pi * weights[:, 0]).sum()

    found = torch.autograd.grad(total(*rules.squashed_gaussian(*inputs, epsilon)), inputs)
    u = mean + log_std.exp() * epsilon
    normal = torch.distributions.Normal(mean, log_std.exp())
    # of a sample by ε: the density at u, whose own parameters count as well
    log_pi = (normal.log_prob(u) - torch.log1p(-(torch.tanh(u) ** 2))).sum(-1)
    expected = torch.autograd.grad(total(torch.tanh(u), log_pi), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_squashed_gaussian_far_out_is_finite():
    _, log_pi = rules.squashed_gaussian(torch.tensor([40.0, -40.0]), torch.zeros(2), torch.zeros(2))
    # log(1 - tanh²(u)) → 2 (log 2 - |u|) = -78.6137; twice, with two -½ log 2π
    torch.testing.assert_close(log_pi, torch.tensor(2 * (78.6137056 - 0.9189385)))


def test_the_density_of_a_squashed_gaussian_adds_up_to_one():
    # ∫ π(a) da = 1, by the substitution a = tanh(u) on a fine grid of a
    a = torch.linspace(-0.99999, 0.99999, 200_001, dtype=torch.float64).unsqueeze(-1)
    mean, log_std = torch.full_like(a, 0.3), torch.full_like(a, -0.5)
    epsilon = (torch.atanh(a) - mean) / log_std.exp()
    action, log_pi = rules.squashed_gaussian(mean, log_std, epsilon)
    torch.testing.assert_close(action, a)
    assert float(torch.trapezoid(log_pi.exp(), a.squeeze(-1))) == pytest.approx(1.0, abs=1e-3)


def test_a_soft_value():
    # 3 - 0.5·(-2) = 4: entropy is worth something; 3 - 0.5·2 = 2
    v = rules.soft_value(torch.tensor([3.0, 3.0]), torch.tensor([-2.0, 2.0]), torch.tensor(0.5))
    assert v.tolist() == [4.0, 2.0]


def test_a_temperature_rises_where_entropy_is_below_its_target():
    log_alpha = torch.zeros(2, requires_grad=True)
    # target entropy -1; log π = 3 is an entropy of -3, too little; log π = -4 one of 4, too much
    loss = rules.temperature_loss(log_alpha, torch.tensor([3.0, -4.0]), -1.0)
    # -α (log π + H̄) = -(3 - 1) and -(-4 - 1); the slope in log α is the same, as α = 1
    assert loss.tolist() == [-2.0, 5.0]
    (slope,) = torch.autograd.grad(loss.sum(), log_alpha)
    assert slope.tolist() == [-2.0, 5.0]  # a step down raises the first and lowers the second


def test_smoothing_clips_the_noise_and_then_the_action():
    # σ = 0.2, c = 0.5: ε = 1 gives 0.2; ε = 10 gives 2, which is 0.5; 0.9 + 0.5 is 1 at most
    action = torch.tensor([0.1, 0.1, 0.9, -0.9])
    epsilon = torch.tensor([1.0, 10.0, 10.0, -10.0])
    found = rules.smoothed(action, epsilon, 0.2, 0.5)
    torch.testing.assert_close(found, torch.tensor([0.3, 0.6, 1.0, -1.0]))


def test_the_largest_of_all_critics_quantiles_are_left_out():
    # two critics of three: pooled 1 2 3 4 5 9, of which one each, two in all, are dropped
    quantiles = torch.tensor([[[1.0, 9.0, 3.0], [5.0, 2.0, 4.0]]])
    assert rules.pooled(quantiles, 2).tolist() == [[1.0, 2.0, 3.0, 4.0]]
    assert rules.pooled(quantiles, 0).tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0, 9.0]]


def test_a_triangle_has_an_exponential_diagonal():
    # row by row: l11; l21 l22; l31 l32 l33
    lower = rules.triangular(torch.tensor([0.0, 5.0, 1.0, 6.0, 7.0, 2.0]), 3)
    expected = [[1.0, 0.0, 0.0], [5.0, math.e, 0.0], [6.0, 7.0, math.e**2]]
    torch.testing.assert_close(lower, torch.tensor(expected))


def test_a_triangles_diagonal_is_finite_far_out():
    found = rules.triangular(torch.tensor([1000.0, 2.0, -1000.0]), 2)
    torch.testing.assert_close(found.diagonal(), torch.tensor([5.0, -10.0]).exp())


def test_a_quadratic_advantage_by_hand():
    # L = [[2, 0], [1, 3]], P = L Lᵀ = [[4, 2], [2, 10]]; d = (1, -1): dᵀ P d = 4 - 2 - 2 + 10 = 10
    lower = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    action, mean = torch.tensor([1.5, -0.5]), torch.tensor([0.5, 0.5])
    assert rules.quadratic_advantage(action, mean, lower).item() == -5.0
    assert rules.quadratic_advantage(mean, mean, lower).item() == 0.0
