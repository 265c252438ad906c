"""Rules of steps for large batches, by hand and beside slow twins; how the step size goes with the batch."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from agents import dqn, large_batch, pqn
from agents.contract import Batch
from agents.hyper import BadValue
from agents.large_batch import RULES, Scaling
from agents.networks import FlatParameters, QNetwork
from agents.optimizer import FlatAdam
from envs.contract import Spec
from tests.agents import test_optimizer as plain

CPU = torch.device("cpu")


def two_seeds(rule):
    """Two layers of 2x2 weights, 3-4-5 triangles: norms 5 and 10; biases (1, 0) and (2, 0)."""
    spec = Spec((2,), np.float32, 0, 2)
    net = QNetwork(spec, 2, (), layer_norm=False, dueling=False, device=CPU)
    adam = FlatAdam(FlatParameters(net), 1e9, 1e-12, RULES[rule])
    net.head.weight.data[:] = (
        torch.tensor([[[3.0, 0.0], [0.0, 4.0]]]) * torch.tensor([1.0, 2.0])[:, None, None]
    )
    net.head.bias.data[:] = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]]])
    return net.head, adam


def descend(head, adam, of_weight, of_bias, lr):
    """One step with these gradients [2, 2] and [2] at both seeds."""
    loss = (head.weight * torch.tensor(of_weight)).sum(1) + (head.bias * torch.tensor(of_bias)).sum(
        1
    )
    adam.step(loss, torch.ones_like(loss), lr)


G = [[0.6, 0.0], [0.0, 0.8]]  # norm 1


def test_lars_by_hand():
    """γ = 10, η = 0.001: a layer's step is 0.01 ‖w‖ / ‖g‖ g.

    First 0.01 · 5 g = 0.05 g, of the second seed 0.1 g, whose norm is 10. Then ‖w‖ = 5 - 0.05 = 4.95, as g
    lies along w: v = 0.9 · 0.05 g + 0.01 · 4.95 g = 0.0945 g. Biases go by 0.01 g, and 0.019 g with momentum.
    """
    head, adam = two_seeds("lars")
    descend(head, adam, G, [1.0, 0.0], 10.0)
    g = torch.tensor(G)
    torch.testing.assert_close(head.weight[0], torch.tensor([[3.0, 0.0], [0.0, 4.0]]) - 0.05 * g)
    torch.testing.assert_close(head.weight[1], torch.tensor([[6.0, 0.0], [0.0, 8.0]]) - 0.1 * g)
    torch.testing.assert_close(head.bias[:, 0, 0], torch.tensor([0.99, 1.99]))
    descend(head, adam, G, [1.0, 0.0], 10.0)
    torch.testing.assert_close(head.weight[0], torch.tensor([[3.0, 0.0], [0.0, 4.0]]) - 0.1445 * g)
    torch.testing.assert_close(head.bias[:, 0, 0], torch.tensor([0.971, 1.971]))
    assert adam.count == 2


def test_lars_does_not_ask_how_large_a_gradient_is():
    heads = []
    for factor in (1.0, 100.0):
        head, adam = two_seeds("lars")
        descend(head, adam, (factor * torch.tensor(G)).tolist(), [0.0, 0.0], 10.0)
        heads.append(head.weight)
    torch.testing.assert_close(*heads)


def test_lamb_by_hand():
    """Adam's first step is the sign of the gradient: four of them have norm 2, the weights 5 and 10.

    η = 0.1: each weight goes by 0.1 · 5 / 2 = 0.25, of the second seed by 0.5; a bias by 0.1 whatever it is.
    """
    head, adam = two_seeds("lamb")
    descend(head, adam, [[0.3, -2.0], [1.0, 5.0]], [-4.0, 0.1], 0.1)
    sign = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    torch.testing.assert_close(head.weight[0], torch.tensor([[3.0, 0.0], [0.0, 4.0]]) - 0.25 * sign)
    torch.testing.assert_close(head.weight[1], torch.tensor([[6.0, 0.0], [0.0, 8.0]]) - 0.5 * sign)
    torch.testing.assert_close(head.bias[:, 0], torch.tensor([[1.1, -0.1], [2.1, -0.1]]))


def test_weights_of_zero_leave_it_and_no_gradient_moves_nothing():
    head, adam = two_seeds("lamb")
    head.weight.data[0].zero_()
    descend(head, adam, [[1.0, 1.0], [1.0, 1.0]], [0.0, 0.0], 0.1)
    torch.testing.assert_close(head.weight[0], torch.full((2, 2), -0.1))
    assert torch.equal(head.bias[:, 0], torch.tensor([[1.0, 0.0], [2.0, 0.0]]))


def slow_twin(rule, weights, gradients, lr):
    """Each layer of one seed for itself, as the papers' algorithms read; weights and gradients by name."""
    m = {name: np.zeros_like(w) for name, w in weights.items()}
    v = {name: np.zeros_like(w) for name, w in weights.items()}
    for t, step in enumerate(gradients, 1):
        for name, w in weights.items():
            g = step[name]
            single = max(w.shape) == w.size
            if rule == "lars":
                local = 1e-3 * (1.0 if single else np.linalg.norm(w) / np.linalg.norm(g))
                m[name] = 0.9 * m[name] + lr * local * g
                weights[name] = w - m[name]
            else:
                m[name] = 0.9 * m[name] + 0.1 * g
                v[name] = 0.999 * v[name] + 0.001 * g**2
                r = (m[name] / (1 - 0.9**t)) / (np.sqrt(v[name] / (1 - 0.999**t)) + 1e-6)
                ratio = 1.0 if single else np.linalg.norm(w) / np.linalg.norm(r)
                weights[name] = w - lr * ratio * r
    return weights


