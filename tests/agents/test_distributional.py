"""Distributional and Munchausen rules against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules import distributional, munchausen

SUPPORT = torch.tensor([-1.0, 0.0, 1.0, 2.0])


def project(values, weights):
    return distributional.project(torch.tensor(values), torch.tensor(weights), SUPPORT).tolist()


@pytest.mark.parametrize(
    ("values", "weights", "expected"),
    [
        ([0.25], [1.0], [0, 0.75, 0.25, 0]),  # a quarter of the way from 0 to 1
        ([1.0], [1.0], [0, 0, 1, 0]),  # on a place: all of it, nothing lost
        ([2.0, -1.0], [0.5, 0.5], [0.5, 0, 0, 0.5]),  # the edges themselves
        ([5.0, -7.0], [0.25, 0.75], [0.75, 0, 0, 0.25]),  # beyond: at the edge
        # r = 0.5, γ = 0.5 from the places with p = (0.1, 0.2, 0.3, 0.4): 0, 0.5, 1, 1.5. To 0: 0.1 +
        # half of 0.2; to 1: the other half, 0.3 and half of 0.4; to 2 the rest
        ([0.0, 0.5, 1.0, 1.5], [0.1, 0.2, 0.3, 0.4], [0, 0.2, 0.6, 0.2]),
    ],
)
def test_the_projection_by_hand(values, weights, expected):
    assert project(values, weights) == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 9))
def test_the_projection_keeps_weight_and_mean(seed, size):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand((3, size), generator=generator) * 3 - 1  # within the support
    weights = torch.softmax(torch.randn((3, size), generator=generator), -1)
    projected = distributional.project(values, weights, SUPPORT)
    torch.testing.assert_close(projected.sum(-1), torch.ones(3))
    torch.testing.assert_close(projected @ SUPPORT, (values * weights).sum(-1), atol=1e-5, rtol=0)


def test_the_divergence_by_hand():
    # m = (1/2, 1/2, 0), p = (1/4, 3/4 - 1/8, 1/8): ½ ln(½ / ¼) + ½ ln(½ / ⅝)
    logits = torch.tensor([0.25, 0.625, 0.125]).log() + 3.0  # a constant is no matter
    target = torch.tensor([0.5, 0.5, 0.0])
    expected = 0.5 * math.log(2) + 0.5 * math.log(0.8)
    assert distributional.divergence(logits, target).item() == pytest.approx(expected)


def test_the_divergence_has_the_slope_of_the_cross_entropy():
    logits = torch.tensor([0.3, -1.0, 0.5], requires_grad=True)
    target = torch.tensor([0.2, 0.0, 0.8])
    (slope,) = torch.autograd.grad(distributional.divergence(logits, target), logits)
    torch.testing.assert_close(slope, torch.softmax(logits.detach(), -1) - target)  # softmax - m


def test_quantile_huber_by_hand():
    """θ = (0, 2) at τ = (¼, ¾), targets (1, 4), δ = 1.

    θ₀ = 0: u = 1, 4, both above: ¼ · (½ + 3½) / 2 = ½. θ₁ = 2: u = -1, below: |¾ - 1| · ½ = ⅛; u = 2:
    ¾ · 1½ = 1⅛; their mean ⅝. Together 1⅛. With all the weight on target 1: ¼ · ½ + ⅛ = ¼.
    """
    quantiles, taus = torch.tensor([0.0, 2.0]), torch.tensor([0.25, 0.75])
    target = torch.tensor([1.0, 4.0])
    loss = distributional.quantile_huber(quantiles, taus, target, None, 1.0)
    assert loss.item() == pytest.approx(1.125)
    weights = torch.tensor([1.0, 0.0])
    loss = distributional.quantile_huber(quantiles, taus, target, weights, 1.0)
    assert loss.item() == pytest.approx(0.25)
    # δ = 2, divided by it: θ₀ = 0: ¼ (½ + 6) / 2 / 2 = 0.40625; θ₁: (¼ · ½ + ¾ · 2) / 2 / 2 = 0.40625
    loss = distributional.quantile_huber(quantiles, taus, target, None, 2.0)
    assert loss.item() == pytest.approx(0.8125)


def test_regressed_quantiles_are_those_of_the_target():
    """The minimum of the loss, for a small δ: the quantiles of 0, 1, ..., 9 at ¼, ½ and ¾."""
    taus = torch.tensor([0.25, 0.5, 0.75])
    target = torch.arange(10.0)
    quantiles = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.SGD([quantiles], lr=0.05)
    for _ in range(3_000):
        optimizer.zero_grad()
        distributional.quantile_huber(quantiles, taus, target, None, 0.01).backward()
        optimizer.step()
    # a quarter of the targets lies below anything in (1, 3), which with 2 costs the least
    expected = torch.tensor([2.0, 4.5, 7.0])
    assert ((quantiles.detach() - expected).abs() <= 0.6).all()


@given(
    st.lists(st.integers(-6, 6), min_size=1, max_size=9),
    st.lists(st.integers(-6, 6), min_size=1, max_size=5),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_without_pairs_quantile_huber_is_what_it_is_with_them(targets, predictions, delta):
    """Whole and half numbers, so that predictions meet targets, and edges do."""
    target = 0.5 * torch.tensor([targets, [-t for t in targets]], dtype=torch.float32)
    ordered = target.sort(-1).values
    quantiles = 0.5 * torch.tensor([predictions, predictions[::-1]], dtype=torch.float32)
    quantiles.requires_grad_()
    taus = distributional.midpoints(len(predictions))
    weights = torch.tensor([1.0, -2.0])  # a gradient of each row's own
    slow = distributional.quantile_huber(quantiles, taus, ordered, None, delta)
    fast = distributional.ordered_quantile_huber(quantiles, taus, ordered, delta)
    torch.testing.assert_close(fast, slow)
    slopes = [torch.autograd.grad((y * weights).sum(), quantiles)[0] for y in (fast, slow)]
    torch.testing.assert_close(*slopes)


def test_far_from_zero_the_sums_lose_nothing():
    """Squares of a million, even in double precision, are 1e-4 apart."""
    generator = torch.Generator().manual_seed(0)
    ordered = (1e6 + torch.randn(115, generator=generator)).sort().values
    quantiles = 1e6 + torch.randn(25, generator=generator)
    taus = distributional.midpoints(25)
    slow = distributional.quantile_huber(quantiles, taus, ordered, None, 1.0)
    fast = distributional.ordered_quantile_huber(quantiles, taus, ordered, 1.0)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=0.0)


def test_midpoints():
    assert distributional.midpoints(4).tolist() == [0.125, 0.375, 0.625, 0.875]


def test_the_soft_policy_by_hand():
    # τ = 2: q / τ = (0, ln 3), so π = (¼, ¾)
    q = torch.tensor([0.0, 2 * math.log(3)])
    log_pi = munchausen.log_policy(q, 2.0, None)
    torch.testing.assert_close(log_pi.exp(), torch.tensor([0.25, 0.75]))
    # α [τ log π] = 0.9 · 2 ln ¼ = -2.495, and no lower than 0.9 · -1
    assert munchausen.bonus(log_pi[0], 0.9, 2.0, -10.0).item() == pytest.approx(
        1.8 * math.log(0.25)
    )
    assert munchausen.bonus(log_pi[0], 0.9, 2.0, -1.0).item() == pytest.approx(-0.9)


def test_illegal_actions_have_no_probability_and_cost_nothing():
    q = torch.tensor([[1e3, 0.0, -1e3], [1.0, 2.0, 3.0]])
    mask = torch.tensor([[False, True, True], [False, False, False]])
    log_pi = munchausen.log_policy(q, 0.03, mask)
    policy = log_pi.exp()
    torch.testing.assert_close(policy[0], torch.tensor([0.0, 1.0, 0.0]))
    assert torch.isfinite(policy * (q - 0.03 * log_pi)).all()
    torch.testing.assert_close(policy[1].sum(), torch.tensor(1.0))  # nothing legal: no matter what
