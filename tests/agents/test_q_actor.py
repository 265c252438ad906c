"""The actor of networks acts with what was published: weights and ε, each copied."""

from __future__ import annotations

import numpy as np
import torch

from agents.contract import Params
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


def test_what_is_published_is_copied():
    made = actor()
    published = params(made, 1, 0.0)
    made.load_params(published)
    published.tensors["flat"].zero_()
    assert share_of(made, 1) == 1.0
