"""FlatAdam: torch's Adam with a gradient clipped seed by seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents import layers, optimizer
from agents.layers import GroupLinear
from agents.networks import FlatParameters, QNetwork, initialise
from agents.optimizer import FlatAdam
from envs.contract import Spec

SPEC = Spec((3,), np.float32, 0, 2)
SCALES = (0.1, 1.0, 50.0)  # of the three seeds' losses: the last is clipped at every step


def network(seeds):
    net = QNetwork(
        SPEC, len(seeds), (8,), layer_norm=True, dueling=False, device=torch.device("cpu")
    )
    initialise(net, [torch.Generator().manual_seed(seed) for seed in seeds])
    return net


def test_twenty_steps_are_those_of_torch():
    bound, lr, eps = 1.0, 1e-2, 1e-5
    flat = FlatParameters(network([0, 1, 2]))
    ours = FlatAdam(flat, bound, eps)
    alone = [network([seed]) for seed in range(3)]
    theirs = [torch.optim.Adam(net.parameters(), lr=lr, eps=eps) for net in alone]
    generator, clipped = torch.Generator().manual_seed(9), np.zeros(3)
    for _ in range(20):
        obs = torch.randn(3, 16, 3, generator=generator)
        goal = torch.randn(3, 16, 2, generator=generator)
        scale = torch.tensor(SCALES)[:, None, None]
        loss = scale * (flat.network(obs) - goal) ** 2
        ours.step(loss, torch.ones_like(loss), lr)
        for k, (net, adam) in enumerate(zip(alone, theirs, strict=True)):
            adam.zero_grad()
            (SCALES[k] * (net(obs[k : k + 1]) - goal[k : k + 1]) ** 2).sum().backward()
            clipped[k] += torch.nn.utils.clip_grad_norm_(net.parameters(), bound) > bound
            adam.step()
    assert clipped[2] == 20
    for k, net in enumerate(alone):
        for leaf, own in zip(flat.leaves, net.parameters(), strict=True):
            torch.testing.assert_close(leaf[k], own[0], atol=2e-6, rtol=1e-5)


def test_each_seed_is_clipped_by_its_own_norm():
    # Two seeds with a head of two weights and gradients (3, 4) and (0.3, 0.4): norms 5 and 0.5.
    # At bound 1 the first becomes (0.6, 0.8), the second stays; over both together it would shrink.
    spec = Spec((1,), np.float32, 0, 2)
    net = QNetwork(spec, 2, (), layer_norm=False, dueling=False, device=torch.device("cpu"))
    flat = FlatParameters(net)
    adam = FlatAdam(flat, 1.0, 1e-8)
    slope = torch.tensor([[[3.0, 4.0]], [[0.3, 0.4]]])
    loss = net.head.weight * slope + 0.0 * net.head.bias
    adam.step(loss, torch.ones_like(loss), 0.1)
    expected = torch.tensor([[[0.6, 0.8]], [[0.3, 0.4]]])
    torch.testing.assert_close(adam.grad_views[0], expected, atol=1e-5, rtol=0)
    # Adam's first step is lr towards the side that falls, whatever the gradient's size
    torch.testing.assert_close(net.head.weight, torch.full((2, 1, 2), -0.1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kept", [[0], [2, 1]])
def test_the_moments_of_seeds_that_stay_are_kept(kept):
    flat = FlatParameters(network([0, 1, 2]))
    adam = FlatAdam(flat, 1.0, 1e-8)
    loss = flat.network(torch.ones(3, 4, 3)) ** 2
    adam.step(loss, torch.ones_like(loss), 0.1)
    other = FlatAdam(FlatParameters(network(kept)), 1.0, 1e-8)
    other.keep_from(adam, kept)
    assert torch.equal(other.mean, adam.mean[kept])
    assert torch.equal(other.square, adam.square[kept])
    assert other.count == adam.count == 1


def test_a_share_multiplies_a_sample():
    # d/dw of 2 * 3 w + 0 * 5 w
    net = QNetwork(
        Spec((1,), np.float32, 0, 1), 1, (), layer_norm=False, dueling=False,
        device=torch.device("cpu"),
    )  # fmt: skip
    adam = FlatAdam(FlatParameters(net), 100.0, 1e-8)
    loss = net(torch.tensor([[[3.0], [5.0]]])).squeeze(-1)
    adam.step(loss, torch.tensor([[2.0, 0.0]]), 0.1)
    assert adam.grad_views[0].tolist() == [[[6.0, 0.0]]]  # the head's second column is spare


def test_plain_operations_do_the_same():
    flat, plain = FlatParameters(network([0, 1, 2])), FlatParameters(network([0, 1, 2]))
    fused, ours = FlatAdam(flat, 1.0, 1e-5), FlatAdam(plain, 1.0, 1e-5)
    generator = torch.Generator().manual_seed(9)
    for _ in range(20):
        obs = torch.randn(3, 16, 3, generator=generator)
        loss = torch.tensor(SCALES)[:, None, None] * (flat.network(obs) - 1.0) ** 2
        gradients = torch.autograd.grad(loss.sum(), flat.leaves, retain_graph=True)
        fused.step(loss, torch.ones_like(loss), 1e-2)
        ours.apply(plain.joined(gradients), 1e-2, ours.bias())
    torch.testing.assert_close(plain.flat, flat.flat, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(ours.square, fused.square, atol=1e-6, rtol=1e-4)
    assert ours.count == fused.count == 20


class Wide(torch.nn.Module):
    """A wide layer that a loss may go through several times."""

    def __init__(self, seeds, bf16, times):
        super().__init__()
        self.layer = GroupLinear(len(seeds), 24, 24, torch.device("cpu"), bf16=bf16)
        self.times = times
        initialise(self, [torch.Generator().manual_seed(seed) for seed in seeds])

    def forward(self, x):
        for _ in range(self.times):
            x = torch.tanh(self.layer(x))
        return x


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_wide_gradient_written_in_place_is_the_same(seeds, bf16, times, monkeypatch):
    # the ordinary way is the twin: wide begins above, then below these 24 x 24 weights
    x = torch.randn(len(seeds), 16, 24, generator=torch.Generator().manual_seed(9))
    flats = []
    for wide in (10**9, 100):
        monkeypatch.setattr(optimizer, "WIDE", wide)
        flat = FlatParameters(Wide(seeds, bf16, times))
        adam = FlatAdam(flat, 10.0, 1e-8)
        assert (flat.network.layer.weight.grad is not None) == (wide == 100)
        gradients = []
        for _ in range(3):
            loss = flat.network(x).square().sum(-1)
            adam.step(loss, torch.ones_like(loss), 1e-2)
            gradients.append(adam.grad.clone())
        flats.append((flat.flat, gradients))
    (plain, theirs), (placed, ours) = flats
    # in bfloat16 the bias's gradient is summed in float32, which autograd sums in bfloat16
    tolerance = {"rtol": 3e-2, "atol": 3e-2} if bf16 else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(placed, plain, **tolerance)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def test_a_wide_layer_acts_and_values_without_its_place():
    flat = FlatParameters(Wide([0], False, 1))
    flat.network.layer.weight.grad = torch.full_like(flat.network.layer.weight, 7.0)
    with torch.no_grad():
        flat.network(torch.ones(1, 2, 24))
    assert layers.has_place(flat.network.layer.weight)
    assert (flat.network.layer.weight.grad == 7.0).all()
