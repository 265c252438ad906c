"""The actor of networks acts with what was published: weights and ε, each copied."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.contract import Params
from agents.dqn import DQNConfig, make_actor
from agents.networks import QNetwork
from agents.q_actor import QActor
from envs.contract import Spec

SPEC = Spec((1,), np.float32, 0, 4)


def actor(seeds=1):
    network = QNetwork(SPEC, seeds, (), layer_norm=False, dueling=False, device=torch.device("cpu"))
    return QActor(network, [np.random.default_rng(k) for k in range(seeds)])


def params(made, best, epsilon):
    """Weights by which action ``best`` is the best one everywhere."""
    flat = torch.zeros_like(made.parameters.flat)
    _, bias = made.parameters.views(flat)
    bias[..., best] = 1.0
    return Params(1, 0, {"flat": flat}, {"epsilon": epsilon})


def share_of(made, action, explore=True):
    obs = np.zeros((1, 20_000, 1), np.float32)
    return (made.act(obs, np.zeros((1, 20_000), bool), {}, {}, explore)[0] == action).mean()


def test_it_explores_as_often_as_was_published():
    made = actor()
    made.load_params(params(made, 2, 0.0))
    assert share_of(made, 2) == 1.0
    made.load_params(params(made, 3, 0.4))
    # 0.6 greedily and a quarter of 0.4 by chance; five standard deviations
    assert abs(share_of(made, 3) - 0.7) < 5 * np.sqrt(0.7 * 0.3 / 20_000)
    assert share_of(made, 3, explore=False) == 1.0


def test_a_ladder_goes_over_all_lanes_of_a_seed_though_an_actor_has_some():
    network = QNetwork(SPEC, 1, (), layer_norm=False, dueling=False, device=torch.device("cpu"))
    made = QActor(network, [np.random.default_rng(0)], ladder_alpha=7.0)
    made.load_params(params(made, 2, 0.4))
    whole = made._epsilon(8)
    made.place(2, 8)
    assert made._epsilon(2).tolist() == whole[2:4].tolist()
    assert (whole[0], whole[7]) == (0.4, pytest.approx(0.4**8))


def test_what_is_published_is_copied():
    made = actor()
    published = params(made, 1, 0.0)
    made.load_params(published)
    published.tensors["flat"].zero_()
    assert share_of(made, 1) == 1.0


@pytest.mark.parametrize("memory", ["lstm", "attention"])
@pytest.mark.parametrize("distributional", ["none", "iqn"])
@pytest.mark.parametrize("spec", [SPEC, Spec((), np.int64, 5, 4)], ids=["box", "discrete"])
def test_what_was_seen_has_the_same_values_again(spec, distributional, memory):
    config = DQNConfig(
        memory=memory, memory_size=8, context=3, hidden=(6,), distributional=distributional, atoms=4
    )
    made = make_actor(config, spec, [np.random.default_rng(0)])
    flat = torch.randn(made.parameters.flat.shape, generator=torch.Generator().manual_seed(1))
    made.load_params(Params(1, 0, {"flat": flat}, {"epsilon": 0.0}))
    rng, state = np.random.default_rng(2), made.initial_state(3)
    for t in range(5):
        size = (1, 3, *spec.obs_shape)
        obs = rng.integers(5, size=size) if spec.num_states else rng.normal(size=size)
        obs, first = obs.astype(spec.obs_dtype), np.array([[t == 0, t == 2, t == 4]])
        expected, _ = made._recall(obs, first, state, {})
        actions, state, extras = made.act(obs, first, {}, state, False)
        found = made.values(extras["seen"])
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(actions, found.argmax(-1))
        assert [layer.shape[:3] for layer in made.activations(extras["seen"])] == [(1, 3, 6)]
