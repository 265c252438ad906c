"""Batch renormalisation by hand, and where its statistics go."""

from __future__ import annotations

import math

import torch

from agents import batch_renorm
from agents.batch_renorm import GroupBatchRenorm, Moments

CPU = torch.device("cpu")


def layer():
    """Of one number, whose batches [1, 3] have the mean 2 and the variance 1."""
    return GroupBatchRenorm(1, 1, CPU), torch.tensor([[[1.0], [3.0]]], requires_grad=True)


def test_without_moments_the_moving_statistics_count():
    norm, x = layer()
    with torch.no_grad():
        norm.mean.fill_(1.0)
        norm.variance.fill_(4.0 - batch_renorm.EPS)
        norm.weight.fill_(3.0)
        norm.bias.fill_(0.5)
    # (1 - 1) / 2 · 3 + 0.5 and (3 - 1) / 2 · 3 + 0.5
    torch.testing.assert_close(norm(x), torch.tensor([[[0.5], [3.5]]]))


def test_at_the_start_it_is_batch_normalisation():
    norm, x = layer()
    y = norm(x, Moments(renorm=False))
    torch.testing.assert_close(
        y, torch.nn.functional.batch_norm(x[0], None, None, training=True, eps=1e-3)[None]
    )


def test_renormalised_batches_are_those_of_acting_within_bounds():
    norm, x = layer()
    with torch.no_grad():
        norm.mean.fill_(1.0)
        norm.variance.fill_(4.0)
    # r = 1 / 2 and d = (2 - 1) / 2 are within 3 and 5: (x - 2) / 1 · ½ + ½ = (x - 1) / 2, as acting has it
    torch.testing.assert_close(norm(x, Moments(renorm=True)), norm(x))


def test_corrections_have_bounds():
    norm, x = layer()
    with torch.no_grad():
        norm.mean.fill_(-98.0)
        norm.variance.fill_(0.01 - batch_renorm.EPS)
    # r = 1 / 0.1 = 10 is 3, d = (2 + 98) / 0.1 = 1000 is 5: ∓1 · 3 + 5
    y = norm(x, Moments(renorm=True))
    torch.testing.assert_close(y, torch.tensor([[[2.0], [8.0]]]), rtol=1e-3, atol=1e-3)


def test_no_gradient_goes_through_the_corrections():
    norm, x = layer()
    with torch.no_grad():
        norm.mean.fill_(1.0)
        norm.variance.fill_(4.0)
    (slope,) = torch.autograd.grad(norm(x, Moments(renorm=True))[0, 1, 0], x)
    # of batch normalisation of two numbers y is ±1 whatever they are, but for ε: dy/dx ≈ 0
    assert slope.abs().max() < 1e-3


def test_moving_statistics_move_once_a_step_towards_what_was_found():
    norm, x = layer()
    moments = Moments(renorm=False)
    norm(x, moments)
    assert norm.mean.item() == 0.0  # until they are absorbed
    moments.absorb()
    # 0 + 0.01 · (2 - 0), 1 + 0.01 · (1 - 1)
    assert math.isclose(norm.mean.item(), 0.02, rel_tol=1e-6)
    assert norm.variance.item() == 1.0
    assert not norm.mean.requires_grad


def test_seeds_have_statistics_of_their_own():
    norm = GroupBatchRenorm(2, 3, CPU)
    x = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0))
    moments = Moments(renorm=False)
    both = norm(x, moments)
    moments.absorb()
    for k in range(2):
        alone, own = GroupBatchRenorm(1, 3, CPU), Moments(renorm=False)
        torch.testing.assert_close(alone(x[k : k + 1], own), both[k : k + 1])
        own.absorb()
        torch.testing.assert_close(alone.mean, norm.mean[k : k + 1])
        torch.testing.assert_close(alone.variance, norm.variance[k : k + 1])
