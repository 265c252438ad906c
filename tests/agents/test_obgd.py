"""ObGD by hand: where the bound bites and where it does not; traces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.networks import FlatParameters
from agents.obgd import ObGD
from agents.stream_network import StreamNetwork
from envs.contract import Spec

X = torch.tensor([1.0, 2.0])


def optimizer(seeds=1, lr=1.0, kappa=2.0, decay=0.5):
    """For q(x) = x W + b with all parameters 0."""
    network = StreamNetwork(Spec((2,), np.float32, 0, 2), seeds, (), torch.device("cpu"))
    return ObGD(FlatParameters(network), lr, kappa, decay), network


def step(made, network, delta, action=0, before=1.0, after=1.0):
    """One step of seeds that all took ``action`` at X."""
    seeds = len(delta)
    q = network(X.expand(seeds, 1, 2))[:, 0, action]
    flags = (torch.full((seeds,), flag) for flag in (before, after))
    made.step(q, torch.tensor(delta), *flags)


def column(network, k=0, action=0):
    """Weights and bias of one action."""
    head = network.head
    return [*head.weight[k, :, action].tolist(), head.bias[k, 0, action].item()]


def test_the_whole_step_where_the_bound_does_not_bite():
    # z = (1, 2, 1), ‖z‖₁ = 4; α κ max(0.5, 1) ‖z‖₁ = 0.1 · 2 · 1 · 4 = 0.8 < 1: θ = 0.1 · 0.5 z
    made, network = optimizer(lr=0.1)
    step(made, network, [0.5])
    assert column(network) == pytest.approx([0.05, 0.1, 0.05])
    assert column(network, action=1) == [0.0, 0.0, 0.0]


def test_a_shorter_step_where_it_does():
    # 1 · 2 · 3 · 4 = 24: θ = -3 / 24 z. q changes by -0.125 · (1 + 4 + 1) = -0.75, less than the error
    made, network = optimizer()
    step(made, network, [-3.0])
    assert column(network) == pytest.approx([-0.125, -0.25, -0.125])
    # at small errors max(|δ|, 1) = 1: 1 · 2 · 1 · 4 = 8, θ = 0.5 / 8 z
    made, network = optimizer()
    step(made, network, [0.5])
    assert column(network) == pytest.approx([0.0625, 0.125, 0.0625])


def test_each_seed_has_a_bound_of_its_own():
    # α = 0.1: 0.8 < 1 at δ = 0.5, and 0.1 · 2 · 3 · 4 = 2.4 at δ = 3, so 0.1 · 3 / 2.4 = 0.125
    made, network = optimizer(seeds=2, lr=0.1)
    step(made, network, [0.5, 3.0])
    assert column(network, 0) == pytest.approx([0.05, 0.1, 0.05])
    assert column(network, 1) == pytest.approx([0.125, 0.25, 0.125])


def test_a_trace_decays_and_gathers():
    # z: (1, 2, 1) for action 0; then half of it, and (1, 2, 1) for action 1: ‖z‖₁ = 2 + 4 = 6.
    # The second step is δ = 1 of 2 · 6 = 12: action 0 gains z / 24 and action 1 z / 12
    made, network = optimizer()
    step(made, network, [0.0])
    step(made, network, [1.0], action=1)
    assert column(network, action=0) == pytest.approx([1 / 24, 1 / 12, 1 / 24])
    assert column(network, action=1) == pytest.approx([1 / 12, 1 / 6, 1 / 12])


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_trace_is_forgotten_before_or_after_a_step(cut):
    made, network = optimizer()
    step(made, network, [0.0], after=float(cut != "after"))
    assert bool(made.trace.any()) == (cut != "after")
    # only what is new: ‖z‖₁ = 4, 1 / 8 z for action 1 and nothing for action 0
    step(made, network, [1.0], action=1, before=float(cut != "before"))
    assert column(network, action=0) == [0.0, 0.0, 0.0]
    assert column(network, action=1) == pytest.approx([1 / 8, 1 / 4, 1 / 8])
