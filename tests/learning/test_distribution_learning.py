"""The learned distributions of returns are the true ones, which dynamic programming knows exactly.

A Garnet of five states and one action, so that there is one policy to evaluate and no maximum to bias:
of the first ten by ``mdp_seed`` the one whose returns are spread the most.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

import envs
from agents import planning
from agents.rules.distributional import midpoints
from envs.contract import mdp_of
from runners import load_policy
from runners.resolve import make_config
from runners.train import run

pytestmark = pytest.mark.learn

GAMMA, STATES = 0.6, 5
GARNET = {"states": STATES, "actions": 1, "branching": 2, "mdp_seed": 4}
DEPTH = 15  # steps that are followed; 0.6^15 = 0.0005 of a return is behind them
LEARNING = {
    "gamma": GAMMA, "steps": 20_000, "lanes": 8, "rollout_length": 8, "hidden": (64,), "lr": 3e-4,
    "batch_size": 64, "replay_ratio": 0.25, "learning_starts": 1_000, "target_period": 40,
    "target_tau": 0.2, "eval_every": 20_000, "eval_episodes": 1, "final_episodes": 2,
}  # fmt: skip


def exact(mdp):
    """The distribution of the discounted return from every state: [(values [n], probabilities [n])].

    Every way of `DEPTH` steps, those with the same state and the same rewards so far together; what is
    behind them is taken for its mean. The time limit is no property of the task.
    """
    mean = planning.policy_iteration(mdp, GAMMA)[:, 0]
    laws = []
    for start in range(STATES):
        ways = {(start, 0.0): 1.0}
        for t in range(DEPTH):
            longer = {}
            for (s, collected), p in ways.items():
                for q, to, r in zip(mdp.P[s, 0], mdp.successor[s, 0], mdp.R[s, 0], strict=True):
                    key = int(to), collected + GAMMA**t * r
                    longer[key] = longer.get(key, 0.0) + p * q
            ways = longer
        values = np.array([collected + GAMMA**DEPTH * mean[s] for s, collected in ways])
        laws.append((values, np.array(list(ways.values()))))
    return laws


def point(values, p):
    """W₁ of the mean alone, the most that a scalar head can know: E|G - E G|."""
    return float(np.abs(values - values @ p) @ p)


def nearest_on(support, values, p):
    """The least W₁ of any distribution on a support: each value goes to its nearest place."""
    return float(np.abs(values[:, None] - support).min(1) @ p)


def nearest_quantiles(count, values, p):
    """The least W₁ of any ``count`` values of equal weight: quantiles at the middles of equal parts.

    Dabney et al. 2018, arXiv:1710.10044, Lemma 2.
    """
    order = np.argsort(values)
    cumulative = np.cumsum(p[order])
    at = np.searchsorted(cumulative, midpoints(count).double().numpy()).clip(max=len(p) - 1)
    return float(wasserstein_distance(values[order][at], values, None, p))


@pytest.fixture(scope="module")
def garnet():
    mdp = mdp_of(envs.make("Garnet-v0", 1, 0, "tabular", **GARNET))
    return mdp, exact(mdp)


def test_the_oracle_is_what_is_seen(garnet):
    """Against 20,000 episodes that are stepped; E W₁ of n draws is at most ∫ √(F (1 - F) / n)."""
    mdp, laws = garnet
    lanes = 20_000
    env = envs.make("Garnet-v0", lanes, 7, "tabular", **GARNET)
    obs, _ = env.reset()
    start, returns = obs, np.zeros(lanes)
    for t in range(30):
        _, reward, *_ = env.step(np.zeros(lanes, np.int64))
        returns += GAMMA**t * reward
    for s, (values, p) in enumerate(laws):
        assert p.sum() == pytest.approx(1.0)
        assert values @ p == pytest.approx(planning.q_star(mdp, GAMMA)[s, 0])
        order, seen = np.argsort(values), returns[start == s]
        below = np.cumsum(p[order])[:-1].clip(0, 1)
        chance = np.sqrt(below * (1 - below) / len(seen)) @ np.diff(values[order])
        assert wasserstein_distance(seen, values, None, p) < 2 * chance
        assert chance < point(values, p) / 20  # enough episodes to tell


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("agent", "settings"),
    [
        ("c51", {"v_min": -3.0, "v_max": 4.5}),
        # Huber's loss has quantiles for its minimum only where δ is small beside the returns' spread
        ("qrdqn", {"huber": 0.02, "atoms": 32}),
        ("iqn", {"huber": 0.02, "atoms": 32}),
    ],
    ids=["c51", "qrdqn", "iqn"],
)
def test_distributions_of_returns_are_learned(agent, settings, garnet, tmp_path):
    """Nearer than a quarter of what the mean alone is off, and no nearer than the head allows.

    The least W₁ is that of the nearest distribution that a head can express. C51 projects at every
    step: that moves a value by Δz / 2 at most in the mean and brings no two distributions farther
    apart, so its fixed point is within (Δz / 2) / (1 - γ) of the truth.
    """
    _, laws = garnet
    config = make_config(agent, "Garnet-v0", env_options=GARNET, **LEARNING, **settings)
    hyper = config.hyper
    folder = run(config, (0, 1), str(tmp_path))
    for seed in (0, 1):
        network = load_policy(folder, seed, last=True).actor.network
        with torch.inference_mode():
            out = network(torch.arange(STATES)[None])[0, :, 0].double()
        learned, least, mean_alone = np.zeros((3, STATES))
        for s, (values, p) in enumerate(laws):
            places, weights = out[s].numpy(), None
            least[s] = nearest_quantiles(hyper.atoms, values, p)
            if agent == "c51":
                places = np.linspace(hyper.v_min, hyper.v_max, hyper.atoms)
                weights = torch.softmax(out[s], -1).numpy()
                least[s] = nearest_on(places, values, p)
            learned[s] = wasserstein_distance(places, values, weights, p)
            mean_alone[s] = point(values, p)
        means = [f"{x.mean():.3f}" for x in (learned, least, mean_alone)]
        told = dict(zip(("learned", "the least", "the mean alone"), means, strict=True))
        sys.stdout.write(f"{agent}, seed {seed}, Wasserstein-1: {told}\n")  # seen with -s
        assert (least <= learned + 1e-6).all()
        assert learned.mean() < mean_alone.mean() / 4
        if agent == "c51":
            step = places[1] - places[0]
            assert learned.max() < step / 2 / (1 - GAMMA)