@pytest.mark.parametrize(("rule", "lr"), [("lars", 2.0), ("lamb", 0.02)])
def test_many_steps_are_those_of_each_layer_for_itself(rule, lr):
    flat = FlatParameters(plain.network([0, 1, 2]))
    ours = FlatAdam(flat, 1.0, 1e-6, RULES[rule])
    names = [name for name, _ in flat.network.named_parameters()]
    before = [
        {name: leaf[k].detach().double().numpy().copy() for name, leaf in zip(names, flat.leaves, strict=True)}
        for k in range(3)
    ]  # fmt: skip
    generator, seen = torch.Generator().manual_seed(3), [[], [], []]
    for _ in range(15):
        obs = torch.randn(3, 16, 3, generator=generator)
        loss = torch.tensor([0.1, 1.0, 5.0])[:, None, None] * (flat.network(obs) - 1.0) ** 2
        ours.step(loss, torch.ones_like(loss), lr)
        for k in range(3):
            views = zip(names, flat.views(ours.grad), strict=True)
            seen[k].append({name: view[k].double().numpy().copy() for name, view in views})
    for k in range(3):
        expected = slow_twin(rule, before[k], seen[k], lr)
        for name, leaf in zip(names, flat.leaves, strict=True):
            np.testing.assert_allclose(
                leaf[k].detach().numpy(), expected[name], rtol=2e-3, atol=2e-4
            )


@pytest.mark.parametrize(("rule", "lr"), [("lars", 2.0), ("lamb", 0.02)])
def test_a_seed_in_a_group_has_the_bits_of_one_alone(rule, lr):
    def train(seeds):
        flat = FlatParameters(plain.network(seeds))
        adam = FlatAdam(flat, 1.0, 1e-6, RULES[rule])
        generator = torch.Generator().manual_seed(3)
        for _ in range(10):
            obs = torch.randn(1, 16, 3, generator=generator).expand(len(seeds), -1, -1)
            loss = (flat.network(obs) - 1.0) ** 2
            adam.step(loss, torch.ones_like(loss), lr)
        return flat.flat

    together = train([4, 5, 6])
    for k, seed in enumerate([4, 5, 6]):
        assert torch.equal(together[k], train([seed])[0])


def test_plain_operations_clip_and_step_alike():
    flats = [FlatParameters(plain.network([0, 1])) for _ in range(2)]
    eager, ours = (FlatAdam(flat, 0.1, 1e-6, RULES["lamb"]) for flat in flats)
    for _ in range(5):
        loss = (flats[0].network(torch.ones(2, 4, 3)) - 1.0) ** 2
        gradients = torch.autograd.grad(loss.sum(), flats[0].leaves, retain_graph=True)
        eager.step(loss, torch.ones_like(loss), 1e-2)
        ours.apply(flats[1].joined(gradients), 1e-2, ours.bias())
    torch.testing.assert_close(flats[1].flat, flats[0].flat, rtol=1e-4, atol=1e-5)


# -- The step size ---------------------------------------------------------------------------------


def test_the_rate_goes_with_the_batch():
    # 128 of each of 2 learners is 4 times 64
    linear, root = Scaling(True, 64, 128, 0), Scaling(False, 64, 128, 0)
    assert linear.factor(0, 2) == 4.0
    assert root.factor(0, 2) == 2.0
    assert linear.factor(0, 1) == 2.0
    assert root.factor(0, 1) == pytest.approx(math.sqrt(2))
    assert Scaling(True, 256, 128, 0).factor(0, 1) == 0.5


def test_the_rate_rises_from_one():
    """Over 100 lane steps from 1 to 4: 1, 1.75 after a quarter, 4 from then on."""
    warm = Scaling(True, 32, 128, 100)
    assert [warm.factor(t, 1) for t in (0, 25, 100, 1000)] == [1.0, 1.75, 4.0, 4.0]


def test_a_replay_learners_warm_up_begins_with_learning():
    config = dqn.DQNConfig(
        lr=0.5, batch_size=256, lr_scaling="linear", reference_batch=64, warmup_steps=100, learning_starts=10**6,
        replay_ratio=0.5,
    )  # fmt: skip
    spec = Spec((2,), np.float32, 0, 2)
    made = dqn.make_learner(
        config, spec, 4, [np.random.SeedSequence([0])], [np.random.default_rng(0)], CPU
    )
    assert made._rate() == 0.5
    made.updates = 25  # half a step of a lane each: 50 lane steps
    assert made._rate() == 0.5 * 2.5
    made.updates = 50
    assert made._rate() == 2.0


def test_pqn_falls_and_rises_at_once(monkeypatch):
    """lr falls from 1 to 0 over 400 lane steps; at 100 it is ¾, times 1 + 3 · ½ of the warm-up over 200."""
    config = pqn.PQNConfig(
        lr=1.0, lr_end=0.0, lr_steps=400, minibatch_size=512, lr_scaling="linear", reference_batch=128,
        warmup_steps=200,
    )  # fmt: skip
    spec = Spec((2,), np.float32, 0, 2)
    made = pqn.make_learner(
        config, spec, 4, [np.random.SeedSequence([0])], [np.random.default_rng(0)], CPU
    )
    made.lane_steps, rates = 100, []
    monkeypatch.setattr(
        made.optimizer, "step", lambda loss, share, lr: rates.append(lr) or loss.sum()
    )
    still = torch.zeros(1, 4)
    batch = Batch(
        torch.zeros(1, 4, 2),
        still.long(),
        still,
        still,
        torch.zeros(1, 4, 2),
        extras={"returns": still},
    )
    made.step(batch, {})
    assert rates == [0.75 * 2.5]


@pytest.mark.parametrize("config", [dqn.DQNConfig, pqn.PQNConfig])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"warmup_steps": 5}, "warmup_steps: got 5, takes 0 without --lr-scaling"),
        ({"lr_scaling": "sqrt"}, "reference_batch: got 0, takes the batch"),
        ({"reference_batch": 7}, "reference_batch: got 7"),
        ({"optimizer": "sgd"}, "optimizer: got 'sgd', takes one of adam, lars, lamb"),
    ],
)
def test_what_makes_no_sense(config, settings, said):
    with pytest.raises(BadValue, match=said):
        config(**settings)


def test_every_rule_has_a_name_that_agents_take():
    for config in (dqn.DQNConfig, pqn.PQNConfig):
        for name in RULES:
            assert config(optimizer=name).optimizer == name
        assert {"optimizer", "lr_scaling", "reference_batch", "warmup_steps"} <= {
            field.name for field in dataclasses.fields(config)
        }
    assert large_batch.scaling_of(dqn.DQNConfig(), 64) is None
